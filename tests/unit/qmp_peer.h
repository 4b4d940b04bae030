/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scripted QMP peer on a socket pair, for the tests of the client: what the client sends is
 * compared byte by byte, what it is told comes in pieces. A watchdog ends a test that hangs.
 */
#pragma once

#include <string.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/qmp.h"

#define HELLO "{\"QMP\":{\"version\":{},\"capabilities\":[\"oob\"]}}\r\n"
#define CAPS  "{\"execute\":\"qmp_capabilities\",\"id\":0}\n"
#define OK0   "{\"return\":{},\"id\":0}\r\n"

struct fixture {
	sd_event *event;
	int peer;
	struct qmp *q;
	bool free_in_event, free_in_done, free_in_closed, send_in_done;
	int ready, closed, closed_r;
	struct strbuf log; /* events and answers, in order */
};

static inline void on_ready(void *ctx, struct qmp *q)
{
	((struct fixture *)ctx)->ready++;
}

static inline void on_event(void *ctx, struct qmp *q, const char *name, const json_t *data,
			    int64_t wall_ms)
{
	struct fixture *f = ctx;

	strbuf_printf(&f->log, "event %s %lld;", name, (long long)wall_ms);
	if (f->free_in_event)
		qmp_free(steal_ptr(f->q));
}

static inline void on_closed(void *ctx, struct qmp *q, int r, const struct err *err)
{
	struct fixture *f = ctx;

	f->closed++;
	f->closed_r = r;
	assert_int_equal(-r, err->code);
	assert_true(err->msg[0] != '\0');
	if (f->free_in_closed)
		qmp_free(steal_ptr(f->q));
}

static inline void on_done(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct fixture *f = ctx;

	strbuf_printf(&f->log, "done %d %s;", r, r < 0 ? err->msg : "ok");
	assert_true((r == 0) == (value != NULL));
	if (f->free_in_done)
		qmp_free(steal_ptr(f->q));
	else if (f->send_in_done)
		strbuf_printf(&f->log, "send %d;", qmp_send(f->q, "stop", NULL, -1, 5000, NULL, f));
}

static inline int on_watchdog(sd_event_source *s, uint64_t usec, void *ctx)
{
	fail_msg("nothing happened for twenty seconds");
	return 0;
}

static inline int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct qmp_config config = {on_ready, on_event, on_closed, f};
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
	assert_true(sd_event_new(&f->event) >= 0);
	assert_true(sd_event_add_time_relative(f->event, NULL, CLOCK_BOOTTIME, 20000000, 0,
					       on_watchdog, NULL) >= 0);
	f->peer = fds[1];
	assert_int_equal(qmp_open_fd(f->event, fds[0], &config, &f->q, NULL), 0);
	*state = f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	qmp_free(f->q);
	if (f->peer >= 0)
		(void)close(f->peer);
	sd_event_unref(f->event);
	strbuf_done(&f->log);
	free(f);
	return 0;
}

static inline void say(struct fixture *f, const char *text)
{
	assert_int_equal(send(f->peer, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Everything that can happen without waiting. */
static inline void spin(struct fixture *f)
{
	while (sd_event_run(f->event, 0) > 0)
		;
}

static inline void expect_sent(struct fixture *f, const char *want)
{
	char buf[4096];
	ssize_t n = recv(f->peer, buf, sizeof(buf) - 1, 0);

	buf[n > 0 ? n : 0] = '\0';
	assert_string_equal(buf, want);
}

static inline void greet(struct fixture *f)
{
	say(f, HELLO);
	spin(f);
	expect_sent(f, CAPS);
	say(f, OK0);
	spin(f);
	assert_int_equal(f->ready, 1);
	assert_true(qmp_is_ready(f->q));
}

static inline int query(struct fixture *f, uint64_t timeout_ms)
{
	return qmp_send(f->q, "query-status", NULL, -1, timeout_ms, on_done, f);
}

static inline const char *logged(struct fixture *f)
{
	return f->log.data ? f->log.data : "";
}

static inline void run_until(struct fixture *f, const char *want)
{
	while (strcmp(logged(f), want) != 0)
		assert_true(sd_event_run(f->event, UINT64_MAX) >= 0);
}
