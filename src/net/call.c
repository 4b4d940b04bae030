/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request to another daemon; see call.h. A connection per call: unix sockets make that cheap,
 * and a call never waits behind another. Everything that can fail at the start is reported from
 * the loop as well, so callers have one path.
 */
#include "net/call.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "api/http_parse.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/sock.h"

#define BODY_MAX  (16u << 20)
#define READ_SIZE (16u << 10)
#define TIMER_US  1000

struct call {
	sd_event_source *io, *timer, *later;
	int fd, failure;
	struct strbuf out;
	size_t sent;
	struct http_parse parse;
	char *what; /* "POST /vms/x at '/run/vmstated.sock'", for messages */
	struct err err;
	call_done done;
	void *ctx;
	bool in_done;
};

static void call_free(struct call *c)
{
	(void)sd_event_source_disable_unref(c->io);
	(void)sd_event_source_disable_unref(c->timer);
	(void)sd_event_source_disable_unref(c->later);
	if (c->fd >= 0)
		(void)close(c->fd);
	strbuf_done(&c->out);
	http_parse_done(&c->parse);
	free(c->what);
	free(c);
}

static void finish(struct call *c, int r)
{
	if (r < 0)
		(void)err_wrap(&c->err, r, "%s", c->what);
	strbuf_puts(&c->parse.body, ""); /* a NUL even without a body */
	c->in_done = true;
	c->done(c->ctx, r, r < 0 ? 0 : c->parse.status, c->parse.body.data,
		r < 0 ? 0 : c->parse.body.len, &c->err);
	call_free(c);
}

/* 1 when all is sent, 0 when the socket is full. */
static int send_some(struct call *c)
{
	while (c->sent < c->out.len) {
		ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);

		if (n >= 0)
			c->sent += (size_t)n;
		else if (errno == EAGAIN)
			return 0;
		else if (errno == EPIPE || errno == ECONNRESET)
			return 1; /* an early answer may be there to read */
		else if (errno != EINTR)
			return err_sys(&c->err, errno, "cannot send");
	}
	return 1;
}

/* 1 when the answer is complete. */
static int receive_some(struct call *c)
{
	char buf[READ_SIZE];

	for (;;) {
		ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
		int r;

		if (n > 0) {
			r = http_parse_feed(&c->parse, buf, (size_t)n, &c->err);
			if (r < 0 || c->parse.state == HTTP_PARSE_DONE)
				return r < 0 ? r : 1;
			continue;
		}
		if (n == 0 || errno == ECONNRESET) {
			r = http_parse_eof(&c->parse, &c->err);
			return r < 0 ? r : 1;
		}
		if (errno == EAGAIN)
			return 0;
		if (errno != EINTR)
			return err_sys(&c->err, errno, "cannot read");
	}
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct call *c = ctx;
	int r = 0;

	if (c->sent < c->out.len && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))) {
		r = send_some(c);
		if (r > 0)
			r = sd_event_source_set_io_events(source, EPOLLIN);
		if (r < 0) {
			finish(c, r);
			return 0;
		}
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		r = receive_some(c);
	else
		return 0;
	if (r != 0)
		finish(c, r < 0 ? r : 0);
	return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct call *c = ctx;

	finish(c, err_set(&c->err, ETIMEDOUT, "no answer in time"));
	return 0;
}

static int on_later(sd_event_source *source, void *ctx)
{
	struct call *c = ctx;

	finish(c, c->failure);
	return 0;
}

static int begin(sd_event *event, struct call *c, const char *socket, uint64_t timeout_ms)
{
	int r = sock_connect(socket, &c->fd, &c->err);

	if (r < 0)
		return r;
	r = sd_event_add_io(event, &c->io, c->fd, EPOLLIN | EPOLLOUT, on_io, c);
	if (r >= 0 && timeout_ms)
		r = sd_event_add_time_relative(event, &c->timer, CLOCK_BOOTTIME, timeout_ms * 1000,
					       TIMER_US, on_timeout, c);
	return r < 0 ? err_sys(&c->err, -r, "cannot watch a socket") : 0;
}

struct call *call_start(sd_event *event, const struct call_request *request, call_done done,
			void *ctx)
{
	const char *body = request->body;
	struct call *c = xcalloc(1, sizeof(*c));

	*c = (struct call){.fd = -1, .done = done, .ctx = ctx};
	c->what = xasprintf("%s %s at '%s'", request->method, request->target, request->socket);
	http_parse_init(&c->parse, BODY_MAX, strcmp(request->method, "HEAD") == 0);
	strbuf_printf(&c->out, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
		      request->method, request->target);
	if (body)
		strbuf_printf(&c->out, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
			      strlen(body));
	strbuf_puts(&c->out, "\r\n");
	if (body)
		strbuf_puts(&c->out, body);
	c->failure = begin(event, c, request->socket, request->timeout_ms);
	if (c->failure < 0) {
		c->io = sd_event_source_disable_unref(c->io);
		c->timer = sd_event_source_disable_unref(c->timer);
		if (sd_event_add_defer(event, &c->later, on_later, c) < 0)
			abort(); /* out of memory, as everywhere */
	}
	return c;
}

void call_cancel(struct call *c)
{
	if (c && !c->in_done)
		call_free(c);
}
