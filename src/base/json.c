/* SPDX-License-Identifier: Apache-2.0 */
/* JSON helpers; see json.h. */
#include "base/json.h"

#include <errno.h>

#include "base/err.h"
#include "base/mem.h"

int json_parse(const char *text, size_t len, const char *what, json_t **ret, struct err *err)
{
	json_error_t je;
	json_t *j;

	if (len > JSON_TEXT_MAX)
		return err_set(err, E2BIG, "%s: larger than %u bytes", what, JSON_TEXT_MAX);
	j = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
	if (!j)
		return err_set(err, EINVAL, "%s:%d:%d: %s", what, je.line > 0 ? je.line : 1,
			       je.column > 0 ? je.column : 1, je.text);
	*ret = j;
	return 0;
}

int json_parse_object(const char *text, size_t len, const char *what, json_t **ret, struct err *err)
{
	static const char *const names[] = {
		[JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
		[JSON_INTEGER] = "a number", [JSON_REAL] = "a number",  [JSON_TRUE] = "true",
		[JSON_FALSE] = "false",      [JSON_NULL] = "null",
	};
	json_t *j;
	int r = json_parse(text, len, what, &j, err);

	if (r < 0)
		return r;
	if (!json_is_object(j)) {
		r = err_set(err, EINVAL, "%s: is %s (want a JSON object)", what,
			    names[json_typeof(j)]);
		json_decref(j);
		return r;
	}
	*ret = j;
	return 0;
}

char *json_text(const json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

	return text ? text : xstrdup("null");
}

char *json_pretty(const json_t *j)
{
	char *text = json_dumps(j, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

	return text ? text : xstrdup("null");
}

const char *json_get_str(const json_t *obj, const char *key, const char *fallback)
{
	const char *text = json_string_value(json_object_get(obj, key));

	return text ? text : fallback;
}

json_int_t json_get_int(const json_t *obj, const char *key, json_int_t fallback)
{
	const json_t *j = json_object_get(obj, key);

	return json_is_integer(j) ? json_integer_value(j) : fallback;
}

bool json_get_bool(const json_t *obj, const char *key, bool fallback)
{
	const json_t *j = json_object_get(obj, key);

	return json_is_boolean(j) ? json_is_true(j) : fallback;
}

void json_put_str(json_t *obj, const char *key, const char *text)
{
	if (text)
		(void)json_object_set_new(obj, key, json_string(text));
	else
		(void)json_object_del(obj, key);
}

void json_put_int(json_t *obj, const char *key, json_int_t value)
{
	(void)json_object_set_new(obj, key, json_integer(value));
}

void json_put_bool(json_t *obj, const char *key, bool value)
{
	(void)json_object_set_new(obj, key, json_boolean(value));
}
