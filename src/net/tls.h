/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS between two hosts that know each other by one CA: both show a certificate of it, the
 * server's for the host name asked for. Everything here blocks, with limits: for processes of
 * their own. Errors name the certificate and what is wrong with it.
 */
#pragma once

#include <stddef.h>

struct err;
struct tls;

struct tls_files { /* PEM; borrowed */
	const char *ca, *cert, *key;
};

#define TLS_LINE_MAX 256u

/* Can they be loaded, and do they fit? -EKEYREJECTED, -ENOENT, ... */
int tls_check(const struct tls_files *files, struct err *err);

/* host: name or address; port: text. -ECONNREFUSED, -ETIMEDOUT, -EKEYREJECTED: a certificate. */
int tls_connect(const struct tls_files *files, const char *host, const char *port, struct tls **ret,
		struct err *err);
/* fd: a connection that came in; it is the session's, also on failure. */
int tls_accept(const struct tls_files *files, int fd, struct tls **ret, struct err *err);
void tls_free(struct tls *t); /* NULL is fine */

/* Without the newline, NUL-terminated in text; longer ones than size allows are -E2BIG. */
int tls_recv_line(struct tls *t, char *text, size_t size, struct err *err);
int tls_send(struct tls *t, const void *data, size_t len, struct err *err);
/* At most size bytes, 0 at its end. */
int tls_recv(struct tls *t, void *data, size_t size, struct err *err);

/* Carry bytes between t and fd, either way, until both have ended or one fails. */
void tls_relay(struct tls *t, int fd);
