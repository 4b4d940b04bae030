/* SPDX-License-Identifier: Apache-2.0 */
/* Table printer; see table.h. */
#include "base/table.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "base/mem.h"
#include "base/strbuf.h"

/* Screen cells of a text; its bytes where it is not valid in the locale. */
static int width_of(const char *text)
{
	wchar_t wide[512];
	size_t n = 0;
	int w;

	for (const char *p = text; *p; p++)
		n |= (unsigned char)*p & 0x80;
	if (n == 0)
		return (int)strlen(text);
	n = mbstowcs(wide, text, ARRAY_SIZE(wide));
	if (n == (size_t)-1 || n >= ARRAY_SIZE(wide))
		return (int)strlen(text);
	w = wcswidth(wide, n);
	return w < 0 ? (int)strlen(text) : w;
}

static void line(const struct table *t, const char *const *values)
{
	AUTO_STRBUF struct strbuf sb = {0};

	for (size_t i = 0; i < t->count; i++) {
		const char *v = values[i] && *values[i] ? values[i] : t->parseable ? "" : "-";
		size_t before;
		int pad;

		if (i > 0)
			strbuf_puts(&sb, t->parseable ? ":" : "  ");
		before = sb.len;
		strbuf_put_escaped(&sb, v);
		strbuf_reserve(&sb, 0);
		sb.data[sb.len] = '\0';
		pad = t->parseable ? 0 : t->columns[i].width - width_of(sb.data + before);
		for (; pad > 0; pad--)
			strbuf_putc(&sb, ' ');
	}
	while (!t->parseable && sb.len > 0 && sb.data[sb.len - 1] == ' ')
		sb.len--;
	strbuf_putc(&sb, '\n');
	(void)fwrite(sb.data, 1, sb.len, t->out);
}

void table_header(const struct table *t)
{
	const char **names = xcalloc(t->count, sizeof(*names));

	for (size_t i = 0; i < t->count; i++)
		names[i] = t->columns[i].header;
	line(t, names);
	free(names);
}

void table_row(const struct table *t, const char *const *values)
{
	line(t, values);
}
