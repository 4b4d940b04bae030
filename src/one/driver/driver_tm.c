/* SPDX-License-Identifier: Apache-2.0 */
/* Transfer commands to scripts and arguments; see driver_tm.h. */
#include "one/driver/driver_tm.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

int tm_check_name(const char *name, const char *what, struct err *err)
{
	bool good = *name && *name != '.' && *name != '-';

	for (const char *c = name; good && *c; c++)
		good = isalnum((unsigned char)*c) || strchr("._-+", *c);
	if (!good)
		return err_set(err, EINVAL, "'%.64s' is not the name of a %s", name, what);
	return 0;
}

/* The next word of *at, NULL at the end of the line; -EINVAL when a quote does not close. */
static int next_word(const char **at, char **ret, struct err *err)
{
	AUTO_STRBUF struct strbuf sb = {0};
	const char *c = *at + strspn(*at, " \t\r\n");
	char quote = '\0';

	if (!*c)
		return 0;
	for (; *c && (quote || !strchr(" \t\r\n", *c)); c++) {
		if (quote ? *c == quote : *c == '\'' || *c == '"')
			quote = quote ? '\0' : *c;
		else if (*c == '\\' && quote != '\'' && c[1])
			strbuf_putc(&sb, *++c);
		else
			strbuf_putc(&sb, *c);
	}
	if (quote)
		return err_set(err, EINVAL, "a quote in the transfer command does not close");
	*at = c;
	*ret = strbuf_steal(&sb);
	return 1;
}

/* PREFIX + command + _live, lower case; what stands behind a dot is the suffix. */
static void name_script(struct tm_script *s, char *command)
{
	char *dot = strchr(command, '.');

	for (char *c = command; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	if (dot)
		*dot = '\0';
	s->name = xasprintf("%s%s%s", s->prefix ? s->prefix : "", command, s->live ? "_live" : "");
}

static int find_script(struct tm_script *s, char *command, const char *driver, const char *remotes,
		       struct err *err)
{
	AUTO_FREE char *folder = xasprintf("%s/tm/%s", remotes, driver);
	const char *dot = strchr(command, '.');
	AUTO_FREE char *suffix = xstrdup(dot ? dot : "");
	int r = tm_check_name(command, "transfer script", err);

	if (r == 0)
		r = tm_check_name(driver, "transfer driver", err);
	if (r < 0)
		return r;
	/* the suffix is a driver's name: its case counts */
	name_script(s, command);
	s->path = xasprintf("%s/%s%s", folder, s->name, suffix);
	if (*suffix && !file_exists(s->path))
		replace_str(&s->path, xasprintf("%s/%s", folder, s->name));
	return 0;
}

int tm_read(const char *line, const char *remotes, struct tm_script *script, struct err *err)
{
	AUTO_FREE char *command = NULL, *driver = NULL;
	char *word = NULL;
	int r = next_word(&line, &command, err);

	if (r > 0)
		r = next_word(&line, &driver, err);
	if (r == 0)
		return err_set(err, EINVAL, "the transfer command '%s' names no driver",
			       command ? command : "");
	if (r > 0)
		r = find_script(script, command, driver, remotes, err);
	if (r < 0)
		return r;
	while ((r = next_word(&line, &word, err)) > 0) {
		script->argv = xrealloc(script->argv, (script->argc + 2) * sizeof(*script->argv));
		script->argv[script->argc++] = word;
		script->argv[script->argc] = NULL;
	}
	if (r < 0)
		tm_done(script);
	return r;
}

void tm_done(struct tm_script *script)
{
	for (size_t i = 0; i < script->argc; i++)
		free(script->argv[i]);
	free(script->argv);
	free(script->name);
	free(script->path);
	script->argv = NULL;
	script->name = script->path = NULL;
	script->argc = 0;
}
