/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and answers of the HTTP server, over real sockets. */
#include "net_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>

#include "base/err.h"
#include "net/http.h"

struct rig {
	struct place place;
	struct http_server *server;
	struct http_body *shared;
	struct http_request *waiting; /* of /later */
	int before, gone;
	uint16_t port;
};

static void on_ping(struct http_request *req, void *ctx)
{
	http_reply(req, 200, HTTP_JSON, "{\"ping\":\"pong\"}", 15);
}

static void on_echo(struct http_request *req, void *ctx)
{
	size_t len;
	const char *body = http_body_text(req, &len);

	http_reply(req, 201, "text/plain", body, len);
}

static void on_vm(struct http_request *req, void *ctx)
{
	AUTO_FREE char *text =
		xasprintf("%s|%s|%s|%s", http_method(req), http_path(req), http_param(req, "id"),
			  http_query(req, "q") ? http_query(req, "q") : "-");

	http_reply(req, 200, "text/plain", text, strlen(text));
}

static void on_shared(struct http_request *req, void *ctx)
{
	http_reply_body(req, 200, HTTP_JSON, ((struct rig *)ctx)->shared);
}

static void on_gone(struct http_request *req, void *ctx)
{
	((struct rig *)ctx)->gone++;
	((struct rig *)ctx)->waiting = NULL;
}

static void on_later(struct http_request *req, void *ctx)
{
	struct rig *rig = ctx;

	rig->waiting = req;
	http_on_gone(req, on_gone, rig);
}

static void on_error(struct http_request *req, void *ctx)
{
	struct err err;

	http_reply_err(req, err_set(&err, EBUSY, "it is \"busy\""), &err);
}

static void on_whoami(struct http_request *req, void *ctx)
{
	const struct sock_peer *peer = http_peer(req);
	AUTO_FREE char *text = peer ? xasprintf("%u", (unsigned)peer->uid) : xstrdup("nobody");

	http_reply(req, 200, "text/plain", text, strlen(text));
}

static void on_rest(struct http_request *req, void *ctx)
{
	http_reply(req, 200, "text/plain", http_param(req, ".."), strlen(http_param(req, "..")));
}

static void count_before(void *ctx)
{
	((struct rig *)ctx)->before++;
}

static const struct http_route routes[] = {
	{"GET", "/ping", on_ping, true, "Ping."},
	{"POST", "/echo", on_echo, false, "Echo."},
	{"GET", "/vms/:id", on_vm, true, "VM."},
	{"POST", "/vms/:id", on_vm, true, "VM."},
	{"GET", "/shared", on_shared, true, "Shared."},
	{"GET", "/later", on_later, true, "Later."},
	{"GET", "/error", on_error, true, "Error."},
	{"*", "/whoami", on_whoami, true, "Peer."},
	{"GET", "/secret", on_ping, false, "Unix only."},
	{"GET", "/rest/..", on_rest, true, "Rest."},
};

static int setup(void **state)
{
	struct rig *rig = xcalloc(1, sizeof(*rig));
	struct http_config config = {.routes = routes,
				     .nroutes = ARRAY_SIZE(routes),
				     .ctx = rig,
				     .before = count_before,
				     .body_max = 1000};
	int fd;

	place_init(&rig->place);
	rig->shared = http_body_new(xstrdup("[1,2]"), 5);
	assert_int_equal(http_server_new(rig->place.event, &config, &rig->server, NULL), 0);
	assert_int_equal(sock_listen(rig->place.path, 0600, &fd, NULL), 0);
	assert_int_equal(http_server_listen(rig->server, fd, false, NULL), 0);
	assert_int_equal(sock_listen_tcp("127.0.0.1", 0, &fd, &rig->port, NULL), 0);
	assert_int_equal(http_server_listen(rig->server, fd, true, NULL), 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	http_server_free(rig->server);
	http_body_unref(rig->shared);
	place_done(&rig->place);
	free(rig);
	return 0;
}

/* Send one request that ends the connection, look for text in the answer. */
static void expect(struct rig *rig, const char *request, const char *text)
{
	AUTO_FREE char *answer = ask(&rig->place, request);

	if (!strstr(answer, text)) {
		print_message("# asked '%s'\n# wanted '%s'\n# got '%s'\n", request, text, answer);
		fail();
	}
}

#define GET(target) "GET " target " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void plain_answers(void **state)
{
	struct rig *rig = *state;

	expect(rig, GET("/ping"), "HTTP/1.1 200 OK\r\n");
	expect(rig, GET("/ping"), "\r\nContent-Type: application/json\r\n");
	expect(rig, GET("/ping"), "\r\nContent-Length: 15\r\n");
	expect(rig, GET("/ping"), "\r\n\r\n{\"ping\":\"pong\"}");
	expect(rig, GET("/shared"), "\r\n\r\n[1,2]");
	expect(rig, GET("/error"), "HTTP/1.1 409 ");
	expect(rig, GET("/error"),
	       "{\"error\":{\"code\":\"EBUSY\",\"message\":\"it is \\\"busy\\\"\"}}");
	expect(rig, GET("/nothing"), "{\"error\":{\"code\":\"ENOENT\",");
	expect(rig, "DELETE /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", " 405 ");
	expect(rig, "BREW /whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", " 200 ");
	assert_int_equal(rig->before, 8);
}

static void paths(void **state)
{
	struct rig *rig = *state;

	expect(rig, GET("//ping"), "pong");
	expect(rig, GET("/ping/"), "pong");
	expect(rig, GET("/./x/../ping?x=y"), "pong");
	expect(rig, GET("/../../ping"), "pong");
	expect(rig, GET("http://host/ping"), "pong");
	expect(rig, GET("/pinG"), " 404 ");
	expect(rig, GET("/pin%67"), " 404 ");
	expect(rig, GET("/vms"), " 404 ");
	expect(rig, GET("/vms/"), " 404 ");
	expect(rig, GET("/vms/a"), "GET|/vms/a|a|-");
	expect(rig, GET("/vms/a%20b%zz%00"), "GET|/vms/a%20b%zz%00|a b%zz%00|-");
	expect(rig, GET("/vms/a/b"), " 404 ");
	expect(rig, GET("/vms/a?x=1&q=a+b%26&q=2"), "|a|a b&");
	expect(rig, GET("/vms/a?q"), "GET|/vms/a|a|");
	expect(rig, GET("/rest/a/b"), "\r\n\r\na/b");
	expect(rig, GET("/rest"), "\r\n\r\n");
}

static void bodies(void **state)
{
	struct rig *rig = *state;

	expect(rig,
	       "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
	       "5\r\n\r\nhello",
	       "\r\n\r\nhello");
	expect(rig,
	       "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked"
	       "\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
	       "\r\n\r\nhello");
	expect(rig, "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	       "Content-Length: 0\r\n");
	expect(rig,
	       "POST /vms/a?q=no HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 7\r\n"
	       "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n\r\nq=y%20s",
	       "POST|/vms/a|a|y s");
}

static void body_limits(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};

	expect(rig, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n",
	       "HTTP/1.1 413 ");
	expect(rig, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n",
	       "{\"error\":{\"code\":\"E2BIG\"");
	strbuf_puts(&sb,
		    "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5dc\r\n");
	for (int i = 0; i < 1500; i++)
		strbuf_putc(&sb, 'x');
	strbuf_puts(&sb, "\r\n0\r\n\r\n");
	expect(rig, sb.data, "HTTP/1.1 413 ");
	strbuf_drop(&sb, sb.len);
	strbuf_puts(&sb, "GET /ping?");
	for (int i = 0; i < 5000; i++)
		strbuf_putc(&sb, 'x');
	strbuf_puts(&sb, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	expect(rig, sb.data, "HTTP/1.1 414 ");
}

static void unclear_lengths(void **state)
{
	static const char *const heads[] = {
		"Content-Length: 5\r\nContent-Length: 6\r\n",
		"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
		"Content-Length : 5\r\n",
		"Content-Length: +5\r\n",
		"Content-Length: 5x\r\n",
		"Transfer-Encoding: gzip\r\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
		AUTO_FREE char *request =
			xasprintf("POST /echo HTTP/1.1\r\nHost: x\r\n%s\r\nhello", heads[i]);

		expect(*state, request, "HTTP/1.1 400 ");
	}
}

static void keep_alive_and_pipelining(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	int fd = dial(&rig->place), count = 0;

	for (int i = 0; i < 100; i++)
		say(fd, "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
	say(fd, GET("/nothing"));
	await_close(&rig->place, fd, &sb);
	for (char *p = sb.data; (p = strstr(p, "pong")); p++)
		count++;
	assert_int_equal(count, 100);
	assert_non_null(strstr(sb.data, "ENOENT"));
	(void)close(fd);
	UNTIL(&rig->place, http_server_connections(rig->server) == 0);
}

static void head_requests(void **state)
{
	struct rig *rig = *state;
	AUTO_FREE char *answer =
		ask(&rig->place, "HEAD /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

	assert_non_null(strstr(answer, "Content-Length: 15\r\n"));
	assert_null(strstr(answer, "pong"));
}

static void answers_later(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	int fd = dial(&rig->place);

	say(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
	UNTIL(&rig->place, rig->waiting);
	turn(&rig->place);
	assert_true(hear(fd, &sb));
	assert_int_equal(sb.len, 0);
	expect(rig, GET("/ping"), "pong"); /* others are served meanwhile */
	http_reply(rig->waiting, 200, "text/plain", "now", 3);
	await_text(&rig->place, fd, &sb, "\r\n\r\nnow");
	await_text(&rig->place, fd, &sb, "pong");
	(void)close(fd);
	assert_int_equal(rig->gone, 0);
}

static void client_leaves_before_the_answer(void **state)
{
	struct rig *rig = *state;
	uint64_t from;
	int fd = dial(&rig->place);

	say(fd, GET("/later"));
	UNTIL(&rig->place, rig->waiting);
	(void)close(fd);
	from = clock_ms();
	UNTIL(&rig->place, rig->gone == 1);
	assert_true(clock_ms() - from < 500);
	UNTIL(&rig->place, http_server_connections(rig->server) == 0);
}

static void half_close_is_no_leaving(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	int fd = dial(&rig->place);

	say(fd, GET("/later"));
	(void)shutdown(fd, SHUT_WR); /* as 'nc -N' does */
	UNTIL(&rig->place, rig->waiting);
	turn(&rig->place);
	assert_int_equal(rig->gone, 0);
	http_reply(rig->waiting, 200, "text/plain", "now", 3);
	await_text(&rig->place, fd, &sb, "\r\n\r\nnow");
	(void)close(fd);
}

static void server_ends_with_waiting_request(void **state)
{
	struct rig *rig = *state;
	int fd = dial(&rig->place);

	say(fd, GET("/later"));
	UNTIL(&rig->place, rig->waiting);
	http_server_free(rig->server);
	rig->server = NULL;
	assert_int_equal(rig->gone, 1);
	(void)close(fd);
}

static int dial_tcp(struct rig *rig)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons(rig->port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void tcp_rules(void **state)
{
	static const struct {
		const char *target, *host, *want;
	} cases[] = {
		{"/ping", "localhost", "pong"},     {"/ping", "127.0.0.1:9090", "pong"},
		{"/ping", "[::1]:80", "pong"},      {"/ping", "LocalHost:1", "pong"},
		{"/ping", "evil.example", " 403 "}, {"/ping", "localhost.evil.example", " 403 "},
		{"/ping", "localhost:", " 403 "},   {"/secret", "localhost", " 404 "},
		{"/whoami", "localhost", "nobody"},
	};
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE char *text =
			xasprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
				  cases[i].target, cases[i].host);
		AUTO_STRBUF struct strbuf sb = {0};
		AUTO_FD int fd = dial_tcp(rig);

		say(fd, text);
		await_text(&rig->place, fd, &sb, cases[i].want);
	}
}

static void tcp_client_leaves(void **state)
{
	struct rig *rig = *state;
	int fd = dial_tcp(rig);

	say(fd, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
	UNTIL(&rig->place, rig->waiting);
	(void)close(fd);
	UNTIL(&rig->place, rig->gone == 1);
}

static void peers(void **state)
{
	AUTO_FREE char *want = xasprintf("\r\n\r\n%u", (unsigned)getuid());

	expect(*state, GET("/whoami"), want);
}

/* Whatever comes, the server answers or closes, and goes on serving. */
static void garbage(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} cases[] = {
#define RAW(s) {s, sizeof(s) - 1}
		RAW("\0\0\0\0\r\n\r\n"),
		RAW("GET\r\n\r\n"),
		RAW("GET /\0x HTTP/1.1\r\nHost: x\r\n\r\n"),
		RAW("GET / HTTP/9.9\r\nHost: x\r\n\r\n"),
		RAW("GET / HTTP/1.1\r\n\r\n"),
		RAW("GET  HTTP/1.1\r\nHost: x\r\n\r\n"),
		RAW("\x16\x03\x01\x02\r\n\r\n\r\n"),
		RAW("GET / HTTP/1.1\r\n: x\r\nHost\r\n\r\n"),
		RAW("GET % HTTP/1.1\r\nHost: x\r\n\r\n"),
		RAW("GET /?%&=&&=x&%=% HTTP/1.1\r\nHost: x\r\n\r\n"),
		RAW("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
		RAW("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		    "ffffffffffffffff1\r\n"),
		RAW("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		RAW("GET / HTTP/1.1\nHost: x\n\n"),
		RAW("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"),
		RAW("CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n"),
#undef RAW
	};
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_STRBUF struct strbuf sb = {0};
		int fd = dial(&rig->place);

		assert_int_equal(send(fd, cases[i].text, cases[i].len, MSG_NOSIGNAL), cases[i].len);
		(void)shutdown(fd, SHUT_WR);
		await_close(&rig->place, fd, &sb);
		(void)close(fd);
	}
	UNTIL(&rig->place, http_server_connections(rig->server) == 0);
	expect(rig, GET("/ping"), "pong");
}

/* The same request, cut at every byte, and every prefix of it with the client gone. */
static void every_cut(void **state)
{
	static const char text[] = "POST /echo?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
				   "Content-Length: 5\r\n\r\nhello";
	struct rig *rig = *state;

	for (size_t cut = 1; cut < sizeof(text) - 1; cut++) {
		AUTO_STRBUF struct strbuf sb = {0};
		int fd = dial(&rig->place), gone = dial(&rig->place);

		assert_int_equal(send(fd, text, cut, MSG_NOSIGNAL), cut);
		assert_int_equal(send(gone, text, cut, MSG_NOSIGNAL), cut);
		assert_true(sd_event_run(rig->place.event, 1000) >= 0);
		(void)close(gone);
		assert_true(sd_event_run(rig->place.event, 1000) >= 0);
		say(fd, text + cut);
		await_text(&rig->place, fd, &sb, "\r\n\r\nhello");
		(void)close(fd);
	}
	UNTIL(&rig->place, http_server_connections(rig->server) == 0);
}

/* --- deadlines, with a clock of our own --- */

static uint64_t ahead_us;

static uint64_t test_clock(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000 + ahead_us;
}

static void slow_clients_are_swept(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	int slow = dial(&rig->place), idle = dial(&rig->place), waiting = dial(&rig->place);
	int body = dial(&rig->place);

	say(slow, "GET /ping HT");
	say(idle, "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
	say(waiting, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
	say(body, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
	UNTIL(&rig->place, http_server_connections(rig->server) == 4 && rig->waiting);
	await_text(&rig->place, idle, &sb, "pong");
	clock_us_hook = test_clock;
	ahead_us = (HTTP_HEAD_MS + 1000) * 1000ull;
	await_close(&rig->place, slow, &sb);
	assert_int_equal(http_server_connections(rig->server), 3);
	ahead_us = (HTTP_BODY_MS + 1000) * 1000ull;
	await_close(&rig->place, body, &sb);
	ahead_us = (HTTP_IDLE_MS + 1000) * 1000ull;
	await_close(&rig->place, idle, &sb);
	assert_int_equal(http_server_connections(rig->server), 1);
	clock_us_hook = NULL;
	ahead_us = 0;
	assert_non_null(rig->waiting); /* ours to answer, however late */
	http_reply(rig->waiting, 200, "text/plain", "now", 3);
	await_text(&rig->place, waiting, &sb, "now");
	(void)close(slow);
	(void)close(idle);
	(void)close(waiting);
	(void)close(body);
}

static void without_descriptors(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	int fd = dial(&rig->place), spare[128], n = 0;
	struct rlimit old, low;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = (struct rlimit){64, old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	while (n < 128 && (spare[n] = dup(0)) >= 0)
		n++;
	assert_true(n < 128);
	await_text(&rig->place, fd, &sb, "HTTP/1.1 503 ");
	while (n > 0)
		(void)close(spare[--n]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	(void)close(fd);
	expect(rig, GET("/ping"), "pong");
}

static void over_the_limit(void **state)
{
	struct rig *rig = *state;
	AUTO_FREE int *fds = xcalloc(HTTP_CONNECTIONS, sizeof(int));
	AUTO_STRBUF struct strbuf sb = {0};
	struct rlimit old, high;
	int one_more;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	high = (struct rlimit){HTTP_CONNECTIONS * 2 + 100, old.rlim_max};
	if (old.rlim_max < high.rlim_cur)
		skip();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &high), 0);
	for (unsigned i = 0; i < HTTP_CONNECTIONS; i++) {
		fds[i] = dial(&rig->place);
		if (i % 100 == 0)
			turn(&rig->place); /* the backlog is bounded too */
	}
	UNTIL(&rig->place, http_server_connections(rig->server) == HTTP_CONNECTIONS);
	one_more = dial(&rig->place);
	await_close(&rig->place, one_more, &sb);
	assert_non_null(strstr(sb.data, "HTTP/1.1 503 "));
	assert_non_null(strstr(sb.data, "at once\"}}"));
	(void)close(one_more);
	for (unsigned i = 0; i < HTTP_CONNECTIONS; i++)
		(void)close(fds[i]);
	UNTIL(&rig->place, http_server_connections(rig->server) == 0);
	expect(rig, GET("/ping"), "pong");
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(plain_answers),
		CASE(paths),
		CASE(bodies),
		CASE(body_limits),
		CASE(unclear_lengths),
		CASE(keep_alive_and_pipelining),
		CASE(head_requests),
		CASE(answers_later),
		CASE(client_leaves_before_the_answer),
		CASE(half_close_is_no_leaving),
		CASE(server_ends_with_waiting_request),
		CASE(tcp_rules),
		CASE(tcp_client_leaves),
		CASE(peers),
		CASE(garbage),
		CASE(every_cut),
		CASE(slow_clients_are_swept),
		CASE(without_descriptors),
		CASE(over_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
