/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS in the place of ssh: a process of ours carries the three sockets of another vmadmd here, and
 * what comes in over TCP there is carried to them. docs/migration.md.
 */
#pragma once

#include "daemon/child.h"

struct err;
struct vmadmd;

#define PEER_READY "drover-ready\n" /* said by what carries, when the other side was reached */

/* The side that calls; all borrowed, copied by the fork. */
struct peer_tunnel {
	const struct vmadmd *d;
	const char *uuid, *host, *port;
	const char *http, *incoming, *nbd; /* sockets to be made, in the run directory */
	int in, out;                       /* its input, at whose end it ends; what it says */
};
int peer_tls_spawn(const struct peer_tunnel *t, child_done done, void *ctx, struct child **ret,
		   struct err *err);

/* The side that is called: at "ADDRESS:PORT" of --tls, once the loop is there. */
struct peer_server;
int peer_server_new(struct vmadmd *d, const char *at, struct peer_server **ret, struct err *err);
int peer_server_open(struct peer_server *s, struct err *err);
void peer_server_free(struct peer_server *s); /* NULL is fine */
/* HOST:PORT, also [ADDRESS]:PORT, in two; the caller frees both. -EINVAL. */
int peer_split(const char *at, char **ret_host, char **ret_port, struct err *err);
