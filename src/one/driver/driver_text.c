/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines to the core; see driver_text.h. The core reads with one thread, up to 5.12 byte by byte
 * with a deadline of 25 ms between two, so a line is one write and never waits half written.
 */
#include "one/driver/driver_text.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#define MARK_BEGIN "ERROR MESSAGE --8<------"
#define MARK_END   "ERROR MESSAGE ------>8--"

int out_flush(struct out *out)
{
	size_t done = 0;
	int r = 0;

	while (done < out->lines.len) {
		const char *line = out->lines.data + done;
		size_t len = (size_t)((char *)memchr(line, '\n', out->lines.len - done) - line) + 1;
		struct pollfd p = {.fd = out->fd, .events = POLLOUT};
		ssize_t n;

		/* A pipe that is writable takes PIPE_BUF; only a longer line may wait here. */
		if (poll(&p, 1, 0) <= 0)
			break;
		n = write(out->fd, line, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			r = -errno;
			if (r == -EAGAIN)
				r = 0;
			else
				done = out->lines.len;
			break;
		}
		done += (size_t)n;
	}
	strbuf_drop(&out->lines, done);
	return r;
}

/* Length of the UTF-8 sequence at text[len], 0 when it is none. */
static size_t utf8_len(const unsigned char *text, size_t len)
{
	size_t want = text[0] < 0x80   ? 1
		      : text[0] < 0xc2 ? 0
		      : text[0] < 0xe0 ? 2
		      : text[0] < 0xf0 ? 3
		      : text[0] < 0xf5 ? 4
				       : 0;

	if (want > len)
		return 0;
	for (size_t i = 1; i < want; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	return want;
}

void text_put_clean(struct strbuf *sb, const char *text, size_t max)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len && max;) {
		const unsigned char *at = (const unsigned char *)text + i;
		size_t n = utf8_len(at, len - i);

		if (n > max)
			break;
		if (n == 0)
			strbuf_putc(sb, '?');
		else if (*at < 0x20 || *at == 0x7f)
			strbuf_putc(sb, ' ');
		else
			strbuf_add(sb, at, n);
		i += n ? n : 1;
		max -= n ? n : 1;
	}
}

static void put_line(struct out *out, const char *text, size_t max)
{
	text_put_clean(&out->lines, text, max);
	strbuf_putc(&out->lines, '\n');
}

void out_log(struct out *out, char severity, long id, const char *text)
{
	strbuf_printf(&out->lines, "LOG %c %ld ", severity, id);
	put_line(out, text, LOG_LINE_MAX);
}

void out_log_general(struct out *out, char severity, enum era era, const char *text)
{
	strbuf_printf(&out->lines, "LOG %c %s ", severity, era == ERA_5 ? "-" : "-1");
	put_line(out, text, LOG_LINE_MAX);
}

void out_result(struct out *out, const char *word, bool success, long id, const char *text)
{
	strbuf_printf(&out->lines, "%s %s %ld ", word, success ? "SUCCESS" : "FAILURE", id);
	put_line(out, text, ANSWER_MAX);
}

/* --- what scripts print --- */

/* A line without its blanks on both sides. */
struct line {
	const char *at;
	size_t len;
};

static bool next_line(const char **text, struct line *ret)
{
	const char *at = *text;
	size_t len = strcspn(at, "\n");

	if (!*at)
		return false;
	*text = at + len + (at[len] == '\n');
	while (len && strchr(" \t\r", *at)) {
		at++;
		len--;
	}
	while (len && strchr(" \t\r", at[len - 1]))
		len--;
	*ret = (struct line){at, len};
	return true;
}

static bool line_is(const struct line *l, const char *text)
{
	return l->len == strlen(text) && memcmp(l->at, text, l->len) == 0;
}

/* "DEBUG: pre: hello" is of severity D; 0 when the line is no log line. Cuts the word off. */
static char log_line(enum era era, struct line *l)
{
	static const char *const words[] = {"ERROR:", "INFO:", "DEBUG:", "WARN:"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		size_t n = strlen(words[i]);

		if (l->len < n || memcmp(l->at, words[i], n) != 0 || (era == ERA_5 && i == 3))
			continue;
		l->at += n;
		l->len -= n;
		while (l->len && *l->at == ' ') {
			l->at++;
			l->len--;
		}
		return *words[i];
	}
	return 0;
}

static void log_one(struct out *out, char severity, long id, const struct line *l)
{
	AUTO_FREE char *text = xstrndup(l->at, l->len);

	if (l->len)
		out_log(out, severity, id, text);
}

static void log_all(struct out *out, enum era era, long id, const char *errors)
{
	bool marked = false;
	struct line l;

	while (next_line(&errors, &l)) {
		char severity;

		if (era == ERA_5 && (line_is(&l, MARK_BEGIN) || line_is(&l, MARK_END))) {
			marked = line_is(&l, MARK_BEGIN);
			continue;
		}
		severity = marked ? 'E' : log_line(era, &l);
		log_one(out, severity ? severity : 'I', id, &l);
	}
}

void text_log(struct out *out, enum era era, long id, const struct ended *e)
{
	const char *errors = e->errors;
	struct line l;

	if (e->code != 0) {
		AUTO_FREE char *text =
			e->shell && era == ERA_5
				? xasprintf("Command execution fail: %s", e->command)
				: xasprintf("Command execution fail%s (exit code: %d): %s",
					    e->shell ? "" : "ed", e->code, e->command);

		out_log(out, 'I', id, text);
	}
	if (e->shell || e->code != 0)
		log_all(out, era, id, errors);
	if (e->shell && e->code >= 0) {
		AUTO_FREE char *text = xasprintf("ExitCode: %d", e->code);

		out_log(out, 'I', id, text);
	}
	/* later cores: once more, for the log of the core */
	while (era == ERA_6 && next_line(&errors, &l)) {
		char severity = log_line(era, &l);

		if (severity)
			log_one(out, severity, -1, &l);
	}
}

static void put_joined(struct strbuf *sb, const struct line *l, const char *between)
{
	if (sb->len && l->len)
		strbuf_puts(sb, between);
	strbuf_add(sb, l->at, l->len);
}

char *text_answer(const char *output)
{
	struct strbuf sb = {0};
	struct line l;

	while (next_line(&output, &l))
		put_joined(&sb, &l, " ");
	if (!sb.len)
		strbuf_putc(&sb, '-');
	return strbuf_steal(&sb);
}

/* Between the markers, lines joined by blanks. */
static void marked_text(struct strbuf *sb, const char *errors)
{
	bool marked = false;
	struct line l;

	while (next_line(&errors, &l)) {
		if (line_is(&l, MARK_BEGIN) || line_is(&l, MARK_END))
			marked = line_is(&l, MARK_BEGIN);
		else if (marked)
			put_joined(sb, &l, " ");
	}
}

/* The last line that says anything, with or without its severity. */
static void last_words(struct strbuf *sb, enum era era, const char *errors)
{
	struct line l, last = {"", 0};

	while (next_line(&errors, &l)) {
		(void)log_line(era, &l);
		if (l.len)
			last = l;
	}
	strbuf_add(sb, last.at, last.len);
}

char *text_reason(enum era era, const struct ended *e, const char *fallback)
{
	AUTO_STRBUF struct strbuf text = {0}, last = {0};
	const char *errors = e->errors;
	struct line l;

	if (era == ERA_5)
		marked_text(&text, errors);
	while (era == ERA_6 && next_line(&errors, &l))
		if (!log_line(era, &l))
			put_joined(&text, &l, "");
	if (text.len && era == ERA_6 && e->shell && e->code >= 0)
		strbuf_printf(&text, "ExitCode: %d", e->code);
	if (text.len)
		return strbuf_steal(&text);
	last_words(&last, era, e->errors);
	return xasprintf("%s%s%s", fallback, last.len ? ": " : "", last.len ? last.data : "");
}
