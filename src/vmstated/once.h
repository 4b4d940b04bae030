/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holds for one boot only, what waits for the next one, and what a start would be; once.c and
 * dryrun.c.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct err;
struct guest;
struct http_request;
struct supervisor;
struct vm;

/*
 * "order" and "media" of a start's body, checked; NULL when neither is there. New reference. admin:
 * any file of the host may be a medium.
 */
int once_take(const struct guest *g, const json_t *body, bool admin, json_t **ret, struct err *err);
/* Lay it over a definition; once may be NULL. */
int once_apply(struct vm *vm, const json_t *once, struct err *err);
/* The definition as UCL without what once_apply added to it; the caller's. */
char *once_definition(struct vm *vm);
/* g->started becomes the definition as it is now, with once (borrowed, may be NULL) over it. */
int guest_take_definition(struct guest *g, const json_t *once, struct err *err);
/* [{path, old, new, live: false}]: what the next start will change. New reference. */
json_t *guest_pending(const struct guest *g);

/* Answer with the arguments QEMU would get for vm (taken) now: {"argv":[...],"text"}. */
void dryrun_reply(struct supervisor *sup, struct http_request *req, struct vm *vm);
