/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines; see log.h. */
#include "base/log.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/strbuf.h"

static struct {
	const char *program;
	enum log_format format;
	enum log_level level;
	char hostname[65];
} state = {.program = "drover", .level = LOG_LEVEL_INFO};

void log_setup(const char *program, enum log_format format, enum log_level level)
{
	state.program = program;
	state.format = format;
	state.level = level;
	if (gethostname(state.hostname, sizeof(state.hostname) - 1) < 0)
		memcpy(state.hostname, "?", 2);
}

bool log_enabled(enum log_level level)
{
	return level >= state.level;
}

static const char *level_name(enum log_level level)
{
	switch (level) {
	case LOG_LEVEL_DEBUG:
		return "debug";
	case LOG_LEVEL_INFO:
		return "info";
	case LOG_LEVEL_WARN:
		return "warning";
	case LOG_LEVEL_ERROR:
		return "error";
	}
	return "?";
}

static void write_json(struct strbuf *sb, enum log_level level, const char *msg, const char *when)
{
	json_t *line = json_pack("{s:s, s:s, s:i, s:i, s:s, s:s, s:i}", "name", state.program,
				 "hostname", state.hostname, "pid", (int)getpid(), "level",
				 (int)level, "msg", msg, "time", when, "v", 0);
	AUTO_FREE char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;

	json_decref(line);
	strbuf_puts(sb, text ? text : "{\"msg\":\"unprintable log line\",\"v\":0}");
}

void log_at(enum log_level level, const char *fmt, ...)
{
	AUTO_STRBUF struct strbuf sb = {0}, safe = {0};
	AUTO_FREE char *msg = NULL;
	char when[ISO_TIME_LEN];
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	if (vasprintf(&msg, fmt, ap) < 0)
		return;
	va_end(ap);
	(void)clock_iso(clock_wall_ms(), when, sizeof(when));
	strbuf_put_escaped(&safe, msg);
	if (state.format == LOG_JSON)
		write_json(&sb, level, safe.data ? safe.data : "", when);
	else
		strbuf_printf(&sb, "%s %s %s: %s", when, state.program, level_name(level),
			      safe.data ? safe.data : "");
	strbuf_putc(&sb, '\n');
	/* One write, so that lines of several processes do not mix; a full disk loses the line. */
	if (write(STDERR_FILENO, sb.data, sb.len) < 0)
		return;
}
