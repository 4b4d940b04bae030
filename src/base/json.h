/* SPDX-License-Identifier: Apache-2.0 */
/* What jansson leaves to say: bounded parsing with our error text, cleanup, exact compact text. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct err;

static inline void auto_json_fn(json_t **j)
{
	json_decref(*j);
}

#define AUTO_JSON __attribute__((cleanup(auto_json_fn)))

#define JSON_TEXT_MAX (8u << 20) /* bytes of any JSON text we take */

/*
 * Parse text[len]; duplicate keys, more than JSON_TEXT_MAX bytes and any other fault are -EINVAL
 * or -E2BIG with "WHAT:LINE:COLUMN: reason". The caller owns *ret.
 */
int json_parse(const char *text, size_t len, const char *what, json_t **ret, struct err *err);

/* As json_parse, and anything but an object is refused. */
int json_parse_object(const char *text, size_t len, const char *what, json_t **ret,
		      struct err *err);

/* Compact text, key order kept, reals as people write them; caller frees. */
char *json_text(const json_t *j);
/* Indented by two. */
char *json_pretty(const json_t *j);

/* Member as text, or fallback when it is absent or no string. Borrowed. */
const char *json_get_str(const json_t *obj, const char *key, const char *fallback);
json_int_t json_get_int(const json_t *obj, const char *key, json_int_t fallback);
bool json_get_bool(const json_t *obj, const char *key, bool fallback);

/* Set key to text; NULL removes it. */
void json_put_str(json_t *obj, const char *key, const char *text);
void json_put_int(json_t *obj, const char *key, json_int_t value);
void json_put_bool(json_t *obj, const char *key, bool value);
