/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to the room: how rows of the property tables are written and how their members are
 * reached. A row names a member and its C type; the compiler refuses a row whose type is wrong.
 */
#pragma once

#include <stddef.h>

#include "model/props.h"

/* Offset of S.field, an error unless it has type T. */
#define ROW_AT(S, field, T)                                                                        \
	(offsetof(S, field) +                                                                      \
	 0 * sizeof(struct {                                                                       \
		 int unused;                                                                       \
		 _Static_assert(__builtin_types_compatible_p(typeof(((S *)0)->field), T),          \
				"row type differs from " #S "." #field);                           \
	 }))

#define ROW_STR(S, key, field)  .name = (key), .type = PROP_STR, .at = ROW_AT(S, field, char *)
#define ROW_BOOL(S, key, field) .name = (key), .type = PROP_BOOL, .at = ROW_AT(S, field, bool)
#define ROW_U32(S, key, field)  .name = (key), .type = PROP_U32, .at = ROW_AT(S, field, uint32_t)
#define ROW_I32(S, key, field)  .name = (key), .type = PROP_I32, .at = ROW_AT(S, field, int32_t)
#define ROW_U64(S, key, field)  .name = (key), .type = PROP_U64, .at = ROW_AT(S, field, uint64_t)
#define ROW_MS(S, key, field)   .name = (key), .type = PROP_MS, .at = ROW_AT(S, field, uint64_t)
#define ROW_MAP(S, key, field)  .name = (key), .type = PROP_MAP, .at = ROW_AT(S, field, json_t *)
#define ROW_LIST(S, key, field)                                                                    \
	.name = (key), .type = PROP_LIST, .at = ROW_AT(S, field, struct str_list)
#define ROW_ENUM(S, key, field, T, table, n)                                                       \
	.name = (key), .type = PROP_ENUM, .at = ROW_AT(S, field, enum T), .names = (table),        \
	.nnames = (n)

#define LIMIT_MAX     1000000000000ll /* bytes or operations a second */
#define CREATE_UPDATE (ON_CREATE | ON_UPDATE)
#define CU_LIVE       (ON_CREATE | ON_UPDATE | LIVE)
#define CU_RESTART    (ON_CREATE | ON_UPDATE | NEEDS_RESTART)

static inline void *row_at(const struct prop *row, const void *element)
{
	return (char *)element + row->at;
}

/* Index of the row in its table, which is its bit in a prop_set. */
static inline size_t row_index(const struct prop_table *t, const struct prop *row)
{
	return (size_t)(row - t->rows);
}

void given_set(struct prop_set *set, size_t bit, bool on);
bool given_get(const struct prop_set *set, size_t bit);

/* Row of a member by its offset; members of struct vm and of elements have exactly one. */
const struct prop *prop_at(const struct prop_table *t, size_t at);
/* Whether a person gave the member of element: GIVEN(&vm_props, vm, ram_mib). */
bool prop_at_given(const struct prop_table *t, const void *element, size_t at);
#define VM_GIVEN(vm, field)   prop_at_given(&vm_props, (vm), offsetof(struct vm, field))
#define DISK_GIVEN(el, field) prop_at_given(&disk_props, (el), offsetof(struct disk, field))
#define NIC_GIVEN(el, field)  prop_at_given(&nic_props, (el), offsetof(struct nic, field))

/* The MAC a NIC gets when none is given; rounds after 0 when that is taken. Caller frees. */
char *mac_of_round(const struct vm *vm, const struct nic *n, unsigned round);

/* The set of given rows of an element of this table. */
struct prop_set *elem_given(const struct prop_table *t, const void *element);

/* The name the row has in the element's definition file. */
const char *elem_spelling(const struct prop_table *t, const void *element, const struct prop *row);
void elem_spelled(const struct prop_table *t, void *element, const struct prop *row,
		  const char *name);

/* Lists of elements of a VM. */
struct elem_list {
	void *const *items;
	size_t count;
};
struct elem_list vm_elements(const struct vm *vm, const struct prop_table *t);
void *vm_add_element(struct vm *vm, const struct prop_table *t); /* NULL when full */
void vm_drop_element(struct vm *vm, const struct prop_table *t, size_t index);
/* Index of the element of this name, -1. */
long vm_element_named(const struct vm *vm, const struct prop_table *t, const char *name);
/* Same value, given or not; for members of rows before PROP_DISKS. */
bool prop_same(const struct prop *row, const void *a, const void *b);
/* The element's name member, NULL while it has none. */
char **elem_name(const struct prop_table *t, void *element);
/* Where in its definition file it stands: keys below the VM's section; empty: nowhere yet. */
struct str_list *elem_ucl_path(const struct prop_table *t, void *element);

/* Put defaults into every member of an element that was all zeroes. */
void prop_defaults(const struct prop_table *t, void *element);
void prop_reset(const struct prop *row, void *element);
void props_done(const struct prop_table *t, void *element);
/* dst is a byte copy of src: give it its own strings, lists and maps. */
void props_copy(const struct prop_table *t, void *dst, const void *src);
void str_list_copy(struct str_list *dst, const struct str_list *src);
bool prop_is_default(const struct prop *row, const void *element);

/* The member as JSON, whatever the row's show; NULL for none (unset string, empty list). */
json_t *prop_json(const struct prop *row, const void *element);
/* Rows of one element as its JSON object shows them. */
json_t *props_json(const struct prop_table *t, const void *element, bool secrets);
