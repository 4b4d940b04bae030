/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous calls against our own server, and against sockets that misbehave. */
#include "net_client.h"

#include "base/err.h"
#include "net/call.h"
#include "net/http.h"

struct rig {
	struct place place;
	struct http_server *server;
	int done, result, status;
	char text[200], error[512];
};

static void on_echo(struct http_request *req, void *ctx)
{
	size_t len;
	const char *body = http_body_text(req, &len);

	http_reply(req, 202, HTTP_JSON, body, len);
}

static void on_never(struct http_request *req, void *ctx)
{
}

static const struct http_route routes[] = {
	{"POST", "/echo", on_echo, false, "Echo."},
	{"GET", "/never", on_never, false, "No answer."},
};

static void on_done(void *ctx, int r, int status, const char *body, size_t len,
		    const struct err *err)
{
	struct rig *rig = ctx;

	rig->done++;
	rig->result = r;
	rig->status = status;
	(void)snprintf(rig->text, sizeof(rig->text), "%s", body);
	(void)snprintf(rig->error, sizeof(rig->error), "%s", err_text(err, r));
}

static int setup(void **state)
{
	struct rig *rig = xcalloc(1, sizeof(*rig));

	place_init(&rig->place);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	http_server_free(rig->server);
	place_done(&rig->place);
	free(rig);
	return 0;
}

static void serve(struct rig *rig)
{
	struct http_config config = {.routes = routes, .nroutes = 2, .ctx = rig};
	int fd;

	assert_int_equal(http_server_new(rig->place.event, &config, &rig->server, NULL), 0);
	assert_int_equal(sock_listen(rig->place.path, 0600, &fd, NULL), 0);
	assert_int_equal(http_server_listen(rig->server, fd, false, NULL), 0);
}

static struct call *start(struct rig *rig, const char *method, const char *target, const char *body,
			  uint64_t timeout_ms)
{
	struct call_request request = {.socket = rig->place.path,
				       .method = method,
				       .target = target,
				       .body = body,
				       .timeout_ms = timeout_ms};

	return call_start(rig->place.event, &request, on_done, rig);
}

static void answered(void **state)
{
	struct rig *rig = *state;

	serve(rig);
	assert_non_null(start(rig, "POST", "/echo", "{\"a\":1}", LIMIT_MS));
	assert_int_equal(rig->done, 0);
	UNTIL(&rig->place, rig->done);
	assert_int_equal(rig->result, 0);
	assert_int_equal(rig->status, 202);
	assert_string_equal(rig->text, "{\"a\":1}");
}

static void large_body(void **state)
{
	struct rig *rig = *state;
	AUTO_FREE char *big = xmalloc(900001);

	memset(big, 'x', 900000);
	big[900000] = '\0';
	serve(rig);
	assert_non_null(start(rig, "POST", "/echo", big, LIMIT_MS));
	UNTIL(&rig->place, rig->done);
	assert_int_equal(rig->status, 202);
	assert_int_equal(strlen(rig->text), sizeof(rig->text) - 1);
}

static void refused_early(void **state)
{
	struct rig *rig = *state;
	AUTO_FREE char *big = xmalloc(2000001);

	memset(big, 'x', 2000000);
	big[2000000] = '\0';
	serve(rig);
	assert_non_null(start(rig, "POST", "/echo", big, LIMIT_MS));
	UNTIL(&rig->place, rig->done);
	assert_int_equal(rig->result, 0);
	assert_int_equal(rig->status, 413);
}

static void nobody_listens(void **state)
{
	struct rig *rig = *state;

	assert_non_null(start(rig, "GET", "/x", NULL, LIMIT_MS));
	assert_int_equal(rig->done, 0);
	UNTIL(&rig->place, rig->done);
	assert_int_equal(rig->result, -ENOENT);
	assert_non_null(strstr(rig->error, "GET /x at '/tmp/"));
}

static void times_out(void **state)
{
	struct rig *rig = *state;

	serve(rig);
	assert_non_null(start(rig, "GET", "/never", NULL, 50));
	UNTIL(&rig->place, rig->done);
	assert_int_equal(rig->result, -ETIMEDOUT);
	UNTIL(&rig->place, http_server_connections(rig->server) == 0);
}

static void cancelled(void **state)
{
	struct call_request nowhere = {
		.socket = "/nonexistent", .method = "GET", .target = "/", .timeout_ms = 10};
	struct rig *rig = *state;

	serve(rig);
	call_cancel(start(rig, "POST", "/echo", "{}", LIMIT_MS));
	call_cancel(call_start(rig->place.event, &nowhere, on_done, rig));
	turn(&rig->place);
	assert_int_equal(rig->done, 0);
}

static void broken_answers(void **state)
{
	static const struct {
		const char *text;
		int result;
	} cases[] = {
		{"", -ECONNRESET},
		{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", -ECONNRESET},
		{"what?\r\n\r\n", -EPROTO},
		{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", -E2BIG},
		{"HTTP/1.0 200 OK\r\n\r\nall of it", 0},
	};
	struct rig *rig = *state;
	int listener;

	assert_int_equal(sock_listen(rig->place.path, 0600, &listener, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_STRBUF struct strbuf sb = {0};
		int fd = -1;

		rig->done = 0;
		assert_non_null(start(rig, "GET", "/", NULL, LIMIT_MS));
		UNTIL(&rig->place, (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0);
		await_text(&rig->place, fd, &sb, "\r\n\r\n");
		say(fd, cases[i].text);
		(void)close(fd);
		UNTIL(&rig->place, rig->done);
		assert_int_equal(rig->result, cases[i].result);
	}
	assert_string_equal(rig->text, "all of it");
	(void)close(listener);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(answered),  CASE(large_body), CASE(refused_early),  CASE(nobody_listens),
		CASE(times_out), CASE(cancelled),  CASE(broken_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
