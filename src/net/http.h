/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP server of the daemons: libmicrohttpd driven by the daemon's sd-event loop, with one route
 * table, answers now or later, shared bodies, and bounded streams. One server object may listen
 * on a unix socket and on loopback TCP at once.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <systemd/sd-event.h>

struct err;
struct sock_peer;
struct http_server;
struct http_request; /* alive until answered (or its client is gone and on_gone was called) */
struct http_stream;
struct http_body; /* immutable bytes, counted references */

#define HTTP_BODY_MAX    (1u << 20) /* of a request, bytes; larger is 413 */
#define HTTP_TARGET_MAX  4096u
#define HTTP_HEADER_MAX  16384u
#define HTTP_CONNECTIONS 2000u
#define HTTP_HEAD_MS                                                                               \
	10000u /* from accept, or first byte of the next request, to the headers' end */
#define HTTP_BODY_MS         30000u
#define HTTP_IDLE_MS         60000u
#define HTTP_STREAM_EVENTS   1024u /* default bounds of one stream's queue */
#define HTTP_STREAM_BYTES    (4u << 20)
#define HTTP_STREAM_STALL_MS 30000u

typedef void (*http_handler)(struct http_request *req, void *ctx);

struct http_route {
	const char *method;  /* "GET"; GET also serves HEAD; "*" is any */
	const char *pattern; /* "/vms/:id"; a last part ".." takes the rest of the path */
	http_handler handler;
	bool tcp;        /* may be asked over TCP */
	const char *doc; /* one sentence, for docs/ */
};

/* The table as Markdown, for the contract page of a daemon. */
void http_routes_print(FILE *out, const struct http_route *routes, size_t count);

struct http_config {
	const struct http_route *routes;
	size_t nroutes;
	void *ctx; /* for the handlers */
	/* Called before each handler: the place where queued file events are taken in. May be NULL.
	 */
	void (*before)(void *ctx);
	/* When no route fits; NULL: 404 (405 for a known path) with our JSON error. */
	http_handler fallback;
	size_t body_max; /* 0: HTTP_BODY_MAX */
};

int http_server_new(sd_event *event, const struct http_config *config, struct http_server **ret,
		    struct err *err);
/* Serve a bound, listening, non-blocking socket; takes the descriptor. tcp: the Host header must
 * be localhost or 127.0.0.1 or [::1], with or without port, only routes with .tcp are served,
 * and TCP keepalive is set. */
int http_server_listen(struct http_server *s, int fd, bool tcp, struct err *err);
void http_server_free(struct http_server *s);
size_t http_server_connections(const struct http_server *s);

/* --- a request --- */
const char *http_method(const struct http_request *req);
const char *http_path(const struct http_request *req);                    /* normalised */
const char *http_param(const struct http_request *req, const char *name); /* ":id" as "id" */
/* Decoded query (or form-encoded body) argument, NULL when absent; the body wins. */
const char *http_query(const struct http_request *req, const char *name);
/* The arguments in order; false behind the last. */
bool http_query_at(const struct http_request *req, size_t index, const char **ret_name,
		   const char **ret_value);
const char *http_header(const struct http_request *req, const char *name);
const char *http_body_text(const struct http_request *req, size_t *ret_len); /* "" when none */
/* The peer of a unix connection (borrowed), NULL over TCP. */
const struct sock_peer *http_peer(const struct http_request *req);
/* For the caller's own use across callbacks. */
void http_set_data(struct http_request *req, void *data);
void *http_data(const struct http_request *req);
/* fn runs when the client goes away before the answer; the request is dead after it returned.
 * Answering a request inside fn is not allowed. */
void http_on_gone(struct http_request *req, void (*fn)(struct http_request *req, void *ctx),
		  void *ctx);

/* --- answers: each ends the request; exactly one per request --- */
void http_reply(struct http_request *req, int status, const char *type, const void *data,
		size_t len); /* copies */
void http_reply_body(struct http_request *req, int status, const char *type,
		     struct http_body *body); /* adds a reference; the caller keeps its own */
void http_reply_json(struct http_request *req, int status, const json_t *json);
/* {"error":{"code","message"}}, status by api/status.h; r negative errno, err may be NULL. */
void http_reply_err(struct http_request *req, int r, const struct err *err);

#define HTTP_JSON "application/json"

struct http_body *http_body_new(char *data, size_t len); /* takes data (malloc) */
struct http_body *http_body_ref(struct http_body *b);
void http_body_unref(struct http_body *b); /* NULL is fine */
const char *http_body_data(const struct http_body *b, size_t *ret_len);

/* --- streams --- */
enum http_stream_end {
	HTTP_STREAM_CLIENT,  /* the client left */
	HTTP_STREAM_FULL,    /* its queue was full */
	HTTP_STREAM_STALLED, /* it took nothing for HTTP_STREAM_STALL_MS */
	HTTP_STREAM_CLOSED,  /* http_stream_close, or the server ended */
};

struct http_stream_config {
	const char *type;
	size_t max_events, max_bytes; /* 0: the defaults above; the first event may exceed bytes */
	/* Runs once, from the loop, never inside http_stream_send; the stream is dead after it. */
	void (*on_end)(struct http_stream *s, enum http_stream_end why, void *ctx);
	void *ctx;
};

/* Answer 200 with an endless chunked body. */
struct http_stream *http_reply_stream(struct http_request *req,
				      const struct http_stream_config *config);
/* Queue bytes (one or more whole lines); adds a reference, the caller keeps its own. -ENOBUFS: over
 * the bound, the stream will end. -EPIPE: it is ending already. */
int http_stream_send(struct http_stream *s, struct http_body *body);
void http_stream_close(struct http_stream *s);
/* What waits to be taken by the client. */
void http_stream_queue(const struct http_stream *s, size_t *ret_events, size_t *ret_bytes);
