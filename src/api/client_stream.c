/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Endless replies read line by line, for the tools; see client.h. The parser's body buffer holds
 * what has come; taken lines are cut off it before the next one is handed out.
 */
#include <errno.h>
#include <string.h>

#include "api/client.h"
#include "api/client_private.h"
#include "api/http_parse.h"
#include "base/err.h"
#include "base/mem.h"

#define HEAD_TIMEOUT_MS 30000
#define DROP_MIN        (64u << 10) /* taken bytes are moved out only in larger lots */

struct client_stream {
	struct client *client; /* borrowed */
	struct http_parse parse;
	size_t taken;   /* bytes of the body handed out already */
	size_t scanned; /* no newline before this */
};

static int refuse(struct client_stream *s, uint64_t deadline, struct err *err)
{
	struct http_parse *p = &s->parse;
	struct client_reply reply;
	int r = 1;

	while (r > 0 && p->state != HTTP_PARSE_DONE)
		r = client_receive(s->client, p, deadline, err);
	if (r < 0)
		return r;
	reply = (struct client_reply){p->status, p->body.data ? p->body.data : (char[]){""},
				      p->body.len};
	return client_reply_error(&reply, err);
}

int client_stream_open(struct client *c, const char *target, struct client_stream **ret,
		       struct err *err)
{
	const char *const method_target[] = {"GET", target};
	uint64_t deadline = client_deadline(HEAD_TIMEOUT_MS);
	struct client_stream *s = xcalloc(1, sizeof(*s));
	int r;

	s->client = c;
	http_parse_init(&s->parse, CLIENT_BODY_MAX, false);
	r = client_send_request(c, method_target, NULL, deadline, err);
	c->keep = false; /* whatever follows belongs to the stream */
	while (r >= 0 && s->parse.state == HTTP_PARSE_HEAD)
		r = client_receive(c, &s->parse, deadline, err);
	if (r >= 0 && s->parse.status != 200)
		r = refuse(s, deadline, err);
	if (r < 0) {
		client_stream_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

/* Hand out the next whole line of the buffer. */
static bool next_line(struct client_stream *s, const char **ret_line, size_t *ret_len)
{
	struct strbuf *b = &s->parse.body;
	char *from, *nl;

	if (s->taken >= DROP_MIN || s->taken == b->len) {
		strbuf_drop(b, s->taken);
		s->scanned -= s->taken;
		s->taken = 0;
	}
	if (s->scanned >= b->len)
		return false;
	from = b->data + s->scanned;
	nl = memchr(from, '\n', b->len - s->scanned);
	if (!nl) {
		s->scanned = b->len;
		return false;
	}
	*nl = '\0';
	*ret_line = b->data + s->taken;
	*ret_len = (size_t)(nl - *ret_line);
	s->taken += *ret_len + 1;
	s->scanned = s->taken;
	return true;
}

int client_line(struct client_stream *s, int timeout_ms, const char **ret_line, size_t *ret_len,
		struct err *err)
{
	uint64_t deadline = client_deadline(timeout_ms);
	int r;

	for (;;) {
		if (next_line(s, ret_line, ret_len))
			return 1;
		if (s->parse.state == HTTP_PARSE_DONE)
			return s->taken == s->parse.body.len
				       ? 0
				       : err_set(err, ECONNRESET,
						 "the stream ended in the middle of a line");
		r = client_receive(s->client, &s->parse, deadline, err);
		if (r < 0)
			return r;
	}
}

void client_stream_close(struct client_stream *s)
{
	if (!s)
		return;
	/* What is still under way belongs to this stream: the connection cannot be used again. */
	if (s->client->fd >= 0)
		(void)close(s->client->fd);
	s->client->fd = -1;
	s->client->keep = false;
	http_parse_done(&s->parse);
	free(s);
}
