/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The synopsis of a tool's manual page from its table of commands: "[-o FIELD,...] VM" becomes
 * ".Oo Fl o Ar field , Ns ... Oc Ar vm". tests/golden/cli/man.py keeps the pages in step.
 */
#include "cli/mdoc.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cli.h"

/* FIELD stands for something; field is written as it is. */
static bool is_placeholder(const char *word, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (islower((unsigned char)word[i]) || word[i] == '.')
			return false;
	return len > 0;
}

static void put_word(struct strbuf *sb, const char *word, size_t len)
{
	bool placeholder = is_placeholder(word, len);

	strbuf_puts(sb, placeholder ? " Ar " : " Cm ");
	for (size_t i = 0; i < len; i++)
		strbuf_putc(sb, placeholder ? (char)tolower((unsigned char)word[i]) : word[i]);
}

static void put_flag(struct strbuf *sb, const char *word, size_t len)
{
	strbuf_puts(sb, " Fl ");
	if (len > 1 && is_placeholder(word, len)) { /* -SIGNAL */
		strbuf_puts(sb, "Ns");
		put_word(sb, word, len);
	} else {
		strbuf_add(sb, word, len);
	}
}

static void put_token(struct strbuf *sb, const char *word, size_t len)
{
	const char *eq = memchr(word, '=', len);
	bool many = len > 4 && memcmp(word + len - 4, ",...", 4) == 0;

	if (len == 3 && memcmp(word, "...", 3) == 0) {
		strbuf_puts(sb, " ...");
	} else if (len == 1 && !isalnum((unsigned char)*word)) {
		strbuf_putc(sb, ' ');
		strbuf_putc(sb, *word);
	} else if (*word == '-') {
		put_flag(sb, word + 1, len - 1);
	} else if (eq) {
		put_word(sb, word, (size_t)(eq - word));
		strbuf_puts(sb, " Ns = Ns");
		put_word(sb, eq + 1, len - (size_t)(eq - word) - 1);
	} else {
		put_word(sb, word, many ? len - 4 : len);
		strbuf_puts(sb, many ? " , Ns ..." : "");
	}
}

static void put_synopsis(struct strbuf *sb, const char *text)
{
	while (*text) {
		size_t len = strcspn(text, " []");

		if (len)
			put_token(sb, text, len);
		else if (*text != ' ')
			strbuf_puts(sb, *text == '[' ? " Oo" : " Oc");
		text += len ? len : 1;
	}
}

void mdoc_synopsis(const struct tool *tool)
{
	AUTO_STRBUF struct strbuf sb = {0};

	for (size_t i = 0; i < tool->ncommands; i++) {
		const struct command *c = &tool->commands[i];

		strbuf_printf(&sb, ".Nm\n.Cm %s", c->name);
		put_synopsis(&sb, c->synopsis);
		strbuf_putc(&sb, '\n');
	}
	cli_put(sb.data, sb.len);
}
