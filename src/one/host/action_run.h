/* SPDX-License-Identifier: Apache-2.0 */
/* Programs an action runs: scripts beside the actions (save.TM, restore.TM), ssh. */
#pragma once

#include <stddef.h>

struct call;
struct err;
struct strbuf;

/*
 * Run "NAME.TM" of the actions' folder, TM being the system datastore's transfer driver, with the
 * call's own arguments and message; none there is fine. -EIO when it fails, with what it said.
 */
int action_hook(struct call *call, const char *name, struct err *err);

/*
 * Run argv[0], found by PATH, with text[len] as its standard input, for at most limit_ms. ret (may
 * be NULL) gets its standard output. -EIO with what it complained of, -ETIMEDOUT.
 */
int action_program(char *const argv[], const char *text, size_t len, int limit_ms,
		   struct strbuf *ret, struct err *err);

/* The same on another host, by ssh; a host's name that ssh would take for an option is -EINVAL. */
int action_remote(const char *host, const char *command, const char *text, size_t len, int limit_ms,
		  struct strbuf *ret, struct err *err);
