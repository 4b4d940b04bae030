/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the recorder monitor; see recorder.h and docs/decisions/0004. QEMU opens both by name
 * (read and write), reads its one command from the FIFO and writes events to the file for as long
 * as it lives. The directory may belong to QEMU's own user, so nothing in it is followed.
 */
#include "qemu/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/qmp.h"

#define READ_MAX  (16 << 20)  /* bytes of the file's end that are looked at */
#define EVENT_MAX (256 << 10) /* longer lines are no event */
#define STEP      (64 << 10)

static const char hello[] = "{\"execute\":\"qmp_capabilities\"}\n";

static int open_dir(const char *dir, int *ret_fd, struct err *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, errno, "cannot open directory '%s'", dir);
	*ret_fd = fd;
	return 0;
}

static int clear(int dirfd, const char *dir, const char *name, struct err *err)
{
	if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
		return err_sys(err, errno, "cannot remove the old '%s/%s'", dir, name);
	return 0;
}

static int make_file(int dirfd, const char *dir, mode_t mode, struct err *err)
{
	AUTO_FD int fd = -1;
	int r = clear(dirfd, dir, RECORDER_OUT, err);

	if (r < 0)
		return r;
	fd = openat(dirfd, RECORDER_OUT, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    mode);
	if (fd < 0 || fchmod(fd, mode) < 0)
		return err_sys(err, errno, "cannot make '%s/%s'", dir, RECORDER_OUT);
	return 0;
}

/* Opened for reading and writing a FIFO never blocks and keeps its content while we hold it. */
static int make_fifo(int dirfd, const char *dir, mode_t mode, int *ret_fd, struct err *err)
{
	AUTO_FD int fd = -1;
	int r = clear(dirfd, dir, RECORDER_IN, err);

	if (r < 0)
		return r;
	if (mkfifoat(dirfd, RECORDER_IN, mode) < 0)
		return err_sys(err, errno, "cannot make '%s/%s'", dir, RECORDER_IN);
	fd = openat(dirfd, RECORDER_IN, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchmod(fd, mode) < 0)
		return err_sys(err, errno, "cannot open '%s/%s'", dir, RECORDER_IN);
	r = fd_write_all(fd, hello, sizeof(hello) - 1);
	if (r < 0)
		return err_sys(err, -r, "cannot fill '%s/%s'", dir, RECORDER_IN);
	*ret_fd = steal_fd(&fd);
	return 0;
}

int recorder_prepare(const char *dir, mode_t mode, int *ret_fd, struct err *err)
{
	AUTO_FD int dirfd = -1;
	int r = open_dir(dir, &dirfd, err);

	if (r == 0)
		r = make_file(dirfd, dir, mode, err);
	return r < 0 ? r : make_fifo(dirfd, dir, mode, ret_fd, err);
}

/* --- reading --- */

static void take_shutdown(const json_t *data, int64_t wall_ms, struct recorder_end *end)
{
	if (end->shutdown)
		return;
	end->shutdown = true;
	end->guest = json_get_bool(data, "guest", false);
	end->wall_ms = wall_ms;
	(void)snprintf(end->reason, sizeof(end->reason), "%s",
		       json_get_str(data, "reason", "unknown"));
}

static void take_event(const struct qmp_message *m, struct recorder_end *end)
{
	if (str_eq(m->name, "SHUTDOWN")) {
		take_shutdown(m->body, m->wall_ms, end);
	} else if (str_eq(m->name, "RESET")) {
		end->resets++;
		if (!end->shutdown)
			end->panicked = false; /* it got over that one */
	} else if (str_eq(m->name, "GUEST_PANICKED") && !end->shutdown) {
		end->panicked = true;
	}
}

static void take_line(const char *line, size_t len, struct recorder_end *end)
{
	struct qmp_message m;

	if (len > 0 && line[len - 1] == '\r')
		len--;
	/* The first line after a punched hole is the rest of one, and no message. */
	if (len == 0 || line[0] != '{' || qmp_parse(line, len, &m, NULL) < 0)
		return;
	if (m.kind == QMP_EVENT)
		take_event(&m, end);
	qmp_message_done(&m);
}

static void take_lines(struct strbuf *sb, struct recorder_end *end)
{
	size_t start = 0;
	char *nl;

	while ((nl = memchr(sb->data + start, '\n', sb->len - start))) {
		take_line(sb->data + start, (size_t)(nl - sb->data) - start, end);
		start = (size_t)(nl - sb->data) + 1;
	}
	strbuf_drop(sb, start);
	if (sb->len > EVENT_MAX)
		sb->len = 0;
}

/* Zeroes at the start of a line: what is left of a hole inside its first block. */
static void skip_zeroes(struct strbuf *sb)
{
	size_t n = 0;

	while (n < sb->len && sb->data[n] == '\0')
		n++;
	strbuf_drop(sb, n);
}

/* Where the events begin that are still there: after the hole, within READ_MAX of the end. */
static off_t first_data(int fd, off_t size)
{
	off_t from = size > READ_MAX ? size - READ_MAX : 0;
	off_t data = lseek(fd, from, SEEK_DATA);

	return data > from ? data : from;
}

int recorder_read(const char *dir, struct recorder_end *ret, struct err *err)
{
	AUTO_FREE char *path = path_join(dir, RECORDER_OUT);
	AUTO_FD int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	AUTO_STRBUF struct strbuf sb = {0};
	struct recorder_end end = {0};
	struct stat st;
	off_t at;
	ssize_t n;

	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "'%s' is not a regular file", path);
	/* Up to the size found: a QEMU that lives and writes on cannot keep us here. */
	for (at = first_data(fd, st.st_size); at < st.st_size; at += n) {
		strbuf_reserve(&sb, STEP);
		n = pread(fd, sb.data + sb.len, STEP, at);
		if (n < 0)
			return err_sys(err, errno, "cannot read '%s'", path);
		if (n == 0)
			break;
		sb.len += (size_t)n;
		skip_zeroes(&sb);
		take_lines(&sb, &end);
	}
	*ret = end;
	return 0;
}

void recorder_trim(const char *dir)
{
	AUTO_FREE char *path = path_join(dir, RECORDER_OUT);
	AUTO_FD int fd = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	/* Twice the limit first, so that a slow trickle does not punch a hole for each event. */
	if (st.st_size <= 2 * (off_t)RECORDER_KEEP)
		return;
	(void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			st.st_size - (off_t)RECORDER_KEEP);
}
