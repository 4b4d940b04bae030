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

/*
 * Send it; done runs exactly once, never before this returns. Any failure to connect is reported
 * through done as well. body may be NULL. timeout_ms 0: none.
 */
struct call *call_start(sd_event *event, const char *socket, const char *method, const char *target,
			const char *body, uint64_t timeout_ms, call_done done, void *ctx);
/* Forget it: done will not run. */
void call_cancel(struct call *c);
