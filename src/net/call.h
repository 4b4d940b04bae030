/* SPDX-License-Identifier: Apache-2.0 */
/* One asynchronous HTTP request to another daemon's unix socket. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct err;
struct call;

/*
 * r: 0 and a status, or -ETIMEDOUT, -ECONNREFUSED, ...; with err's text. body is NUL-terminated
 * and borrowed. The call is dead after this returned.
 */
typedef void (*call_done)(void *ctx, int r, int status, const char *body, size_t len,
			  const struct err *err);

/* All borrowed for the length of call_start. */
struct call_request {
	const char *socket; /* path */
	const char *method, *target;
	const char *body;    /* JSON, NULL for none */
	uint64_t timeout_ms; /* 0: none */
};

/*
 * Send it; done runs exactly once, never before this returns. Any failure to connect is reported
 * through done as well.
 */
struct call *call_start(sd_event *event, const struct call_request *request, call_done done,
			void *ctx);
/* Forget it: done will not run. */
void call_cancel(struct call *c);
