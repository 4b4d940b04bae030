/* SPDX-License-Identifier: Apache-2.0 */
/* Findings of a validation; see problems.h. */
#include "base/problems.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define PROBLEMS_MAX 1000 /* a hostile input may hold a million mistakes */

void problems_done(struct problems *p)
{
	for (size_t i = 0; i < p->count; i++) {
		free(p->items[i].where);
		free(p->items[i].key);
		free(p->items[i].text);
	}
	free(p->items);
	*p = (struct problems){0};
}

static struct problem *grow(struct problems *p, enum problem_kind kind)
{
	if (kind != PROBLEM_WARNING)
		p->errors++;
	if (p->count >= PROBLEMS_MAX)
		return NULL;
	p->items = xrealloc(p->items, (p->count + 1) * sizeof(*p->items));
	return &p->items[p->count++];
}

void problems_add(struct problems *p, enum problem_kind kind, const char *where, const char *key,
		  const char *fmt, ...)
{
	struct problem *item = grow(p, kind);
	char *text = NULL;
	va_list ap;

	if (!item)
		return;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	*item = (struct problem){.kind = kind,
				 .where = xstrdup(where ? where : ""),
				 .key = xstrdup(key),
				 .text = text};
}

void problems_join(struct problems *p, struct problems *from)
{
	for (size_t i = 0; i < from->count; i++) {
		struct problem *item = grow(p, from->items[i].kind);

		if (item) {
			*item = from->items[i];
			from->items[i] = (struct problem){0};
		}
	}
	problems_done(from);
}

/* A place in a file does not tell the property; a JSON path does. */
static bool needs_key(const struct problem *item)
{
	return item->key && strchr(item->where, ':') && !strstr(item->text, item->key);
}

void problem_print(struct strbuf *sb, const struct problem *item)
{
	strbuf_printf(sb, "%s%s", item->where, item->where[0] ? ": " : "");
	if (needs_key(item))
		strbuf_printf(sb, "%s: ", item->key);
	strbuf_puts(sb, item->text);
}

static char *text_of(const struct problems *p, int passes)
{
	struct strbuf sb = {0};

	for (int pass = 0; pass < passes; pass++) {
		for (size_t i = 0; i < p->count; i++) {
			const struct problem *item = &p->items[i];

			if ((item->kind == PROBLEM_WARNING) != (pass == 1))
				continue;
			if (sb.len)
				strbuf_puts(&sb, "; ");
			problem_print(&sb, item);
		}
	}
	return strbuf_steal(&sb);
}

char *problems_text(const struct problems *p)
{
	return text_of(p, 2);
}

int problems_to_err(const struct problems *p, struct err *err)
{
	AUTO_FREE char *text = NULL;

	if (p->errors == 0)
		return 0;
	text = text_of(p, 1);
	return err_set(err, EINVAL, "%s", text);
}
