/* SPDX-License-Identifier: Apache-2.0 */
/* A parsed document: its memory, and what readers ask of it; see ucl.h and doc.h. */
#include "ucl/doc.h"

#include <math.h>
#include <stdalign.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"

#define BLOCK_MIN  1024u
#define BLOCK_MAX  65536u
#define FIRST_ROOM 4u /* pointers of a list when it begins */

static struct ucl_block *add_block(struct ucl_doc *doc, size_t want)
{
	size_t size = want > doc->block_size ? want : doc->block_size;
	struct ucl_block *b;

	size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	b = xmalloc(sizeof(*b) + size);
	b->next = doc->blocks;
	b->low = 0;
	b->high = b->size = size;
	doc->blocks = b;
	doc->bytes += size;
	doc->block_size = doc->bytes / 2 < BLOCK_MIN ? BLOCK_MIN : doc->bytes / 2;
	if (doc->block_size > BLOCK_MAX)
		doc->block_size = BLOCK_MAX;
	return b;
}

struct ucl_doc *ucl_doc_new(size_t len)
{
	struct ucl_doc *doc = xcalloc(1, sizeof(*doc));

	/* A value costs some hundred bytes with its key and takes some twenty in the text. */
	doc->block_size = len > BLOCK_MAX / 8 ? BLOCK_MAX : len * 8;
	if (doc->block_size < BLOCK_MIN)
		doc->block_size = BLOCK_MIN;
	return doc;
}

void ucl_free(struct ucl_doc *doc)
{
	struct ucl_block *next;

	if (!doc)
		return;
	for (struct ucl_block *b = doc->blocks; b; b = next) {
		next = b->next;
		free(b);
	}
	free(doc);
}

void *ucl_alloc(struct ucl_doc *doc, size_t size)
{
	struct ucl_block *b = doc->blocks;
	void *at;

	size = (size + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
	if (!b || b->high - b->low < size)
		b = add_block(doc, size);
	at = (char *)b->data + b->low;
	b->low += size;
	return memset(at, 0, size);
}

char *ucl_alloc_text(struct ucl_doc *doc, size_t len)
{
	struct ucl_block *b = doc->blocks;
	char *at;

	if (!b || b->high - b->low < len + 1)
		b = add_block(doc, len + 1);
	b->high -= len + 1;
	at = (char *)b->data + b->high;
	at[len] = '\0';
	return at;
}

char *ucl_strndup(struct ucl_doc *doc, const char *text, size_t len)
{
	char *copy = ucl_alloc_text(doc, len);

	if (len)
		memcpy(copy, text, len);
	return copy;
}

void *ucl_grow(struct ucl_doc *doc, void *old, size_t count)
{
	bool full = count == 0 || (count >= FIRST_ROOM && (count & (count - 1)) == 0);
	size_t room = count < FIRST_ROOM ? FIRST_ROOM : 2 * count;
	void *grown;

	if (!full)
		return old;
	grown = ucl_alloc(doc, room * sizeof(void *));
	if (count)
		memcpy(grown, old, count * sizeof(void *));
	return grown;
}

void ucl_array_add(struct ucl_doc *doc, struct ucl_value *array, struct ucl_value *v)
{
	array->items = ucl_grow(doc, array->items, array->count);
	array->items[array->count++] = v;
}

const char *ucl_doc_file(struct ucl_doc *doc, const char *name)
{
	for (size_t i = 0; i < doc->nfiles; i++)
		if (str_eq(doc->files[i], name))
			return doc->files[i];
	doc->files = ucl_grow(doc, doc->files, doc->nfiles);
	doc->files[doc->nfiles] = ucl_strndup(doc, name, strlen(name));
	return doc->files[doc->nfiles++];
}

const char *ucl_doc_folder(struct ucl_doc *doc, const char *name)
{
	const char *slash = strrchr(name, '/');

	if (!slash)
		return ".";
	return ucl_strndup(doc, name, slash == name ? 1 : (size_t)(slash - name));
}

const struct ucl_value *ucl_root(const struct ucl_doc *doc)
{
	return doc->root;
}

size_t ucl_files(const struct ucl_doc *doc, const char *const **ret_names)
{
	*ret_names = doc->files;
	return doc->nfiles;
}

const struct ucl_value *ucl_get(const struct ucl_value *v, const char *key)
{
	if (!v || v->type != UCL_OBJECT)
		return NULL;
	for (size_t i = 0; i < v->count; i++)
		if (strcmp(v->keys[i], key) == 0)
			return v->items[i];
	return NULL;
}

const char *ucl_type_name(enum ucl_type type)
{
	static const char *const names[] = {
		[UCL_NULL] = "null",      [UCL_BOOL] = "a boolean",   [UCL_INT] = "a number",
		[UCL_FLOAT] = "a number", [UCL_TIME] = "a time",      [UCL_STRING] = "a string",
		[UCL_ARRAY] = "an array", [UCL_OBJECT] = "an object",
	};

	return names[type];
}

char *ucl_where(const struct ucl_pos *pos)
{
	return xasprintf("%s:%d:%d", pos->file, pos->line, pos->column);
}

static bool is_real(const struct ucl_value *v)
{
	return v->type == UCL_FLOAT || v->type == UCL_TIME;
}

static bool lists_equal(const struct ucl_value *a, const struct ucl_value *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		const struct ucl_value *other = b->items[i];

		/* The same order is the rule, so look there first. */
		if (a->type == UCL_OBJECT && strcmp(a->keys[i], b->keys[i]) != 0)
			other = ucl_get(b, a->keys[i]);
		if (!other || !ucl_equal(a->items[i], other))
			return false;
	}
	return true;
}

bool ucl_equal(const struct ucl_value *a, const struct ucl_value *b)
{
	if (is_real(a) && is_real(b)) /* a time is the number of its seconds */
		return a->real == b->real || (isnan(a->real) && isnan(b->real));
	if (a->type != b->type)
		return false;
	switch (a->type) {
	case UCL_NULL:
	case UCL_FLOAT:
	case UCL_TIME:
		return true;
	case UCL_BOOL:
		return a->boolean == b->boolean;
	case UCL_INT:
		return a->integer == b->integer;
	case UCL_STRING:
		return strcmp(a->string, b->string) == 0;
	case UCL_ARRAY:
	case UCL_OBJECT:
		return lists_equal(a, b);
	}
	return false;
}
