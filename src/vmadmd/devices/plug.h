/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the difference of two definitions a running machine takes: disks and NICs in and out,
 * media of CD drives, growth, limits, cables, the balloon. QEMU is asked what it has, so nothing
 * needs to be remembered over our own end.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "vmadmd/devices/trans.h"

struct err;
struct guest;
struct plug;
struct vm;

/* Is there anything a running machine would take? */
bool plug_wanted(const struct vm *old, const struct vm *new);
/*
 * Ask what the machine has and make the plan; done runs once, from the loop, and nothing was
 * changed. Both VMs are copied. force: a locked CD drive is opened.
 */
struct plug *plug_plan(struct guest *g, const struct vm *old, const struct vm *new, bool force,
		       trans_done done, void *ctx);
bool plug_empty(const struct plug *p); /* nothing is to be done */
/* The plan, for a journal: {steps, names, zoneid (the start of this machine)}. New reference. */
json_t *plug_journal(const struct plug *p);
/* Run it; done runs once, from the loop, with all of it done or none. */
void plug_run(struct plug *p, trans_done done, void *ctx);
void plug_undo(struct plug *p, trans_done done, void *ctx);
/* It was not taken back as a whole: the machine keeps something of it. NULL: no. */
bool plug_half(const struct plug *p);
void plug_stop(struct plug *p, int r, const struct err *why);
void plug_free(struct plug *p); /* NULL is fine; not while it works */
/*
 * The plan of a journal, of which any part was run by who is gone: what the machine has of it is
 * taken out, what it lacks is put back. journal is borrowed until plug_free.
 */
struct plug *plug_cut_short(struct guest *g, const json_t *journal, trans_done done, void *ctx);

/* Did it apply the change at that path ("disks[/srv/a.raw]")? */
bool plug_covers(const struct plug *p, const char *path);
/* {"disks":[names], "nics":[names]} of the elements it put in, took out or changed. Borrowed. */
const json_t *plug_names(const struct plug *p);

/* What QEMU is not told at its start: limits, pulled cables, the balloon. When the monitor is
 * ready. */
void plug_settle(struct guest *g);
