/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as UCL: the parser gives a tree or a fault with a position; the tree as JSON is UCL
 * again and reads back equal; edits leave a text that parses, or refuse. Includes are not
 * followed, so that no input reaches the file system.
 */
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "ucl/edit.h"
#include "ucl/ucl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const vars[][2] = {{"ABI", "unknown"}, {"ABIX", ""}};

/* A broken promise, told before the abort that the fuzzer catches. */
static void require(bool ok, const char *what, const char *detail)
{
	if (ok)
		return;
	(void)fprintf(stderr, "broken: %s: %s\n", what, detail);
	abort();
}

static bool is_finite(const struct ucl_value *v)
{
	if (v->type == UCL_FLOAT || v->type == UCL_TIME)
		return isfinite(v->real);
	if (v->type != UCL_ARRAY && v->type != UCL_OBJECT)
		return true;
	for (size_t i = 0; i < v->count; i++)
		if (!is_finite(v->items[i]))
			return false;
	return true;
}

/* Every position lies in the text, and values enclose their members. */
static void check_spans(const struct ucl_value *v, size_t from, size_t to)
{
	require(v->start >= from && v->start <= v->end && v->end <= to, "span", v->pos.file);
	require(v->pos.line > 0 && v->pos.column > 0, "position", v->pos.file);
	require(v->key.line > 0 && v->key.column > 0, "key position", v->pos.file);
	if (v->type != UCL_ARRAY && v->type != UCL_OBJECT)
		return;
	for (size_t i = 0; i < v->count; i++) {
		const struct ucl_value *item = v->items[i];

		if (!v->implicit && !(item->type == UCL_ARRAY && item->implicit))
			check_spans(item, v->start, v->end);
		else
			check_spans(item, from, to);
	}
}

static void check_json(const struct ucl_value *root)
{
	AUTO_FREE char *json = ucl_to_json(root);
	struct ucl_doc *doc = NULL;
	struct err err = {0};
	int r;

	/* What JSON cannot say, and variables, which would be replaced a second time. */
	if (!is_finite(root) || strchr(json, '$'))
		return;
	r = ucl_parse("json", json, strlen(json), NULL, &doc, &err);
	if (r == -E2BIG) /* implicit arrays add levels, escapes add bytes */
		return;
	require(r == 0, "JSON does not parse", err.msg);
	require(ucl_equal(root, ucl_root(doc)), "JSON reads differently", json);
	ucl_free(doc);
}

static void check_edit(const char *text, size_t len, const char *const *path, const char *value)
{
	struct ucl_edit edit = {value ? UCL_EDIT_SET : UCL_EDIT_REMOVE, path, value};
	AUTO_FREE char *got = NULL;
	struct ucl_doc *doc = NULL;
	struct err err = {0};
	int r = ucl_edit("f", text, len, &edit, 1, &got, &err);

	if (r < 0) {
		require(err.msg[0] != '\0', "refused without a reason", text);
		return;
	}
	r = ucl_parse("f", got, strlen(got), NULL, &doc, &err);
	require(r == 0, "an edit broke the text", err.msg);
	ucl_free(doc);
}

/* The path of the last value, by the last member of each object. */
static void check_edits(const struct ucl_value *root, const char *text, size_t len)
{
	static const char *const added[] = {"web0", "disk", "new", NULL};
	const char *path[UCL_DEPTH_MAX + 3] = {0};
	const struct ucl_value *v = root;
	size_t depth = 0;

	if (root->type != UCL_OBJECT)
		return;
	while (v->type == UCL_OBJECT && v->count > 0 && depth < UCL_DEPTH_MAX) {
		path[depth++] = v->keys[v->count - 1];
		v = v->items[v->count - 1];
		if (v->type == UCL_ARRAY && v->count > 0)
			v = v->items[0];
	}
	check_edit(text, len, added, "{ size = 1; }");
	if (depth == 0)
		return;
	check_edit(text, len, path, "2G");
	check_edit(text, len, path, NULL);
	path[depth] = "added";
	check_edit(text, len, path, "\"x\"");
	path[depth] = "0";
	check_edit(text, len, path, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ucl_options opt = {.vars = vars, .nvars = 2, .no_includes = true};
	const char *text = (const char *)data;
	struct ucl_doc *doc = NULL;
	struct err err = {0};
	int r;

	opt.fold_keys = size % 2 == 0;
	r = ucl_parse("dir/fuzz", text, size, &opt, &doc, &err);
	if (r < 0) {
		require(r == -err.code && str_starts(err.msg, "dir/fuzz:"), "message", err.msg);
		return 0;
	}
	check_spans(ucl_root(doc), 0, size);
	check_json(ucl_root(doc));
	/* Edits follow includes; texts that could hold one were refused above. */
	check_edits(ucl_root(doc), text, size);
	ucl_free(doc);
	return 0;
}
