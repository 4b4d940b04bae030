/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An action being carried out: its commands one after the other, the roll-back when one fails, one
 * answer at the end. Pulled along by run_turn(); nothing here waits.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct driver_options;
struct graveyard;
struct message;
struct out;
struct run;

#define RUN_POLLS 12 /* descriptors of one */

/* Takes what m owns. A message that makes no plan is answered by the first turn. */
struct run *run_new(struct message *m, const struct driver_options *o, struct graveyard *g);
/* What is still running is left alone; no answer is given. */
void run_free(struct run *run);

long run_id(const struct run *run);
const char *run_host(const struct run *run);

/*
 * Do what can be done now. True when the action was answered: free it. Else *next_ms is lowered
 * to when to come again at the latest.
 */
bool run_turn(struct run *run, struct out *out, uint64_t now_ms, uint64_t *next_ms);

/* Fill fds[RUN_POLLS]; returns how many. */
size_t run_polls(const struct run *run, struct pollfd *fds);
