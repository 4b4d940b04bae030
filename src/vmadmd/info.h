/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members of "vmadm info": which QMP query each comes from, and how today's answers become
 * the members people know. Pure. Source: smartos facts 5.3, qemu facts section 3.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>

struct err;

struct info_type {
	const char *name;
	const char *command;                 /* QMP; NULL: not asked from QEMU */
	json_t *(*map)(const json_t *value); /* a new reference; NULL: the answer as it is */
};

/* In the order of the answer. */
extern const struct info_type info_types[];
#define INFO_TYPE_COUNT 10

/*
 * Bits (index of the row) of a list such as "block,vnc"; NULL, "" and "all" are all of them.
 * -EINVAL "unknown info type X".
 */
int info_parse(const char *list, unsigned *ret_mask, struct err *err);

/* Index of the row of that name, which must be there. */
size_t info_row(const char *name);

/* QEMU's answer as the member; JSON null for what is not of the expected kind. New reference. */
json_t *info_map(size_t type, const json_t *value);
