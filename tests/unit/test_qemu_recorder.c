/* SPDX-License-Identifier: Apache-2.0 */
/* The recorder's files: what is made, what is read out of them, what trimming leaves. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/recorder.h"

#define STAMP "\"timestamp\":{\"seconds\":100,\"microseconds\":7000}"
#define DOWN(reason, guest)                                                                        \
	"{" STAMP ",\"event\":\"SHUTDOWN\",\"data\":{\"guest\":" guest ",\"reason\":\"" reason     \
	"\"}}\r\n"
#define RESET "{" STAMP ",\"event\":\"RESET\",\"data\":{\"guest\":true}}\r\n"
#define PANIC "{" STAMP ",\"event\":\"GUEST_PANICKED\",\"data\":{\"action\":\"pause\"}}\r\n"

static char dir[64], out[96];

static int setup(void **state)
{
	(void)snprintf(dir, sizeof(dir), "/tmp/test-recorder-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(out, sizeof(out), "%s/%s", dir, RECORDER_OUT);
	return 0;
}

static int teardown(void **state)
{
	return dir_remove_tree(dir, NULL);
}

static struct recorder_end end_of(const char *text)
{
	struct recorder_end end;

	assert_int_equal(file_write(out, text, strlen(text), 0600, FILE_NO_SYNC, NULL), 0);
	assert_int_equal(recorder_read(dir, &end, NULL), 0);
	return end;
}

static void prepares_a_filled_fifo(void **state)
{
	AUTO_FREE char *in = path_join(dir, RECORDER_IN);
	char buf[100] = "";
	struct stat st;
	mode_t old = umask(077);
	int fd, again;

	assert_int_equal(recorder_prepare(dir, 0640, &fd, NULL), 0);
	assert_int_equal(stat(in, &st), 0);
	assert_true(S_ISFIFO(st.st_mode) && (st.st_mode & 0777) == 0640);
	assert_int_equal(stat(out, &st), 0);
	assert_true(S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0640 && st.st_size == 0);
	/* A second start begins anew, whatever the last one left. */
	assert_int_equal(file_write(out, "old", 3, 0600, FILE_NO_SYNC, NULL), 0);
	assert_int_equal(recorder_prepare(dir, 0600, &again, NULL), 0);
	assert_int_equal(stat(out, &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_true(read(again, buf, sizeof(buf) - 1) > 0);
	assert_string_equal(buf, "{\"execute\":\"qmp_capabilities\"}\n");
	assert_true(read(again, buf, sizeof(buf)) < 0 && errno == EAGAIN);
	(void)close(fd);
	(void)close(again);
	(void)umask(old);
}

static void prepare_names_what_is_wrong(void **state)
{
	struct err err;
	int fd;

	assert_int_equal(recorder_prepare("/nonexistent", 0600, &fd, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/nonexistent"));
	assert_int_equal(mkdir(out, 0700), 0);
	assert_true(recorder_prepare(dir, 0600, &fd, &err) < 0);
	assert_non_null(strstr(err.msg, out));
}

static void the_first_shutdown_counts(void **state)
{
	struct recorder_end e = end_of("{\"QMP\":{}}\r\n{\"return\":{}}\r\n" RESET RESET DOWN(
		"guest-shutdown", "true") DOWN("host-qmp-quit", "false"));

	assert_true(e.shutdown && e.guest && !e.panicked);
	assert_string_equal(e.reason, "guest-shutdown");
	assert_int_equal(e.resets, 2);
	assert_int_equal(e.wall_ms, 100007);
}

static void a_panic_counts_until_a_reset(void **state)
{
	assert_true(end_of(PANIC DOWN("host-qmp-quit", "false")).panicked);
	assert_false(end_of(PANIC RESET DOWN("guest-shutdown", "true")).panicked);
	assert_false(end_of(DOWN("guest-shutdown", "true") PANIC).panicked);
}

static void cut_and_strange_lines_are_ignored(void **state)
{
	struct recorder_end e = end_of("\x01garbage\n[]\n{\"event\":5}\n{\"event\":\"SHUTDOWN\"}");

	assert_false(e.shutdown);
	e = end_of("{\"event\":\"SHUTDOWN\"}\n");
	assert_true(e.shutdown && !e.guest);
	assert_string_equal(e.reason, "unknown");
	e = end_of("{\"event\":\"SHUTDOWN\",\"data\":{\"reason\":"
		   "\"a reason far longer than any that QEMU has ever had\"}}\n");
	assert_int_equal(strlen(e.reason), sizeof(e.reason) - 1);
	assert_false(end_of("").shutdown);
}

static void no_file_is_no_record(void **state)
{
	struct recorder_end end;
	struct err err;

	assert_int_equal(recorder_read(dir, &end, &err), -ENOENT);
	assert_int_equal(symlink("/etc/passwd", out), 0);
	assert_int_equal(recorder_read(dir, &end, &err), -ELOOP);
	recorder_trim(dir);
}

static void trimming_keeps_the_end(void **state)
{
	AUTO_STRBUF struct strbuf sb = {0};
	struct recorder_end end;
	struct stat st;

	for (size_t i = 0; sb.len < 5 * RECORDER_KEEP; i++)
		strbuf_puts(&sb, RESET);
	strbuf_puts(&sb, DOWN("guest-shutdown", "true"));
	assert_int_equal(file_write(out, sb.data, sb.len, 0600, FILE_NO_SYNC, NULL), 0);
	recorder_trim(dir);
	assert_int_equal(stat(out, &st), 0);
	assert_int_equal(st.st_size, sb.len); /* QEMU writes on where it was */
	assert_true(st.st_blocks * 512 <= 2 * RECORDER_KEEP);
	assert_int_equal(recorder_read(dir, &end, NULL), 0);
	assert_true(end.shutdown);
	/* The SHUTDOWN takes its share, and the first line is cut. */
	assert_in_range(end.resets, RECORDER_KEEP / strlen(RESET) - 3,
			RECORDER_KEEP / strlen(RESET));
}

static void an_endless_line_is_not_kept_in_memory(void **state)
{
	AUTO_STRBUF struct strbuf sb = {0};
	struct recorder_end end;

	strbuf_reserve(&sb, 4 << 20);
	memset(sb.data, '{', 4 << 20);
	sb.len = 4 << 20;
	strbuf_puts(&sb, "\n" DOWN("host-signal", "false"));
	assert_int_equal(file_write(out, sb.data, sb.len, 0600, FILE_NO_SYNC, NULL), 0);
	assert_int_equal(recorder_read(dir, &end, NULL), 0);
	assert_string_equal(end.reason, "host-signal");
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(prepares_a_filled_fifo),
		T(prepare_names_what_is_wrong),
		T(the_first_shutdown_counts),
		T(a_panic_counts_until_a_reset),
		T(cut_and_strange_lines_are_ignored),
		T(no_file_is_no_record),
		T(trimming_keeps_the_end),
		T(an_endless_line_is_not_kept_in_memory),
	};

	return cmocka_run_group_tests_name("recorder", tests, NULL, NULL);
}
