/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A UCL tree as compact JSON: implicit arrays as arrays, times as seconds, NaN and infinities
 * (which JSON lacks) as null. Bytes of strings that are no UTF-8 pass as they are.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "ucl/ucl.h"

static void put_string(struct strbuf *sb, const char *text)
{
	static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* character, letter, ... */
	const char *from = text;

	strbuf_putc(sb, '"');
	for (const char *p = text; *p; p++) {
		unsigned char c = (unsigned char)*p;
		const char *found = NULL;

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		strbuf_add(sb, from, (size_t)(p - from));
		from = p + 1;
		for (size_t i = 0; i + 1 < sizeof(shorts) && !found; i += 2)
			if (shorts[i] == *p)
				found = &shorts[i + 1];
		if (found)
			strbuf_printf(sb, "\\%c", *found);
		else
			strbuf_printf(sb, "\\u%04x", c);
	}
	strbuf_puts(sb, from);
	strbuf_putc(sb, '"');
}

/* The shortest of 15 to 17 digits that reads back the same, always a float to look at. */
static void put_real(struct strbuf *sb, double real)
{
	char text[40];

	if (!isfinite(real)) {
		strbuf_puts(sb, "null");
		return;
	}
	for (int digits = 15; digits <= 17; digits++) {
		(void)snprintf(text, sizeof(text), "%.*g", digits, real);
		if (strtod(text, NULL) == real)
			break;
	}
	strbuf_puts(sb, text);
	if (!strpbrk(text, ".e"))
		strbuf_puts(sb, ".0");
}

static void put_value(struct strbuf *sb, const struct ucl_value *v);

static void put_list(struct strbuf *sb, const struct ucl_value *v)
{
	strbuf_putc(sb, v->type == UCL_OBJECT ? '{' : '[');
	for (size_t i = 0; i < v->count; i++) {
		if (i)
			strbuf_putc(sb, ',');
		if (v->type == UCL_OBJECT) {
			put_string(sb, v->keys[i]);
			strbuf_putc(sb, ':');
		}
		put_value(sb, v->items[i]);
	}
	strbuf_putc(sb, v->type == UCL_OBJECT ? '}' : ']');
}

static void put_value(struct strbuf *sb, const struct ucl_value *v)
{
	switch (v->type) {
	case UCL_NULL:
		strbuf_puts(sb, "null");
		break;
	case UCL_BOOL:
		strbuf_puts(sb, v->boolean ? "true" : "false");
		break;
	case UCL_INT:
		strbuf_printf(sb, "%" PRId64, v->integer);
		break;
	case UCL_FLOAT:
	case UCL_TIME:
		put_real(sb, v->real);
		break;
	case UCL_STRING:
		put_string(sb, v->string);
		break;
	case UCL_ARRAY:
	case UCL_OBJECT:
		put_list(sb, v);
		break;
	}
}

char *ucl_to_json(const struct ucl_value *v)
{
	struct strbuf sb = {0};

	put_value(&sb, v);
	return strbuf_steal(&sb);
}
