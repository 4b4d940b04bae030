/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Incremental reader of HTTP/1.1 replies: status line, headers, and a body by Content-Length,
 * chunks or until close. Shared by the tools' blocking client and the daemons' asynchronous one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/strbuf.h"

struct err;

#define HTTP_HEAD_MAX (64u << 10)

enum http_parse_state { HTTP_PARSE_HEAD, HTTP_PARSE_BODY, HTTP_PARSE_DONE };

struct http_parse {
	enum http_parse_state state;
	int status;
	bool keep_alive;
	bool chunked;
	bool until_close;
	bool no_body; /* reply to HEAD, 204, 304 */
	size_t left;  /* of the body or the current chunk */
	int chunk_step;
	struct strbuf in;   /* bytes not yet understood */
	struct strbuf body; /* the caller may take from it while streaming */
	size_t body_max;
};

void http_parse_init(struct http_parse *p, size_t body_max, bool head_request);
void http_parse_done(struct http_parse *p);
/* Take len more bytes. 0, or -EPROTO, -E2BIG. */
int http_parse_feed(struct http_parse *p, const char *data, size_t len, struct err *err);
/* The peer closed: 0 when that ends the body rightly, else -ECONNRESET. */
int http_parse_eof(struct http_parse *p, struct err *err);
