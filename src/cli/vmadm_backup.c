/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadm backup, send and receive; see vmadm.h. The stream goes between vmadmd and a socket of ours:
 * files and pipes are opened here, with the rights of who asks.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "cli/act.h"
#include "cli/request.h"
#include "cli/vmadm.h"

#define MAGIC_LEN  16 /* "DROVER-STREAM-1\n" */
#define HEADER_LEN 12 /* type, length */
#define HEAD_MAX   (4u << 20)
#define PART       (256u << 10)
#define PIPE_SIZE  (1u << 20)
#define METER_MS   2000 /* between lines of progress; a terminal is told sooner */
#define BAR_MS     200
#define LOOK_MS    1000 /* between two looks at a job that has not come to its stream yet */

/* clang-format off */
const struct cli_option receive_options[] = {
	{ 'f', 'f', "file", "FILE", "file with the stream; standard input when it is not given" },
	{ 'z', 'z', "zpool", "POOL", "ZFS pool for its disks; the one it had when it is not given" },
	{ 0 },
};
/* clang-format on */

struct meeting {
	char *dir, *path; /* of our socket, in a folder of its own */
	int fd;
};

static void meeting_done(struct meeting *m)
{
	if (m->fd >= 0)
		(void)close(m->fd);
	if (m->path)
		(void)unlink(m->path);
	if (m->dir)
		(void)rmdir(m->dir);
	free(m->path);
	free(m->dir);
}

static int meeting_open(struct meeting *m, struct err *err)
{
	const char *place = getenv("XDG_RUNTIME_DIR");

	*m = (struct meeting){.fd = -1};
	m->dir = xasprintf("%s/vmadm-XXXXXX", place && *place ? place : "/tmp");
	if (!mkdtemp(m->dir)) {
		replace_str(&m->dir, NULL);
		return err_sys(err, errno, "cannot make a folder for the stream's socket");
	}
	m->path = path_join(m->dir, "stream");
	return sock_listen(m->path, 0600, &m->fd, err);
}

/* The job ended without coming to us: 0 while it goes on. */
static int look_at_job(struct cli *cli, const char *job, struct err *err)
{
	AUTO_FREE char *target = request_target("/jobs/", job, "");
	const struct request rq = {
		.peer = PEER_VMADMD, .method = "GET", .target = target, .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	int code = request_run(cli, &rq, &reply, err);
	AUTO_FREE char *state = NULL;

	if (code)
		return code;
	state = js_member_string(js_value(reply.body, reply.len), "state");
	if (!str_eq(state, "running"))
		code = job_outcome(js_value(reply.body, reply.len), err);
	if (!str_eq(state, "running") && code == 0)
		code = EXIT_FAILED; /* done without us */
	client_reply_done(&reply);
	return code;
}

/* vmadmd's end: a blocking descriptor in *ret, or an exit code. */
static int meet(struct cli *cli, const struct meeting *m, const char *job, int *ret,
		struct err *err)
{
	struct pollfd p = {.fd = m->fd, .events = POLLIN};
	int code = 0;

	while (code == 0) {
		if (poll(&p, 1, LOOK_MS) == 1) {
			*ret = accept4(m->fd, NULL, NULL, SOCK_CLOEXEC);
			if (*ret >= 0)
				return 0;
		}
		code = look_at_job(cli, job, err);
	}
	return code;
}

/* --- how far it is, on standard error: a bar on a terminal, else JSON lines --- */

struct meter {
	uint64_t done, total, told_ms; /* total 0: unknown */
	const char *what;
	bool bar;
};

static struct meter meter_new(const char *what, uint64_t total)
{
	bool bar = isatty(STDERR_FILENO) == 1;

	return (struct meter){
		.what = what, .total = total, .told_ms = bar ? 0 : clock_ms(), .bar = bar};
}

/* The total is an estimate: only the end is 100. */
static void meter_add(struct meter *m, uint64_t bytes)
{
	uint64_t now = clock_ms();
	long percent;

	m->done += bytes;
	if (now < m->told_ms + (m->bar ? BAR_MS : METER_MS))
		return;
	m->told_ms = now;
	percent = m->total ? (long)((double)m->done * 100 / (double)m->total) : 0;
	percent = percent > 99 ? 99 : percent;
	if (m->bar) {
		AUTO_FREE char *step = xasprintf("%s, %" PRIu64 " MiB", m->what, m->done >> 20);

		bar_put(percent, step);
	} else {
		(void)fprintf(stderr, "{\"step\":\"%s\",\"percent\":%ld,\"bytes\":%" PRIu64 "}\n",
			      m->what, percent, m->done);
	}
}

static void meter_end(const struct meter *m)
{
	if (m->bar)
		bar_clear();
}

/* Move a part without looking at it: one of both is a pipe, or a file is sent. */
static ssize_t move_part(int from, int to)
{
	ssize_t n = splice(from, NULL, to, NULL, PIPE_SIZE, SPLICE_F_MOVE | SPLICE_F_MORE);

	if (n < 0 && errno == EINVAL)
		n = sendfile(to, from, NULL, PIPE_SIZE);
	return n < 0 ? -errno : n;
}

static ssize_t copy_part(int from, int to, char *buf, struct err *err)
{
	ssize_t n = read(from, buf, PART);
	int r = n > 0 ? fd_write_all(to, buf, (size_t)n) : 0;

	if (n < 0)
		return errno == EINTR ? -EINTR : err_sys(err, errno, "cannot read the stream");
	return r < 0 ? err_sys(err, -r, "cannot write the stream") : n;
}

/* Until its end; -errno with whose fault it was in err. */
static int pump(int from, int to, struct meter *meter, struct err *err)
{
	AUTO_FREE char *buf = xmalloc(PART);
	bool moves = true;
	ssize_t n = -EINTR;

	(void)fcntl(from, F_SETPIPE_SZ, PIPE_SIZE); /* no more than a wish */
	(void)fcntl(to, F_SETPIPE_SZ, PIPE_SIZE);
	while (n != 0) {
		n = moves ? move_part(from, to) : copy_part(from, to, buf, err);
		if (n == -EINTR)
			continue;
		if (n < 0 && !moves)
			return (int)n;
		if (n < 0) /* or the reason is told by the other way */
			moves = false;
		else
			meter_add(meter, (uint64_t)n);
	}
	return 0;
}

/* The id of the job that request begins; NULL: an exit code is in *ret_code, told. */
static char *begin(struct cli *cli, const char *target, const json_t *body, int *ret_code)
{
	AUTO_FREE char *text = json_text(body);
	const struct request rq = {.peer = PEER_VMADMD,
				   .method = "POST",
				   .target = target,
				   .body = text,
				   .limit_ms = READ_LIMIT_MS};
	struct client_reply reply;
	struct err err = {0};
	char *job;

	*ret_code = request_run(cli, &rq, &reply, &err);
	if (*ret_code) {
		*ret_code = request_fail(*ret_code, NULL, &err);
		return NULL;
	}
	job = js_member_string(js_value(reply.body, reply.len), "job");
	client_reply_done(&reply);
	return job ? job : xstrdup("");
}

/* How the job ended: it has the better reason. */
static int outcome(struct cli *cli, const char *job, struct err *err)
{
	struct client_reply reply = {0};
	int code = job_follow(cli, job, false, &reply, err);

	if (code == 0)
		code = job_outcome(js_value(reply.body, reply.len), err);
	client_reply_done(&reply);
	return code;
}

/* --- its beginning --- */

/* The stream's beginning up to its head, which names the VM; vmadmd judges all of it. */
static int read_head(int fd, struct strbuf *begun, json_t **ret, struct err *err)
{
	char head[MAGIC_LEN + HEADER_LEN];
	uint64_t len;

	if (fd_read_full(fd, head, sizeof(head)) != (ssize_t)sizeof(head) ||
	    memcmp(head, "DROVER-STREAM-", 14) != 0 || memcmp(head + MAGIC_LEN, "HEAD", 4) != 0)
		return err_set(err, EBADMSG, "this is no stream of a VM");
	memcpy(&len, head + MAGIC_LEN + 4, sizeof(len));
	len = le64toh(len);
	if (len > HEAD_MAX)
		return err_set(err, EBADMSG, "the stream is damaged: its head is too long");
	strbuf_add(begun, head, sizeof(head));
	strbuf_reserve(begun, len);
	if (fd_read_full(fd, begun->data + begun->len, len) != (ssize_t)len)
		return err_set(err, EBADMSG, "the stream is cut off");
	begun->len += len;
	if (json_parse_object(begun->data + sizeof(head), len, "head", ret, NULL) < 0)
		return err_set(err, EBADMSG, "the stream is damaged: its head cannot be read");
	return 0;
}

/* --- out --- */

/* The stream from vmadmd; its head tells about how long it will be. */
static int pass_on(int from, int out, struct err *err)
{
	AUTO_STRBUF struct strbuf begun = {0};
	AUTO_JSON json_t *head = NULL;
	struct meter meter;
	int r;

	if (read_head(from, &begun, &head, err) < 0)
		return -EBADMSG; /* the job has the reason */
	meter = meter_new("sending", (uint64_t)json_get_int(head, "bytes", 0));
	r = fd_write_all(out, begun.data, begun.len);
	if (r < 0)
		(void)err_sys(err, -r, "cannot write the stream");
	else
		r = pump(from, out, &meter, err);
	meter_end(&meter);
	return r;
}

static int write_stream(struct cli *cli, int out)
{
	AUTO_FREE char *target = request_target("/vm/", cli->args[0], "/backup?wait=0");
	AUTO_FREE char *job = NULL;
	AUTO_JSON json_t *body = json_object();
	AUTO_FD int from = -1;
	struct meeting m;
	struct err err = {0}, ours = {0};
	int r = meeting_open(&m, &err), code = r < 0 ? cli_fail(EXIT_FAILED, "%s", err.msg) : 0;

	json_put_str(body, "file", m.path);
	if (r == 0)
		job = begin(cli, target, body, &code);
	if (job)
		code = meet(cli, &m, job, &from, &err);
	if (job && code == 0) {
		r = pass_on(from, out, &ours);
		(void)close(steal_fd(&from)); /* a vmadmd that still writes is to see it */
		code = outcome(cli, job, &err);
	}
	if (job && code && (r == 0 || r == -EBADMSG))
		code = request_fail(code, NULL, &err);
	else if (job && r < 0)
		code = cli_fail(EXIT_FAILED, "%s", ours.msg);
	meeting_done(&m);
	return code;
}

static int write_file(struct cli *cli, const char *file)
{
	AUTO_FREE char *temp = xasprintf("%s.XXXXXX", file);
	AUTO_FD int fd = mkostemp(temp, O_CLOEXEC);
	int code;

	if (fd < 0)
		return cli_fail(EXIT_FAILED, "cannot make a file beside '%s': %s", file,
				strerror(errno));
	code = write_stream(cli, fd);
	if (code == 0 && (fsync(fd) < 0 || rename(temp, file) < 0))
		code = cli_fail(EXIT_FAILED, "cannot write '%s': %s", file, strerror(errno));
	if (code)
		(void)unlink(temp);
	else
		cli_say("Backed up VM %s", cli->args[0]);
	return code;
}

int cmd_backup(struct cli *cli)
{
	const char *file = cli->nargs > 1 ? cli->args[1] : "-";

	if (strcmp(file, "-") != 0)
		return write_file(cli, file);
	if (isatty(STDOUT_FILENO))
		return cli_fail(EXIT_USAGE,
				"standard output is a terminal: give a file, or a pipe");
	return write_stream(cli, STDOUT_FILENO);
}

/* --- in --- */

/* A file has its own word for it. */
static uint64_t size_of(int fd, uint64_t estimate)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : estimate;
}

static int hand_over(struct cli *cli, int from, const struct strbuf *begun, const json_t *head)
{
	const char *uuid = json_get_str(head, "uuid", ""), *pool = cli_opt(cli, 'z');
	uint64_t total = (uint64_t)json_get_int(head, "bytes", 0);
	struct meter meter;
	AUTO_FREE char *job = NULL;
	AUTO_JSON json_t *body = json_object();
	AUTO_FD int to = -1;
	struct meeting m;
	struct err err = {0}, ours = {0};
	int r = meeting_open(&m, &err), code = r < 0 ? cli_fail(EXIT_FAILED, "%s", err.msg) : 0;

	json_put_str(body, "file", m.path);
	json_put_str(body, "uuid", uuid);
	json_put_str(body, "zpool",
		     pool ? pool : json_get_str(json_object_get(head, "zfs"), "zpool", NULL));
	if (r == 0)
		job = begin(cli, "/receive?wait=0", body, &code);
	if (job)
		code = meet(cli, &m, job, &to, &err);
	if (job && code == 0) {
		r = fd_write_all(to, begun->data, begun->len);
		meter = meter_new("receiving", size_of(from, total));
		if (r == 0)
			(void)pump(from, to, &meter, &ours);
		meter_end(&meter);
		(void)close(steal_fd(&to));
		code = outcome(cli, job, &err);
	}
	if (job && code)
		code = request_fail(code, NULL, &err);
	meeting_done(&m);
	return code;
}

int cmd_receive(struct cli *cli)
{
	const char *file = cli_opt(cli, 'f');
	AUTO_FD int own = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
	AUTO_STRBUF struct strbuf begun = {0};
	AUTO_JSON json_t *head = NULL;
	struct err err = {0};
	int code;

	if (file && own < 0)
		return cli_fail(EXIT_FAILED, "cannot open '%s': %s", file, strerror(errno));
	if (read_head(file ? own : STDIN_FILENO, &begun, &head, &err) < 0)
		return cli_fail(EXIT_FAILED, "%s", err.msg);
	code = hand_over(cli, file ? own : STDIN_FILENO, &begun, head);
	if (code == 0)
		cli_say("Received VM %s", json_get_str(head, "uuid", ""));
	return code;
}
