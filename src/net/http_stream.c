/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Endless answers. Each has a ring of shared bodies; libmicrohttpd's reader copies from its head.
 * With an empty ring the connection is suspended, and the next event resumes it. Bounds: events
 * and bytes of the ring (the first event aside), and time without progress; whoever exceeds one
 * is cut off by shutdown() and learns it from the broken chunked body.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/http_private.h"

#define SNDBUF_BYTES (64 << 10) /* the kernel must not hide megabytes per stuck client */
#define BLOCK_BYTES  2048

struct http_stream {
	struct http_request *req;
	struct http_stream_config config;
	struct http_body **ring;
	size_t cap, head, count;
	size_t offset; /* taken of the first */
	size_t bytes;
	size_t free_bytes; /* of the first event of all, which the bound does not count */
	uint64_t progress_ms;
	bool begun, suspended, dead, closing;
	enum http_stream_end why;
};

static struct http_body *first(const struct http_stream *st)
{
	return st->ring[st->head];
}

static void pop(struct http_stream *st)
{
	http_body_unref(first(st));
	st->head = (st->head + 1) % st->cap;
	st->count--;
	st->offset = 0;
}

static void push(struct http_stream *st, struct http_body *body)
{
	if (st->count == st->cap) {
		size_t cap = st->cap ? st->cap * 2 : 8;
		struct http_body **ring = xcalloc(cap, sizeof(struct http_body *));

		for (size_t i = 0; i < st->count; i++)
			ring[i] = st->ring[(st->head + i) % st->cap];
		free(st->ring);
		st->ring = ring;
		st->cap = cap;
		st->head = 0;
	}
	st->ring[(st->head + st->count++) % st->cap] = http_body_ref(body);
}

static void drop_queue(struct http_stream *st)
{
	while (st->count > 0)
		pop(st);
	st->bytes = 0;
	st->free_bytes = 0;
}

static void resume(struct http_stream *st)
{
	if (st->suspended) {
		st->suspended = false;
		MHD_resume_connection(st->req->conn->mhd);
	}
	http_kick(st->req->conn->server);
}

/* Copy what fits into libmicrohttpd's buffer. */
static size_t take(struct http_stream *st, char *buf, size_t max)
{
	size_t done = 0;

	while (done < max && st->count > 0) {
		size_t len, n;
		const char *data = http_body_data(first(st), &len);

		n = len - st->offset < max - done ? len - st->offset : max - done;
		memcpy(buf + done, data + st->offset, n);
		done += n;
		st->offset += n;
		if (st->offset == len)
			pop(st);
	}
	st->bytes -= done;
	st->free_bytes -= done < st->free_bytes ? done : st->free_bytes;
	return done;
}

static ssize_t on_read(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct http_stream *st = cls;

	if (st->dead || st->req->conn->hup)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (st->count > 0) {
		st->progress_ms = clock_ms();
		return (ssize_t)take(st, buf, max);
	}
	if (st->closing)
		return MHD_CONTENT_READER_END_OF_STREAM;
	MHD_suspend_connection(st->req->conn->mhd);
	st->suspended = true;
	return 0;
}

struct http_stream *http_reply_stream(struct http_request *req,
				      const struct http_stream_config *config)
{
	struct http_stream *st = xcalloc(1, sizeof(*st));
	struct MHD_Response *response;
	int size = SNDBUF_BYTES;

	*st = (struct http_stream){.req = req,
				   .config = *config,
				   .why = HTTP_STREAM_CLIENT,
				   .progress_ms = clock_ms()};
	if (st->config.max_events == 0)
		st->config.max_events = HTTP_STREAM_EVENTS;
	if (st->config.max_bytes == 0)
		st->config.max_bytes = HTTP_STREAM_BYTES;
	(void)setsockopt(req->conn->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	response =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, on_read, st, NULL);
	if (!response)
		abort(); /* out of memory, as everywhere */
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, config->type);
	req->stream = st;
	http_answer(req, 200, response);
	return st;
}

int http_stream_send(struct http_stream *st, struct http_body *body)
{
	size_t len, counted = st->bytes - st->free_bytes;

	if (st->dead || st->closing)
		return -EPIPE;
	(void)http_body_data(body, &len);
	if (len == 0)
		return 0;
	if (st->begun && (st->count >= st->config.max_events || len > st->config.max_bytes ||
			  counted > st->config.max_bytes - len)) {
		http_stream_kill(st, HTTP_STREAM_FULL);
		return -ENOBUFS;
	}
	if (!st->begun)
		st->free_bytes = len;
	if (st->count == 0)
		st->progress_ms = clock_ms();
	st->begun = true;
	st->bytes += len;
	push(st, body);
	resume(st);
	return 0;
}

void http_stream_close(struct http_stream *st)
{
	if (st->dead || st->closing)
		return;
	st->closing = true;
	st->why = HTTP_STREAM_CLOSED;
	resume(st);
}

void http_stream_kill(struct http_stream *st, enum http_stream_end why)
{
	if (st->dead)
		return;
	st->dead = true;
	st->why = why;
	drop_queue(st);
	(void)shutdown(st->req->conn->fd, SHUT_RDWR);
	resume(st);
}

void http_stream_check(struct http_stream *st, uint64_t now)
{
	if (!st->dead && st->count > 0 && now - st->progress_ms > HTTP_STREAM_STALL_MS)
		http_stream_kill(st, HTTP_STREAM_STALLED);
}

void http_stream_ended(struct http_stream *st)
{
	st->dead = true;
	drop_queue(st);
	st->req->stream = NULL;
	if (st->config.on_end)
		st->config.on_end(st, st->why, st->config.ctx);
	free(st->ring);
	free(st);
}

void http_stream_queue(const struct http_stream *st, size_t *ret_events, size_t *ret_bytes)
{
	*ret_events = st->count;
	*ret_bytes = st->bytes;
}
