/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and stopping many guests in the order of `after`. Source: design 4. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guest;
struct supervisor;

/* Start what has autostart: each once all of its `after` run or are ready, or its readytimeout is
 * over; then it is started all the same. */
void order_autostart(struct supervisor *sup);
/* A guest's state changed: start who waited for it. */
void order_check(struct supervisor *sup);
void order_forget(struct guest *g);
void order_free(struct supervisor *sup);

/*
 * Stop every guest that no other running guest waits for. grace_ms < 0: each its
 * own stoptimeout. Returns how many are not at rest yet; call again whenever one ended.
 */
size_t order_stop_next(struct supervisor *sup, int64_t grace_ms);
