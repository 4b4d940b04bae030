/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the room: reading elements from JSON, for create and update alike. */
#pragma once

#include <jansson.h>

#include "model/props.h"

struct problems;

/*
 * New elements of vm from an array at `where` ("disks", "add_nics"), by the rules of creation:
 * no path without nocreate, a model given or inherited.
 */
void payload_add_elements(struct vm *vm, const struct prop_table *t, const json_t *array,
			  const char *where, struct problems *p);

/* One member of an element: `allowed` are the prop_set_flags of which its row needs one. */
void payload_member(const struct prop_table *t, void *el, const char *name, const json_t *value,
		    unsigned allowed, const char *where, struct problems *p);

/* "nics.*.mac" or "disks.0.size" of a row, from "nics" and 0; caller frees. */
char *payload_key(const char *list, size_t index, const struct prop *row, const char *name);
