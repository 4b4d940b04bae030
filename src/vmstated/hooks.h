/* SPDX-License-Identifier: Apache-2.0 */
/* Hooks of a guest, and what they print. */
#pragma once

#include <jansson.h>

struct err;
struct guest;

/* --- hooks.c --- */
#define HOOKS_OF_RESET "reset" /* in place of a hook's name: those of the whole restart chain */

/* Run the hooks of a state; ends with EV_HOOK_DONE or EV_HOOK_FAILED, at once when there are none.
 */
void hooks_run(struct guest *g, const char *hook, const char *event);
/* All hooks of a VM that a start would refuse: no regular, executable file of a trusted owner. */
struct problems;
void hooks_check(const struct vm *vm, struct problems *p);
/*
 * After our predecessor was killed, in two steps: g->hooks is there again if hooks of g->hooks_due
 * are not through; then go on: wait for the one that runs, take what one that ended meanwhile
 * left, start the one that never was. state: what hooks_state gave, or NULL.
 */
void hooks_take_up(struct guest *g, const json_t *state);
void hooks_resume(struct guest *g);
json_t *hooks_state(const struct guest *g); /* NULL when none runs */
void hooks_free(struct guest *g);
const char *hooks_running(const struct guest *g);

/* --- hookout.c: what hooks print, and what they left behind prints --- */
int hookout_open(struct guest *g, struct err *err);
/* hook is about to start: descriptors for its stdout and stderr, the caller's; -1 on failure. */
void hookout_begin(struct guest *g, const char *hook, int *ret_out, int *ret_err);
void hookout_end(struct guest *g); /* it ended: all it wrote is in the log now */
/* No hook runs: go on reading only if something still holds the other end. */
void hookout_rest(struct guest *g);
void hookout_resume(struct guest *g); /* something may have been left behind before our time */
void hookout_free(struct guest *g);
