/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by client.c and client_stream.c only. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct err;
struct http_parse;

#define CLIENT_NO_DEADLINE UINT64_MAX

/* "vminfod" of ".../vminfod.http", written to buf. */
const char *client_daemon_name(const char *path, char *buf, size_t size);
uint64_t client_deadline(int timeout_ms);
/* Make sure c is connected, then send the request. */
int client_send_request(struct client *c, const char *const *method_target, const char *body,
			uint64_t deadline, struct err *err);
/* Read once and feed p: 1 when bytes came, 0 at the peer's close. */
int client_receive(struct client *c, struct http_parse *p, uint64_t deadline, struct err *err);
