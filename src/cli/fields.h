/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields as `vmadm list` and `lookup` name them ("ram", "disks.0.size", "nics.*.mac", "tags.k"),
 * and filters over them. What exists comes from the property tables. Source: vmadm(8), "list",
 * "lookup"; smartos facts 6.3-6.5.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/pattern.h"
#include "cli/js.h"

struct err;

enum field_kind { FIELD_TOP, FIELD_ELEMENT, FIELD_MAP };

#define FIELD_ANY ((size_t)-1)

struct field {
	char *text; /* as given */
	enum field_kind kind;
	char *member; /* of the VM object */
	size_t index; /* of an element, or FIELD_ANY */
	char *key;    /* of an element or map; "*" in a map: any */
	char *header;
	int width;
	size_t at; /* of the member in the query's matrix, see rows.h */
};

/* -EINVAL when there is no such field. */
int field_parse(const char *text, struct field *ret);
void field_done(struct field *f);
/* More than one value may match ("*"): not for columns. */
bool field_is_wild(const struct field *f);

/* The value inside the VM object's member; absent when there is none. */
struct slice field_value(const struct field *f, struct slice member);

/* Text of a value as a filter compares it (false is "false"); caller frees. */
char *field_text(struct slice v);
/* Text of a cell: missing, null, false and empty are "". */
char *field_cell(struct slice v);
/* Order of two values: numbers by value, text by bytes; missing and falsy last. */
int field_compare(struct slice a, struct slice b);

struct filter {
	struct field field;
	struct pattern want;
};

#define FILTER_REGEX_MAX 1024 /* bytes */

/*
 * "key=value" or "key=~regex". -EINVAL with no message for a key that does not exist (the caller
 * knows the words), else -EBADMSG with one.
 */
int filter_parse(const char *text, struct filter *ret, struct err *err);
void filter_done(struct filter *f);
bool filter_match(const struct filter *f, struct slice member);
