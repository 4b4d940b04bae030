/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the http_*.c files only. A connection lives from accept to libmicrohttpd's closing
 * notice; a request from its first line to its completion notice; a stream belongs to a request.
 */
#pragma once

#include <microhttpd.h>

#include "base/sock.h"
#include "base/strbuf.h"
#include "net/http.h"

#define HTTP_LISTENERS  4
#define HTTP_PARAMS_MAX 6
#define HTTP_ARGS_MAX   64
#define HTTP_UPLOAD_FACTOR                                                                         \
	4u /* a chunked body this many times over the bound ends the connection */

enum http_phase { HTTP_PHASE_HEAD, HTTP_PHASE_BODY, HTTP_PHASE_ANSWER, HTTP_PHASE_IDLE };

struct http_conn {
	struct http_server *server;
	struct MHD_Connection *mhd;
	struct http_conn *prev, *next;
	struct http_request *req; /* under way, or NULL */
	struct sock_peer peer;
	enum http_phase phase;
	uint64_t since_ms; /* when the phase began */
	int fd;            /* libmicrohttpd's */
	bool tcp, peer_known;
	bool eof; /* the client sends nothing more */
	bool hup; /* the client has left */
};

struct http_listener {
	struct http_server *server;
	sd_event_source *io;
	int fd;
	bool tcp;
};

struct http_server {
	sd_event *event;
	struct http_config config;
	struct MHD_Daemon *mhd;
	sd_event_source *mhd_io, *watch_io, *soon, *sweep;
	struct http_listener listeners[HTTP_LISTENERS];
	size_t nlisteners, nconns;
	struct http_conn *conns;
	int watch_fd;   /* epoll of every connection's hang-up, as suspended ones are not watched */
	int reserve_fd; /* given up for a moment to refuse a client when descriptors are used up */
	bool accepting_tcp;
	bool again, in_run; /* see http_kick */
	bool eofs;          /* some connection has eof set */
};

struct http_arg {
	char *name, *value;
};

struct http_param {
	const char *name; /* in the pattern, not terminated */
	size_t len;
	char *value;
};

struct http_request {
	struct http_conn *conn;
	const char *method; /* libmicrohttpd's, as long as the request lives */
	char *path, *query;
	size_t target_len;
	struct strbuf body;
	struct http_param params[HTTP_PARAMS_MAX];
	struct http_arg *args;
	size_t nparams, nargs;
	bool args_known;
	bool seen, handled, answered, queued, dead, suspended, too_big;
	int status;
	struct MHD_Response *response; /* until queued; owned unless body_ref is set */
	struct http_body *body_ref;    /* owner of response */
	struct http_stream *stream;
	void *data;
	void (*gone)(struct http_request *req, void *ctx);
	void *gone_ctx;
};

/* --- http.c --- */
/* Something was resumed: libmicrohttpd must run again, now or as soon as the loop turns. */
void http_kick(struct http_server *s);
/* Break a connection from our side; libmicrohttpd notices and closes it. */
void http_conn_break(struct http_conn *conn);

/* --- http_path.c --- */
/* Path as routes see it: '//', '.', '..' and a trailing slash resolved, scheme and host cut off. */
char *http_path_normal(const char *target, size_t len);
/* text[len] with %XX (and '+' as a blank in forms) decoded; %00 and broken escapes stay. */
char *http_decode(const char *text, size_t len, bool form);
/* Append the pairs of "a=b&c=d" to *args (HTTP_ARGS_MAX in all). */
void http_parse_args(const char *text, size_t len, struct http_arg **args, size_t *nargs);
/* Whether path fits pattern; then its parameters are in params (values owned by the caller). */
bool http_match(const char *pattern, const char *path, struct http_param *params, size_t *nparams);
void http_params_done(struct http_param *params, size_t *nparams);
/* "localhost", "127.0.0.1", "[::1]" with or without ":port". */
bool http_host_is_local(const char *host);

/* --- http_request.c: libmicrohttpd's callbacks --- */
void *http_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
				const char *method, const char *version, const char *upload,
				size_t *upload_size, void **con_cls);
void http_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
		       enum MHD_RequestTerminationCode how);
/* Free a request that the library refused by itself: it never says that such a one is over. */
void http_request_forget(struct http_conn *conn);
/* The client of a suspended request has left, or the server ends. */
void http_request_vanish(struct http_request *req);

/* --- http_reply.c --- */
/* Hand the stored answer to libmicrohttpd. */
enum MHD_Result http_queue(struct http_request *req);
/* Let go of an answer that was queued or is not wanted any more. */
void http_drop_answer(struct http_request *req);
/* Store an answer (takes response); resumes the request when it waits. */
void http_answer(struct http_request *req, int status, struct MHD_Response *response);
struct MHD_Response *http_response_text(const char *type, char *data, size_t len);
/* Our JSON error with a status of its own. close: end the connection after it. */
void http_refuse(struct http_request *req, int status, int code, const char *text, bool close);

/* --- http_stream.c --- */
/* The response is done with: runs on_end, frees it. */
void http_stream_ended(struct http_stream *st);
void http_stream_kill(struct http_stream *st, enum http_stream_end why);
/* Ends the stream when its client has taken nothing for too long. */
void http_stream_check(struct http_stream *st, uint64_t now);
