/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of the HTTP server: order, ends, bounds. */
#include "net_client.h"

#include "net/http.h"

#define STREAMS 20

struct rig {
	struct place place;
	struct http_server *server;
	struct http_stream *streams[STREAMS];
	struct http_stream_config config;
	size_t count, ended;
	enum http_stream_end why;
};

static void on_end(struct http_stream *s, enum http_stream_end why, void *ctx)
{
	struct rig *rig = ctx;

	for (size_t i = 0; i < rig->count; i++)
		if (rig->streams[i] == s)
			rig->streams[i] = NULL;
	rig->ended++;
	rig->why = why;
}

static void on_events(struct http_request *req, void *ctx)
{
	struct rig *rig = ctx;

	rig->streams[rig->count++] = http_reply_stream(req, &rig->config);
}

static void send_text(struct rig *rig, const char *text)
{
	struct http_body *body = http_body_new(xstrdup(text), strlen(text));

	for (size_t i = 0; i < rig->count; i++)
		if (rig->streams[i])
			(void)http_stream_send(rig->streams[i], body);
	http_body_unref(body);
}

/* A request that causes an event: from inside a handler. */
static void on_cause(struct http_request *req, void *ctx)
{
	send_text(ctx, "caused\n");
	http_reply(req, 204, NULL, NULL, 0);
}

static const struct http_route routes[] = {
	{"GET", "/events", on_events, true, "Events."},
	{"POST", "/cause", on_cause, true, "Cause one."},
};

static int setup(void **state)
{
	struct rig *rig = xcalloc(1, sizeof(*rig));
	struct http_config config = {.routes = routes, .nroutes = 2, .ctx = rig};
	int fd;

	place_init(&rig->place);
	rig->config = (struct http_stream_config){.type = HTTP_JSON, .on_end = on_end, .ctx = rig};
	assert_int_equal(http_server_new(rig->place.event, &config, &rig->server, NULL), 0);
	assert_int_equal(sock_listen(rig->place.path, 0600, &fd, NULL), 0);
	assert_int_equal(http_server_listen(rig->server, fd, false, NULL), 0);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	http_server_free(rig->server);
	assert_int_equal(rig->ended, rig->count);
	place_done(&rig->place);
	free(rig);
	return 0;
}

static int subscribe(struct rig *rig)
{
	size_t before = rig->count;
	int fd = dial(&rig->place);

	say(fd, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
	UNTIL(&rig->place, rig->count > before);
	return fd;
}

static void events_arrive_in_order(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	int fd = subscribe(rig);

	send_text(rig, "one\n");
	send_text(rig, "two\n");
	await_text(&rig->place, fd, &sb, "one\ntwo\n");
	assert_non_null(strstr(sb.data, "Transfer-Encoding: chunked\r\n"));
	assert_non_null(strstr(sb.data, "Content-Type: application/json\r\n"));
	send_text(rig, "three\n");
	await_text(&rig->place, fd, &sb, "three\n");
	(void)close(fd);
}

static void events_caused_by_a_request(void **state)
{
	struct rig *rig = *state;
	struct strbuf sb[STREAMS] = {{0}};
	int fds[STREAMS], other;

	for (int i = 0; i < STREAMS; i++)
		fds[i] = subscribe(rig);
	turn(&rig->place);
	other = dial(&rig->place);
	say(other, "POST /cause HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int i = 0; i < STREAMS; i++) {
		await_text(&rig->place, fds[i], &sb[i], "caused\n");
		strbuf_done(&sb[i]);
		(void)close(fds[i]);
	}
	(void)close(other);
}

static void vanished_client_is_seen_at_once(void **state)
{
	struct rig *rig = *state;
	int fd = subscribe(rig);
	uint64_t from;

	turn(&rig->place);
	(void)close(fd);
	from = clock_ms();
	UNTIL(&rig->place, rig->ended == 1);
	assert_true(clock_ms() - from < 500);
	assert_int_equal(rig->why, HTTP_STREAM_CLIENT);
	UNTIL(&rig->place, http_server_connections(rig->server) == 0);
}

static void close_sends_what_is_queued(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	int fd = subscribe(rig);

	send_text(rig, "last\n");
	http_stream_close(rig->streams[0]);
	await_text(&rig->place, fd, &sb, "last\n\r\n0\r\n\r\n");
	UNTIL(&rig->place, rig->ended == 1);
	assert_int_equal(rig->why, HTTP_STREAM_CLOSED);
	(void)close(fd);
}

static void stuck_reader_is_cut_off(void **state)
{
	struct rig *rig = *state;
	AUTO_FREE char *text = xmalloc(4001);
	AUTO_STRBUF struct strbuf sb = {0};
	struct http_body *body;
	int r = 0, sent = 0, stuck, good;

	memset(text, 'x', 3999);
	text[3999] = '\n';
	text[4000] = '\0';
	body = http_body_new(text, 4000);
	text = NULL;
	rig->config.max_events = 100;
	rig->config.max_bytes = 1u << 20;
	stuck = subscribe(rig);
	good = subscribe(rig);
	for (; r == 0 && sent < 2000; sent++) {
		assert_int_equal(http_stream_send(rig->streams[1], body), 0);
		r = http_stream_send(rig->streams[0], body);
		assert_int_equal(rig->ended, 0); /* never inside send */
		assert_true(sd_event_run(rig->place.event, 1000) >= 0);
		(void)hear(good, &sb);
	}
	assert_int_equal(r, -ENOBUFS);
	assert_in_range(sent, 100, 250); /* the queue, the kernel's 128 KiB, the library's buffer */
	UNTIL(&rig->place, rig->ended == 1);
	assert_int_equal(rig->why, HTTP_STREAM_FULL);
	await_close(&rig->place, stuck, &sb);
	assert_non_null(rig->streams[1]);
	http_body_unref(body);
	(void)close(stuck);
	(void)close(good);
}

static void first_event_may_be_large(void **state)
{
	struct rig *rig = *state;
	char *big = xmalloc(300001);
	struct http_body *first, *second = http_body_new(xstrdup("second\n"), 7);
	size_t events, bytes;
	int fd;

	memset(big, 'y', 300000);
	first = http_body_new(big, 300000);
	rig->config.max_bytes = 10;
	fd = subscribe(rig);
	assert_int_equal(http_stream_send(rig->streams[0], first), 0);
	assert_int_equal(http_stream_send(rig->streams[0], second), 0);
	http_stream_queue(rig->streams[0], &events, &bytes);
	assert_int_equal(events, 2);
	assert_int_equal(bytes, 300007);
	assert_int_equal(http_stream_send(rig->streams[0], second), -ENOBUFS);
	assert_int_equal(http_stream_send(rig->streams[0], second), -EPIPE);
	UNTIL(&rig->place, rig->ended == 1);
	http_body_unref(first);
	http_body_unref(second);
	(void)close(fd);
}

static uint64_t ahead_us;

static uint64_t test_clock(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000 + ahead_us;
}

static void no_progress_is_an_end(void **state)
{
	struct rig *rig = *state;
	char *big = xmalloc(1000001);
	struct http_body *body;
	int fd = subscribe(rig), quiet = subscribe(rig);

	memset(big, 'z', 1000000);
	body = http_body_new(big, 1000000);
	assert_int_equal(http_stream_send(rig->streams[0], body), 0);
	http_body_unref(body);
	for (int i = 0; i < 10; i++)
		assert_true(sd_event_run(rig->place.event, 1000) >= 0);
	clock_us_hook = test_clock;
	ahead_us = (HTTP_STREAM_STALL_MS + 1000) * 1000ull;
	UNTIL(&rig->place, rig->ended == 1);
	clock_us_hook = NULL;
	ahead_us = 0;
	assert_int_equal(rig->why, HTTP_STREAM_STALLED);
	assert_non_null(rig->streams[1]); /* nothing to take is no stall */
	(void)close(fd);
	(void)close(quiet);
}

static void head_of_a_stream(void **state)
{
	struct rig *rig = *state;
	AUTO_STRBUF struct strbuf sb = {0};
	int fd = dial(&rig->place);

	say(fd, "HEAD /events HTTP/1.1\r\nHost: x\r\n\r\n");
	UNTIL(&rig->place, rig->ended == 1);
	await_text(&rig->place, fd, &sb, "200 OK");
	(void)close(fd);
}

static void server_ends_with_streams(void **state)
{
	struct rig *rig = *state;
	int fd = subscribe(rig), busy = subscribe(rig);

	turn(&rig->place);
	send_text(rig, "unread\n");
	http_server_free(rig->server);
	rig->server = NULL;
	assert_int_equal(rig->ended, 2);
	assert_int_equal(rig->why, HTTP_STREAM_CLOSED);
	(void)close(fd);
	(void)close(busy);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(events_arrive_in_order),          CASE(events_caused_by_a_request),
		CASE(vanished_client_is_seen_at_once), CASE(close_sends_what_is_queued),
		CASE(stuck_reader_is_cut_off),         CASE(first_event_may_be_large),
		CASE(no_progress_is_an_end),           CASE(head_of_a_stream),
		CASE(server_ends_with_streams),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
