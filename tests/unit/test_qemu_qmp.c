/* SPDX-License-Identifier: Apache-2.0 */
/* The QMP client: negotiation, answers, deadlines, pieces, descriptors; the ends are next door. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "qemu/qmp.h"
#include "qmp_peer.h"

static void negotiates_before_anything_queued(void **state)
{
	struct fixture *f = *state;
	AUTO_JSON json_t *args = json_pack("{s:s}", "id", "net0");

	assert_int_equal(query(f, 5000), 0);
	assert_int_equal(qmp_send(f->q, "device_del", args, -1, 5000, NULL, NULL), 0);
	spin(f);
	expect_sent(f, "");
	assert_int_equal(qmp_pending(f->q, NULL), 2);
	greet(f);
	expect_sent(f, "{\"execute\":\"query-status\",\"id\":1}\n"
		       "{\"execute\":\"device_del\",\"arguments\":{\"id\":\"net0\"},\"id\":2}\n");
	say(f, "{\"return\":{\"status\":\"running\"},\"id\":1}\r\n{\"return\":{},\"id\":2}\r\n");
	spin(f);
	assert_string_equal(logged(f), "done 0 ok;");
	assert_int_equal(qmp_pending(f->q, NULL), 0);
}

static void an_error_completes_its_caller(void **state)
{
	struct fixture *f = *state;

	greet(f);
	query(f, 5000);
	say(f, "{\"id\":1,\"error\":{\"class\":\"DeviceNotFound\",\"desc\":\"Device 'x'\"}}\n");
	spin(f);
	assert_string_equal(logged(f), "done -121 DeviceNotFound: Device 'x';");
	assert_int_equal(f->closed, 0);
}

static void wrong_and_missing_ids_are_nobodys(void **state)
{
	struct fixture *f = *state;

	greet(f);
	query(f, 5000);
	say(f, "{\"return\":{},\"id\":7}\n{\"return\":{},\"id\":\"1\"}\n{\"return\":{}}\n"
	       "{\"error\":{\"class\":\"GenericError\",\"desc\":\"\"}}\n");
	spin(f);
	assert_string_equal(logged(f), "");
	say(f, "{\"return\":{},\"id\":1}\n");
	spin(f);
	assert_string_equal(logged(f), "done 0 ok;");
}

static void lines_come_in_any_pieces(void **state)
{
	static const char text[] = "{\"timestamp\":{\"seconds\":12,\"microseconds\":34567},"
				   "\"event\":\"STOP\"}\r\n\r\n{\"return\":[],\"id\":1}\r\n"
				   "{\"event\":\"RESUME\",\"data\":{}}\n";
	struct fixture *f = *state;
	char one[2] = "";

	greet(f);
	query(f, 5000);
	for (const char *p = text; *p; p++) {
		one[0] = *p;
		say(f, one);
		spin(f);
	}
	assert_string_equal(logged(f), "event STOP 12034;done 0 ok;event RESUME 0;");
}

static void a_deadline_passes_and_the_late_answer_is_dropped(void **state)
{
	struct fixture *f = *state;
	uint64_t since = 0;

	greet(f);
	query(f, 20);
	query(f, 60000);
	assert_int_equal(qmp_pending(f->q, &since), 2);
	assert_true(since <= clock_ms() && since + 1000 > clock_ms());
	run_until(f, "done -110 QEMU did not answer within 20 ms;");
	say(f, "{\"return\":{},\"id\":1}\n{\"return\":{},\"id\":2}\n");
	spin(f);
	assert_string_equal(logged(f), "done -110 QEMU did not answer within 20 ms;done 0 ok;");
	assert_int_equal(f->closed, 0);
}

static uint64_t far_future(void)
{
	return UINT64_C(1) << 60;
}

static void no_greeting_means_busy(void **state)
{
	struct fixture *f = *state;

	query(f, UINT64_MAX);
	/* The loop's timer cannot be moved, the clock it is compared with can: an earlier
	 * deadline wakes the client, which then finds that of the greeting passed too. */
	query(f, 5);
	clock_us_hook = far_future;
	while (!f->closed)
		assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
	clock_us_hook = NULL;
	assert_int_equal(f->closed_r, -ETIMEDOUT);
	assert_non_null(strstr(logged(f), "done -104 the connection to QEMU ended: no greeting"));
	assert_int_equal(qmp_send(f->q, "stop", NULL, -1, 1, NULL, NULL), -ENOTCONN);
}

static void a_late_greeting_is_fine(void **state)
{
	struct fixture *f = *state;

	query(f, 10);
	run_until(f, "done -110 QEMU did not answer within 10 ms;");
	greet(f);
	expect_sent(f, ""); /* what expired unsent is never sent */
	query(f, 5000);
	expect_sent(f, "{\"execute\":\"query-status\",\"id\":2}\n");
}

static void drain_reads_all_without_the_loop(void **state)
{
	struct fixture *f = *state;

	greet(f);
	for (int i = 0; i < 100; i++)
		say(f, "{\"event\":\"RTC_CHANGE\",\"data\":{\"offset\":1}}\r\n");
	qmp_drain(f->q);
	assert_int_equal(f->log.len, 100 * strlen("event RTC_CHANGE 0;"));
	qmp_drain(f->q);
	assert_int_equal(f->closed, 0);
}

static void held_is_unread_until_asked_for(void **state)
{
	struct fixture *f = *state;

	greet(f);
	query(f, 5000);
	expect_sent(f, "{\"execute\":\"query-status\",\"id\":1}\n");
	qmp_hold(f->q);
	say(f, "{\"return\":{},\"id\":1}\n");
	spin(f);
	assert_string_equal(logged(f), "");
	qmp_unhold(f->q);
	spin(f);
	assert_string_equal(logged(f), "done 0 ok;");
	qmp_hold(f->q);
	query(f, 5000); /* whoever asks wants the answer at once */
	say(f, "{\"return\":{},\"id\":2}\n");
	spin(f);
	assert_string_equal(logged(f), "done 0 ok;done 0 ok;");
	qmp_hold(f->q);
	(void)close(steal_fd(&f->peer));
	spin(f);
	assert_int_equal(f->closed, 1);
}

static void sending_from_callbacks(void **state)
{
	struct fixture *f = *state;

	greet(f);
	f->send_in_done = true;
	query(f, 5000);
	expect_sent(f, "{\"execute\":\"query-status\",\"id\":1}\n");
	say(f, "{\"return\":{},\"id\":1}\n");
	spin(f);
	expect_sent(f, "{\"execute\":\"stop\",\"id\":2}\n");
	query(f, 5000);
	(void)close(steal_fd(&f->peer));
	spin(f);
	assert_true(str_starts(logged(f), "done 0 ok;send 0;done -104"));
	assert_true(str_ends(logged(f), "send -107;"));
}

static void the_queue_is_bounded(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < QMP_QUEUE_MAX; i++)
		assert_int_equal(query(f, 5000), 0);
	assert_int_equal(query(f, 5000), -ENOBUFS);
	greet(f);
	assert_int_equal(qmp_pending(f->q, NULL), QMP_QUEUE_MAX);
}

/* A peer that never reads: half a command is in the socket when its deadline passes. */
static void a_full_socket_never_blocks(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *big = xcalloc(1, 3000001);
	AUTO_JSON json_t *args = NULL;
	AUTO_STRBUF struct strbuf got = {0};
	ssize_t n;

	memset(big, 'x', 3000000);
	args = json_pack("{s:s}", "command-line", big);
	greet(f);
	assert_int_equal(qmp_send(f->q, "human-monitor-command", args, -1, 10, on_done, f), 0);
	query(f, 60000);
	run_until(f, "done -110 QEMU did not answer within 10 ms;");
	while (got.len < 3000000 || !strstr(got.data + 3000000, "\"id\":2}\n")) {
		assert_true(sd_event_run(f->event, 0) >= 0);
		strbuf_reserve(&got, 65536);
		n = recv(f->peer, got.data + got.len, 65536, 0);
		if (n > 0)
			got.len += (size_t)n;
		got.data[got.len] = '\0';
	}
	say(f, "{\"return\":\"\",\"id\":1}\n{\"return\":{},\"id\":2}\n");
	spin(f);
	assert_true(str_ends(logged(f), ";done 0 ok;"));
}

static int received_fd(struct fixture *f, char *text, size_t size)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {text, size - 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(f->peer, &msg, MSG_CMSG_CLOEXEC);
	int fd = -1;

	text[n > 0 ? n : 0] = '\0';
	if (n > 0 && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

/* QEMU keeps the descriptors of one message only: the second getfd waits for the first answer. */
static void descriptors_go_one_at_a_time(void **state)
{
	struct fixture *f = *state;
	char text[4096];
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC), got;

	greet(f);
	assert_int_equal(qmp_send(f->q, "getfd", NULL, fd, 5000, on_done, f), 0);
	assert_int_equal(qmp_send(f->q, "getfd", NULL, fd, 5000, on_done, f), 0);
	(void)close(fd);
	got = received_fd(f, text, sizeof(text));
	assert_true(got >= 0);
	(void)close(got);
	expect_sent(f, "\"execute\":\"getfd\",\"id\":1}\n"); /* the first byte carried it */
	assert_string_equal(text, "{");
	expect_sent(f, "");
	say(f, "{\"return\":{},\"id\":1}\n");
	spin(f);
	got = received_fd(f, text, sizeof(text));
	assert_true(got >= 0);
	(void)close(got);
	assert_int_equal(qmp_send(f->q, "getfd", NULL, 9999, 5000, on_done, f), -EBADF);
}

static void numbers_too_big_for_us_cost_nothing(void **state)
{
	struct fixture *f = *state;

	greet(f);
	query(f, 5000);
	say(f, "{\"return\":{\"bytes\":18446744073709551615},\"id\":1}\n"
	       "{\"event\":\"X\",\"data\":{\"n\":18446744073709551615},"
	       "\"timestamp\":{\"seconds\":3,\"microseconds\":5000}}\n");
	spin(f);
	assert_string_equal(logged(f), "done 0 ok;event X 3005;");
}

static void a_line_without_end_is_refused(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *piece = xcalloc(1, 65537);
	size_t sent = 0;

	memset(piece, ' ', 65536);
	greet(f);
	while (!f->closed && sent < QMP_LINE_MAX + (1u << 20)) {
		ssize_t n = send(f->peer, piece, 65536, MSG_NOSIGNAL);

		sent += n > 0 ? (size_t)n : 0;
		spin(f);
	}
	assert_int_equal(f->closed_r, -EPROTO);
}

static void connects_by_path(void **state)
{
	struct fixture *f = *state;
	char dir[] = "/tmp/test-qmp-XXXXXX";
	struct qmp_config config = {on_ready, on_event, on_closed, f};
	struct err err = {0};
	AUTO_FREE char *path = NULL;
	int fd;

	assert_non_null(mkdtemp(dir));
	path = xasprintf("%s/vm.mon", dir);
	qmp_free(steal_ptr(f->q));
	assert_int_equal(qmp_open(f->event, path, &config, &f->q, &err), -ENOENT);
	assert_non_null(strstr(err.msg, path));
	assert_int_equal(sock_listen(path, 0600, &fd, NULL), 0);
	assert_int_equal(qmp_open(f->event, path, &config, &f->q, &err), 0);
	(void)close(f->peer);
	f->peer = accept(fd, NULL, NULL);
	greet(f);
	(void)close(fd);
	(void)unlink(path);
	(void)rmdir(dir);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(negotiates_before_anything_queued),
		T(an_error_completes_its_caller),
		T(wrong_and_missing_ids_are_nobodys),
		T(lines_come_in_any_pieces),
		T(a_deadline_passes_and_the_late_answer_is_dropped),
		T(no_greeting_means_busy),
		T(a_late_greeting_is_fine),
		T(drain_reads_all_without_the_loop),
		T(held_is_unread_until_asked_for),
		T(sending_from_callbacks),
		T(the_queue_is_bounded),
		T(a_full_socket_never_blocks),
		T(descriptors_go_one_at_a_time),
		T(numbers_too_big_for_us_cost_nothing),
		T(a_line_without_end_is_refused),
		T(connects_by_path),
	};

	return cmocka_run_group_tests_name("qmp", tests, NULL, NULL);
}
