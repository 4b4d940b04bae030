/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reader of HTTP/1.1 replies; see http_parse.h. Strict where leniency has bitten others: one
 * Content-Length, never together with chunks, CRLF line ends, bounded heads and lines. Bytes that
 * follow a complete reply stay in p->in.
 */
#include "api/http_parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"

#define CHUNK_LINE_MAX 1024u /* a chunk's size with extensions, or one trailer */

enum chunk_step { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER };

void http_parse_init(struct http_parse *p, size_t body_max, bool head_request)
{
	*p = (struct http_parse){.body_max = body_max, .no_body = head_request};
}

void http_parse_done(struct http_parse *p)
{
	strbuf_done(&p->in);
	strbuf_done(&p->body);
}

/* "HTTP/1.1 200 OK" */
static int parse_status_line(struct http_parse *p, const char *line, struct err *err)
{
	const char *code = line + strlen("HTTP/1.x ");

	if (strncmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') ||
	    line[8] != ' ' || !isdigit((unsigned char)code[0]) ||
	    !isdigit((unsigned char)code[1]) || !isdigit((unsigned char)code[2]) ||
	    (code[3] != ' ' && code[3] != '\0') || code[0] == '0')
		return err_set(err, EPROTO, "'%.60s' is not an HTTP/1.1 status line", line);
	p->status = (code[0] - '0') * 100 + (code[1] - '0') * 10 + (code[2] - '0');
	p->keep_alive = line[7] == '1';
	return 0;
}

static int parse_length(struct http_parse *p, const char *value, bool *seen, struct err *err)
{
	size_t n = 0;

	if (*value == '\0')
		return err_set(err, EPROTO, "Content-Length is empty");
	for (const char *c = value; *c; c++) {
		if (!isdigit((unsigned char)*c))
			return err_set(err, EPROTO, "Content-Length '%.40s' is not a number",
				       value);
		if (n > p->body_max)
			break; /* large enough to be refused below */
		n = n * 10 + (size_t)(*c - '0');
	}
	if (n > p->body_max)
		return err_set(err, E2BIG, "reply of %.20s bytes is larger than %zu", value,
			       p->body_max);
	if (*seen && n != p->left)
		return err_set(err, EPROTO, "two different Content-Length headers");
	*seen = true;
	p->left = n;
	return 0;
}

static int parse_header(struct http_parse *p, char *line, bool *length, struct err *err)
{
	char *value = strchr(line, ':');
	size_t len;

	if (!value || value == line || value[-1] == ' ' || value[-1] == '\t' || *line == ' ')
		return err_set(err, EPROTO, "'%.60s' is not a header", line);
	*value++ = '\0';
	value += strspn(value, " \t");
	len = strlen(value);
	while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t'))
		value[--len] = '\0';
	if (strcasecmp(line, "Content-Length") == 0)
		return parse_length(p, value, length, err);
	if (strcasecmp(line, "Transfer-Encoding") == 0) {
		if (strcasecmp(value, "chunked") != 0)
			return err_set(err, EPROTO, "Transfer-Encoding '%.40s' is unknown", value);
		p->chunked = true;
	} else if (strcasecmp(line, "Connection") == 0) {
		if (strcasecmp(value, "close") == 0)
			p->keep_alive = false;
		else if (strcasecmp(value, "keep-alive") == 0)
			p->keep_alive = true;
	}
	return 0;
}

/* What follows the head: nothing, a known length, chunks, or all until the peer closes. */
static int begin_body(struct http_parse *p, bool length, struct err *err)
{
	if (p->status < 200) {
		if (p->status == 101)
			return err_set(err, EPROTO, "the peer switched protocols unasked");
		return 0; /* interim: the next head follows */
	}
	if (length && p->chunked)
		return err_set(err, EPROTO, "reply has both a length and chunks");
	p->state = HTTP_PARSE_BODY;
	if (p->no_body || p->status == 204 || p->status == 304) {
		p->no_body = true;
		p->state = HTTP_PARSE_DONE;
	} else if (p->chunked) {
		p->chunk_step = CHUNK_SIZE;
	} else if (!length) {
		p->until_close = true;
		p->keep_alive = false;
	} else if (p->left == 0) {
		p->state = HTTP_PARSE_DONE;
	} else {
		strbuf_reserve(&p->body, p->left);
	}
	return 0;
}

/* The head lies in text[len], its last CRLF included; it is cut up in place. */
static int parse_head(struct http_parse *p, char *text, size_t len, struct err *err)
{
	char *line = text, *end = text + len;
	bool length = false;
	int r;

	if (memchr(text, '\0', len))
		return err_set(err, EPROTO, "NUL in the reply's head");
	p->chunked = false;
	for (bool first = true; line < end; first = false) {
		char *nl = memchr(line, '\n', (size_t)(end - line));

		if (!nl || nl == line || nl[-1] != '\r')
			return err_set(err, EPROTO, "bad line end in the reply's head");
		nl[-1] = '\0';
		if (strchr(line, '\r'))
			return err_set(err, EPROTO, "bad line end in the reply's head");
		r = first ? parse_status_line(p, line, err) : parse_header(p, line, &length, err);
		if (r < 0)
			return r;
		line = nl + 1;
	}
	return begin_body(p, length, err);
}

/* Steps take bytes at *pos: 1 when they did, 0 when more input is needed, or an error. */
static int step_head(struct http_parse *p, size_t *pos, struct err *err)
{
	char *text = p->in.data + *pos;
	size_t avail = p->in.len - *pos;
	char *end = memmem(text, avail, "\r\n\r\n", 4);
	int r;

	if ((end ? (size_t)(end - text) : avail) > HTTP_HEAD_MAX)
		return err_set(err, E2BIG, "the reply's head is larger than %u bytes",
			       HTTP_HEAD_MAX);
	if (!end)
		return 0;
	r = parse_head(p, text, (size_t)(end - text) + 2, err);
	if (r < 0)
		return r;
	*pos += (size_t)(end - text) + 4;
	return 1;
}

static int take_body(struct http_parse *p, size_t *pos, size_t n, struct err *err)
{
	if (n > p->body_max || p->body.len > p->body_max - n)
		return err_set(err, E2BIG, "reply is larger than %zu bytes", p->body_max);
	strbuf_add(&p->body, p->in.data + *pos, n);
	*pos += n;
	return 1;
}

static int step_plain(struct http_parse *p, size_t *pos, struct err *err)
{
	size_t avail = p->in.len - *pos, n = avail < p->left ? avail : p->left;
	int r;

	if (avail == 0)
		return 0;
	if (p->until_close)
		return take_body(p, pos, avail, err);
	r = take_body(p, pos, n, err);
	if (r < 0)
		return r;
	p->left -= n;
	if (p->left == 0)
		p->state = HTTP_PARSE_DONE;
	return 1;
}

static int parse_chunk_size(struct http_parse *p, const char *line, struct err *err)
{
	size_t digits = strspn(line, "0123456789abcdefABCDEF");
	size_t n = digits > 15 ? SIZE_MAX : strtoull(line, NULL, 16);

	if (n > p->body_max)
		return err_set(err, E2BIG, "reply is larger than %zu bytes", p->body_max);
	if (digits == 0 || (line[digits] && !strchr("; \t", line[digits])))
		return err_set(err, EPROTO, "'%.40s' is not the size of a chunk", line);
	p->left = n;
	p->chunk_step = n ? CHUNK_DATA : CHUNK_TRAILER;
	return 1;
}

/* The lines between chunks. */
static int step_chunk_line(struct http_parse *p, size_t *pos, struct err *err)
{
	char *line = p->in.data + *pos;
	size_t avail = p->in.len - *pos;
	char *nl = memchr(line, '\n', avail);

	if ((nl ? (size_t)(nl - line) : avail) > CHUNK_LINE_MAX)
		return err_set(err, EPROTO, "the line between chunks is too long");
	if (!nl)
		return 0;
	if (nl == line || nl[-1] != '\r')
		return err_set(err, EPROTO, "bad line end between chunks");
	nl[-1] = '\0';
	*pos += (size_t)(nl - line) + 1;
	if (p->chunk_step == CHUNK_SIZE)
		return parse_chunk_size(p, line, err);
	if (p->chunk_step == CHUNK_END) {
		if (*line)
			return err_set(err, EPROTO, "a chunk is longer than it said");
		p->chunk_step = CHUNK_SIZE;
	} else if (*line == '\0') { /* trailers are ignored up to the empty line */
		p->state = HTTP_PARSE_DONE;
	}
	return 1;
}

static int step_chunked(struct http_parse *p, size_t *pos, struct err *err)
{
	size_t avail = p->in.len - *pos, n = avail < p->left ? avail : p->left;
	int r;

	if (p->chunk_step != CHUNK_DATA)
		return step_chunk_line(p, pos, err);
	if (avail == 0)
		return 0;
	r = take_body(p, pos, n, err);
	if (r < 0)
		return r;
	p->left -= n;
	if (p->left == 0)
		p->chunk_step = CHUNK_END;
	return 1;
}

int http_parse_feed(struct http_parse *p, const char *data, size_t len, struct err *err)
{
	size_t pos = 0;
	int r = 1;

	strbuf_add(&p->in, data, len);
	while (r > 0 && p->state != HTTP_PARSE_DONE) {
		if (p->state == HTTP_PARSE_HEAD)
			r = step_head(p, &pos, err);
		else if (p->chunked)
			r = step_chunked(p, &pos, err);
		else
			r = step_plain(p, &pos, err);
	}
	strbuf_drop(&p->in, pos);
	return r < 0 ? r : 0;
}

int http_parse_eof(struct http_parse *p, struct err *err)
{
	if (p->state == HTTP_PARSE_BODY && p->until_close)
		p->state = HTTP_PARSE_DONE;
	if (p->state == HTTP_PARSE_DONE)
		return 0;
	if (p->state == HTTP_PARSE_HEAD && p->in.len == 0)
		return err_set(err, ECONNRESET, "the connection was closed without an answer");
	return err_set(err, ECONNRESET, "the connection was closed in the middle of the answer");
}
