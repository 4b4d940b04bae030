/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vminfod answers, as the original does where it does: GET only, every answer typed
 * application/json, plain texts for what is not found. Contract: docs/wire-vminfod.md.
 */
#pragma once

#include "net/http.h"
#include "vminfod/status.h"

#define VMINFOD_ROUTES 10
extern const struct http_route vminfod_routes[VMINFOD_ROUTES];

/* Context of the handlers is struct status_of. */
void routes_before(void *ctx);
void routes_fallback(struct http_request *req, void *ctx);
