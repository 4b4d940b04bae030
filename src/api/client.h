/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tools' plain HTTP/1.1 client over a unix socket: blocking, one connection per struct,
 * kept open between calls. Links nothing but libc.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct err;

#define CLIENT_BODY_MAX (256u << 20)

struct client {
	int fd;
	char *path; /* of the socket */
	char *user_agent;
	bool keep;
};

struct client_reply {
	int status;
	char *body; /* NUL-terminated, owned; free with client_reply_done */
	size_t len;
};

/*
 * Connect to the socket. user_agent may be NULL. wait_ms: how long to wait for a socket that is
 * not there or refuses (a daemon restarting), 0 for not at all. -ENOENT, -ECONNREFUSED,
 * -EACCES with "cannot reach NAME at PATH".
 */
int client_open(struct client *c, const char *path, const char *user_agent, int wait_ms,
		struct err *err);
void client_close(struct client *c);

/*
 * One request; body NULL for none, else JSON. timeout_ms for the whole answer, -1 for no limit.
 * Any HTTP status is a success of the call. -ETIMEDOUT, -ECONNRESET (ended early), -EPROTO.
 */
int client_call(struct client *c, const char *method, const char *target, const char *body,
		int timeout_ms, struct client_reply *ret, struct err *err);
void client_reply_done(struct client_reply *r);

/* The message of an error reply ({"error":{"message"}} or plain text), borrowed from scratch
 * memory inside err: err is set; returns -errno of the reply's code, 0 when status is 2xx. */
int client_reply_error(const struct client_reply *r, struct err *err);

/*
 * GET target as an endless stream of lines. Then call client_line: 1 and a borrowed line without
 * its newline, valid until the next call; 0 at the end of the stream; -ETIMEDOUT after
 * timeout_ms without a line (-1: none); other -errno.
 */
struct client_stream;
int client_stream_open(struct client *c, const char *target, struct client_stream **ret,
		       struct err *err);
int client_line(struct client_stream *s, int timeout_ms, const char **ret_line, size_t *ret_len,
		struct err *err);
void client_stream_close(struct client_stream *s);

/* text with everything but unreserved characters as %XX; caller frees. */
char *client_escape(const char *text);
