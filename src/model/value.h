/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to the room: one value from outside into one member. A value that is refused leaves the
 * member as it was, adds the finding, and counts as given, so that nobody calls it missing too.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "model/props.h"

struct problems;
struct ucl_value;

struct slot {
	const struct prop_table *t;
	const struct prop *row;
	void *el; /* struct vm, disk, nic, console */
	const char *where;
	const char *key; /* as validate names it; NULL: the row's name */
	struct problems *p;
};

/* All: 0 or -EINVAL with a finding. Text: as typed on a command line or written in UCL. */
int slot_text(const struct slot *s, const char *text);
int slot_json(const struct slot *s, const json_t *j); /* null and "" unset */
int slot_ucl(const struct slot *s, const struct ucl_value *v);
void slot_unset(const struct slot *s);

/*
 * Text of a number in the row's unit: "2048", "2G", "1.5g", "512mb" for sizes (suffixes are
 * 1024-based), "0x20" otherwise. -EINVAL no number, -ERANGE outside the row's bounds or no whole
 * number of units.
 */
int number_parse(const struct prop *row, const char *text, int64_t *ret);

/* Seconds, or a number with ms, s, min, h, d, w, into milliseconds. -EINVAL, -ERANGE. */
int time_parse(const struct prop *row, const char *text, uint64_t *ret_ms);

/* Six octets with two lower-case digits; nonsense for what is no MAC. Caller frees. */
char *mac_normal(const char *text);

/* Bounds, check function, length of a member that is there; for vm_validate. */
void slot_check(const struct slot *s);

/* "unknown property 'x' (did you mean 'y'?)" or "'x' cannot be set ...": never settable here. */
void problem_unknown(const struct prop_table *t, const char *name, bool ucl, const char *where,
		     const char *key, struct problems *p);

/* A foreign string for messages: control characters escaped, cut to a readable length. */
char *shown(const char *text);
char *shown_json(const json_t *j);
/* value is not as it should be: "'V' is not a WHAT (want WANT)". */
void problem_value(struct problems *p, const char *where, const char *key, const char *value,
		   const char *text);
