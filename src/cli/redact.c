/* SPDX-License-Identifier: Apache-2.0 */
/* Redaction; see redact.h. What a person put into metadata is secret as a whole. */
#include "cli/redact.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "model/props.h"

static bool is_map(const char *name)
{
	const struct prop *row = prop_find(&vm_props, name, true);

	return row &&
	       (row->at == offsetof(struct vm, customer_metadata) ||
		row->at == offsetof(struct vm, internal_metadata)) &&
	       row->type == PROP_MAP;
}

bool redact_is_secret(const char *name)
{
	const struct prop *row = prop_find(&vm_props, name, true);

	return (row && row->show == SHOW_SECRET) || str_ends(name, "password") ||
	       str_ends(name, "_pw");
}

static void hide_members(json_t *object)
{
	const char *name;
	json_t *value;

	json_object_foreach (object, name, value)
		(void)json_object_set_new(object, name, json_string(REDACTED));
}

void redact_json(json_t *j)
{
	const char *name;
	json_t *value;
	size_t i;

	if (json_is_array(j))
		json_array_foreach (j, i, value)
			redact_json(value);
	json_object_foreach (j, name, value) {
		if (json_is_object(value) && is_map(name))
			hide_members(value);
		else if (redact_is_secret(name))
			(void)json_object_set_new(j, name, json_string(REDACTED));
		else
			redact_json(value);
	}
}

void redact_ucl(struct strbuf *sb, const char *text)
{
	AUTO_FREE char *copy = xstrdup(text);
	char *rest = copy, *line;

	while ((line = strsep(&rest, "\n"))) {
		size_t blank = strspn(line, " \t\""), len = strcspn(line + blank, " \t\"=:");
		AUTO_FREE char *name = xstrndup(line + blank, len);

		if (*name && redact_is_secret(name))
			strbuf_printf(sb, "%.*s%s = \"" REDACTED "\";", (int)strspn(line, " \t"),
				      line, name);
		else
			strbuf_puts(sb, line);
		if (rest)
			strbuf_putc(sb, '\n');
	}
}
