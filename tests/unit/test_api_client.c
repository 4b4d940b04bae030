/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tools' client against a scripted server: a forked process that sends, for each connection,
 * one of the given texts after the request's head has come.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/client.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sock.h"

#define LIMIT_MS 5000

struct place {
	char dir[32];
	char *path;
	pid_t server;
};

/* One entry per request; a NULL answer closes the connection instead. */
struct script {
	const char *answers[8];
	bool close_after[8];
	int delay_ms; /* of listening */
};

static int setup(void **state)
{
	struct place *p = xcalloc(1, sizeof(*p));

	(void)snprintf(p->dir, sizeof(p->dir), "/tmp/api-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	p->path = path_join(p->dir, "vminfod.http");
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	if (p->server > 0) {
		(void)kill(p->server, SIGKILL);
		(void)waitpid(p->server, NULL, 0);
	}
	(void)dir_remove_tree(p->dir, NULL);
	free(p->path);
	free(p);
	return 0;
}

static bool read_head(int fd)
{
	char buf[4096];
	size_t len = 0;

	while (len < sizeof(buf)) {
		ssize_t n = read(fd, buf + len, sizeof(buf) - len);

		if (n <= 0)
			return false;
		len += (size_t)n;
		if (memmem(buf, len, "\r\n\r\n", 4))
			return true;
	}
	return false;
}

static void __attribute__((noreturn)) serve(const struct script *s, int listener)
{
	int fd = -1;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)fcntl(listener, F_SETFL, 0);
	for (size_t i = 0; i < ARRAY_SIZE(s->answers);) {
		if (fd < 0)
			fd = accept(listener, NULL, NULL);
		if (fd < 0 || !read_head(fd)) {
			(void)close(fd);
			fd = -1;
			continue;
		}
		if (s->answers[i])
			(void)fd_write_all(fd, s->answers[i], strlen(s->answers[i]));
		if (!s->answers[i] || s->close_after[i]) {
			(void)close(fd);
			fd = -1;
		}
		i++;
	}
	_exit(0);
}

static void start_server(struct place *p, const struct script *s)
{
	int fd = -1;

	if (!s->delay_ms)
		assert_int_equal(sock_listen(p->path, 0600, &fd, NULL), 0);
	p->server = fork();
	assert_true(p->server >= 0);
	if (p->server > 0) {
		(void)close(fd);
		return;
	}
	if (s->delay_ms) {
		(void)poll(NULL, 0, s->delay_ms);
		(void)sock_listen(p->path, 0600, &fd, NULL);
	}
	serve(s, fd);
}

static void one_call(struct client *c, int status, const char *body)
{
	struct client_reply reply;
	struct err err = {0};

	assert_int_equal(client_call(c, "GET", "/x", NULL, LIMIT_MS, &reply, &err), 0);
	assert_int_equal(reply.status, status);
	assert_string_equal(reply.body, body);
	assert_int_equal(reply.len, strlen(body));
	client_reply_done(&reply);
}

#define OK_A "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nA"

static void calls_on_one_connection(void **state)
{
	struct place *p = *state;
	struct script s = {
		.answers = {OK_A, "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", OK_A}};
	struct client c;

	start_server(p, &s);
	assert_int_equal(client_open(&c, p->path, "test\n1", 0, NULL), 0);
	one_call(&c, 200, "A");
	one_call(&c, 404, "no");
	one_call(&c, 200, "A");
	client_close(&c);
}

static void kept_connection_closed_by_server(void **state)
{
	struct place *p = *state;
	struct script s = {.answers = {OK_A, NULL, OK_A, OK_A}, .close_after = {[2] = true}};
	struct client c;

	start_server(p, &s);
	assert_int_equal(client_open(&c, p->path, NULL, 0, NULL), 0);
	one_call(&c, 200, "A");
	one_call(&c, 200, "A"); /* closed without an answer, sent again */
	one_call(&c, 200, "A");
	client_close(&c);
}

static void waits_for_a_daemon(void **state)
{
	struct place *p = *state;
	struct script s = {.answers = {OK_A}, .delay_ms = 150};
	uint64_t from = clock_ms();
	struct client c;

	start_server(p, &s);
	assert_int_equal(client_open(&c, p->path, NULL, LIMIT_MS, NULL), 0);
	assert_true(clock_ms() - from >= 100);
	one_call(&c, 200, "A");
	client_close(&c);
}

static void nobody_there(void **state)
{
	struct place *p = *state;
	struct err err = {0};
	struct client c;
	uint64_t from = clock_ms();

	assert_int_equal(client_open(&c, p->path, NULL, 0, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "cannot reach vminfod at '/tmp/"));
	assert_int_equal(client_open(&c, p->path, NULL, 100, &err), -ENOENT);
	assert_in_range(clock_ms() - from, 90, 2000);
	assert_int_equal(client_open(&c, "/nonexistent/a/b.http", NULL, 60, &err), -ENOENT);
	client_close(&c);
}

static void early_end_and_timeout(void **state)
{
	struct place *p = *state;
	struct script s = {.answers = {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "HTTP"},
			   .close_after = {true}};
	struct client_reply reply;
	struct err err = {0};
	struct client c;

	start_server(p, &s);
	assert_int_equal(client_open(&c, p->path, NULL, 0, NULL), 0);
	assert_int_equal(client_call(&c, "POST", "/", "{}", LIMIT_MS, &reply, &err), -ECONNRESET);
	assert_int_equal(client_call(&c, "POST", "/", "{}", 50, &reply, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.msg, "vminfod did not answer in time"));
	client_close(&c);
}

static void bad_targets(void **state)
{
	struct place *p = *state;
	struct script s = {0};
	struct client_reply reply;
	struct client c;

	start_server(p, &s);
	assert_int_equal(client_open(&c, p->path, NULL, 0, NULL), 0);
	assert_int_equal(client_call(&c, "GET", "/a b", NULL, 50, &reply, NULL), -EINVAL);
	assert_int_equal(client_call(&c, "GET", "/a\r\nX: y", NULL, 50, &reply, NULL), -EINVAL);
	client_close(&c);
}

static void error_replies(void **state)
{
	char json[] = "{\"error\":{\"code\":\"EALREADY\",\"message\":\"it runs\"}}";
	char plain[] = "VM Not Found: x\n", odd[] = "[1]";
	struct err err = {0};

	assert_int_equal(
		client_reply_error(&(struct client_reply){200, json, sizeof(json) - 1}, &err), 0);
	assert_int_equal(
		client_reply_error(&(struct client_reply){409, json, sizeof(json) - 1}, &err),
		-EALREADY);
	assert_string_equal(err.msg, "it runs");
	assert_int_equal(
		client_reply_error(&(struct client_reply){404, plain, sizeof(plain) - 1}, &err),
		-ENOENT);
	assert_string_equal(err.msg, "VM Not Found: x");
	assert_int_equal(client_reply_error(&(struct client_reply){500, odd, 3}, &err), -EIO);
	assert_int_equal(client_reply_error(&(struct client_reply){403, (char[]){""}, 0}, &err),
			 -EPERM);
}

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

static void lines_of_a_stream(void **state)
{
	struct place *p = *state;
	struct script s = {.answers = {CHUNKED "6\r\none\ntw\r\n2\r\no\n\r\n1\r\n\n\r\n0\r\n\r\n",
				       CHUNKED "3\r\na\nb\r\n", CHUNKED "2\r\na\n\r\n"},
			   .close_after = {true, true, false}};
	struct client_stream *st;
	const char *line;
	struct client c;
	size_t len;

	start_server(p, &s);
	assert_int_equal(client_open(&c, p->path, NULL, 0, NULL), 0);
	assert_int_equal(client_stream_open(&c, "/events", &st, NULL), 0);
	assert_int_equal(client_line(st, LIMIT_MS, &line, &len, NULL), 1);
	assert_string_equal(line, "one");
	assert_int_equal(client_line(st, LIMIT_MS, &line, &len, NULL), 1);
	assert_string_equal(line, "two");
	assert_int_equal(client_line(st, LIMIT_MS, &line, &len, NULL), 1);
	assert_int_equal(len, 0);
	assert_int_equal(client_line(st, LIMIT_MS, &line, &len, NULL), 0);
	client_stream_close(st);

	assert_int_equal(client_stream_open(&c, "/events", &st, NULL), 0);
	assert_int_equal(client_line(st, LIMIT_MS, &line, &len, NULL), 1);
	assert_int_equal(client_line(st, LIMIT_MS, &line, &len, NULL), -ECONNRESET);
	client_stream_close(st);

	assert_int_equal(client_stream_open(&c, "/events", &st, NULL), 0);
	assert_int_equal(client_line(st, LIMIT_MS, &line, &len, NULL), 1);
	assert_int_equal(client_line(st, 30, &line, &len, NULL), -ETIMEDOUT);
	client_stream_close(st);
	client_close(&c);
}

static void refused_stream(void **state)
{
	struct place *p = *state;
	struct script s = {.answers = {"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nno!\n"}};
	struct client_stream *st;
	struct err err = {0};
	struct client c;

	start_server(p, &s);
	assert_int_equal(client_open(&c, p->path, NULL, 0, NULL), 0);
	assert_int_equal(client_stream_open(&c, "/events", &st, &err), -EPERM);
	assert_string_equal(err.msg, "no!");
	client_close(&c);
}

static void escapes(void **state)
{
	char *text = client_escape("a b/ü?&%~");

	assert_string_equal(text, "a%20b%2F%C3%BC%3F%26%25~");
	free(text);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(calls_on_one_connection),   CASE(kept_connection_closed_by_server),
		CASE(waits_for_a_daemon),        CASE(nobody_there),
		CASE(early_end_and_timeout),     CASE(bad_targets),
		CASE(lines_of_a_stream),         CASE(refused_stream),
		cmocka_unit_test(error_replies), cmocka_unit_test(escapes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
