/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM object as it is kept: compact JSON text and where its top-level members are in it. A tree
 * would take six times the memory. Pure functions.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"

struct member {
	uint32_t start, end; /* "key":value, the quote of the key first */
	uint16_t key_len;
};

struct text {
	char *data; /* NULL: none */
	uint32_t len;
	uint16_t nmembers;
	struct member *members;
};

/* Takes data (malloc), one compact JSON object as json_text makes it. */
void text_set(struct text *t, char *data);
void text_done(struct text *t);

/* Names of members to show; at most FIELDS_MAX. */
#define FIELDS_MAX 64
struct fields {
	const char *names[FIELDS_MAX];
	size_t lens[FIELDS_MAX];
	size_t count;
};

/* Split "a,b,c"; the names point into list. false when there are too many. */
bool fields_parse(const char *list, struct fields *ret);

/* Append the object with just these members, in its own order; all of it without fields. */
void text_put(const struct text *t, const struct fields *fields, struct strbuf *to);

/* The value of one member as it lies in t, NULL when there is none. */
const char *text_value(const struct text *t, const char *name, size_t *ret_len);

/*
 * What everybody may see of a VM object: no passwords, internal_metadata empty, no key of
 * customer_metadata that ends in _pw. NULL when nothing of that is in it, else a new object.
 */
json_t *object_without_secrets(const json_t *object);

/* text[len] as a JSON string, quotes included. text must be UTF-8 without control characters. */
void put_quoted(struct strbuf *to, const char *text, size_t len);
