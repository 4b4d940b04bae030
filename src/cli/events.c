/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event lines; see events.h. Order: connect, ready within 30 s (in its snapshot the VM asked for
 * is found), then each record is printed and flushed as it comes. There is no reconnecting: a
 * gap would be invisible to who reads the lines.
 */
#include "cli/events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/client.h"
#include "api/names.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "cli/find.h"
#include "cli/request.h"

#define READY_LIMIT_MS 30000
#define ALIAS_CUT      27 /* characters kept before "..." */

/* clang-format off */
const struct cli_option event_options[] = {
	{ 'f', 'f', "full",  NULL, "whole date and whole zone name" },
	{ 'j', 'j', "json",  NULL, "one JSON object per line" },
	{ 'r', 'r', "ready", NULL, "print the ready event, too" },
	{ 0 },
};
/* clang-format on */

/* --- one event as text --- */

/* At most EVENT_ALIAS_MAX characters of UTF-8, else cut and marked. */
static void put_alias(struct strbuf *sb, char *alias)
{
	size_t chars = 0, cut = 0;

	for (size_t i = 0; alias[i]; i++) {
		if (((unsigned char)alias[i] & 0xc0) == 0x80)
			continue;
		if (chars == ALIAS_CUT)
			cut = i;
		chars++;
	}
	if (chars > EVENT_ALIAS_MAX)
		alias[cut] = '\0';
	strbuf_put_escaped(sb, alias);
	if (chars > EVENT_ALIAS_MAX)
		strbuf_puts(sb, "...");
}

/* "[<time>] " of the event. */
static void put_time(struct strbuf *sb, struct slice event, bool full)
{
	AUTO_FREE char *date = js_member_string(event, "date");
	const char *t = date ? strchr(date, 'T') : NULL;

	strbuf_putc(sb, '[');
	strbuf_put_escaped(sb, !date ? "-" : t && !full ? t + 1 : date);
	strbuf_puts(sb, "] ");
}

/* "[<time>] <zone> <alias> " */
static void put_head(struct strbuf *sb, struct slice event, bool full)
{
	AUTO_FREE char *zone = js_member_string(event, "zonename");
	AUTO_FREE char *alias = js_member_string(js_member(event, "vm"), "alias");

	put_time(sb, event, full);
	if (zone && !full)
		zone[strcspn(zone, "-")] = '\0';
	strbuf_put_escaped(sb, zone ? zone : "-");
	strbuf_putc(sb, ' ');
	if (alias && *alias)
		put_alias(sb, alias);
	else
		strbuf_putc(sb, '-');
	strbuf_putc(sb, ' ');
}

static void put_value(struct strbuf *sb, struct slice v)
{
	if (v.p)
		js_write(sb, v, JS_COMPACT);
	else
		strbuf_puts(sb, "undefined");
}

static void put_text(struct strbuf *sb, struct slice v)
{
	AUTO_FREE char *text = js_string(v);

	strbuf_put_escaped(sb, text ? text : "-");
}

static void put_changes(struct strbuf *sb, struct slice event, struct slice changes, bool full)
{
	AUTO_STRBUF struct strbuf head = {0};
	struct slice change;
	struct js_iter it;

	put_head(&head, event, full);
	js_iter_init(&it, changes);
	while (js_next(&it, NULL, &change)) {
		strbuf_add(sb, head.data, head.len);
		put_text(sb, js_member(event, "type"));
		strbuf_puts(sb, ": ");
		put_text(sb, js_member(change, "prettyPath"));
		strbuf_putc(sb, ' ');
		put_text(sb, js_member(change, "action"));
		strbuf_puts(sb, " :: ");
		put_value(sb, js_member(change, "oldValue"));
		strbuf_puts(sb, " -> ");
		put_value(sb, js_member(change, "newValue"));
		strbuf_putc(sb, '\n');
	}
}

static void put_ready(struct strbuf *sb, struct slice event, bool full)
{
	put_time(sb, event, full);
	strbuf_puts(sb, EVENT_READY);
	if (full) {
		strbuf_puts(sb, " (uuid ");
		put_text(sb, js_member(event, "uuid"));
		strbuf_putc(sb, ')');
	}
	strbuf_putc(sb, '\n');
}

/* --- one event as JSON --- */

/* The snapshot, a string, as an object keyed by zonename. */
static void put_vms_by_zone(struct strbuf *sb, struct slice vms)
{
	AUTO_STRBUF struct strbuf text = {0};
	const char *comma = "";
	struct js_iter it;
	struct slice vm, zone;

	js_put_string(&text, vms);
	js_iter_init(&it, text.data ? js_value(text.data, text.len) : (struct slice){0});
	strbuf_putc(sb, '{');
	while (js_next(&it, NULL, &vm)) {
		zone = js_member(vm, "zonename");
		if (!zone.p)
			zone = js_member(vm, "uuid");
		if (js_type(zone) != '"')
			continue;
		strbuf_puts(sb, comma);
		js_write(sb, zone, JS_COMPACT);
		strbuf_putc(sb, ':');
		js_write(sb, vm, JS_COMPACT);
		comma = ",";
	}
	strbuf_putc(sb, '}');
}

static void put_json(struct strbuf *sb, struct slice event, bool decode)
{
	struct slice key, value;
	const char *comma = "";
	struct js_iter it;

	if (!decode) {
		js_write(sb, event, JS_COMPACT);
		strbuf_putc(sb, '\n');
		return;
	}
	js_iter_init(&it, event);
	strbuf_putc(sb, '{');
	while (js_next(&it, &key, &value)) {
		strbuf_puts(sb, comma);
		js_write(sb, key, JS_COMPACT);
		strbuf_putc(sb, ':');
		if (js_is(key, "vms") && js_type(value) == '"')
			put_vms_by_zone(sb, value);
		else
			js_write(sb, value, JS_COMPACT);
		comma = ",";
	}
	strbuf_puts(sb, "}\n");
}

int event_lines(struct strbuf *sb, struct slice event, const struct event_view *view,
		struct err *err)
{
	struct slice type = js_member(event, "type"), changes;
	bool ready = js_is(type, EVENT_READY);

	if (js_type(type) != '"')
		return err_set(err, EPROTO, "VminfodEventStream: not an event: %.*s",
			       (int)(event.len < 80 ? event.len : 80), event.p ? event.p : "");
	if (ready && !view->ready)
		return 0;
	if (view->json) {
		put_json(sb, event, ready && view->decoded);
		return 0;
	}
	if (ready) {
		put_ready(sb, event, view->full);
		return 0;
	}
	changes = js_member(event, "changes");
	if (js_count(changes) > 0) {
		put_changes(sb, event, changes, view->full);
		return 0;
	}
	put_head(sb, event, view->full);
	put_text(sb, type);
	strbuf_putc(sb, '\n');
	return 0;
}

/* --- the stream --- */

struct follow {
	struct event_view view;
	const char *id;
	char uuid[UUID_LEN + 1]; /* of id, once ready has come */
	bool was_ready;
};

static int find_in_ready(struct follow *f, struct slice event, struct err *err)
{
	AUTO_STRBUF struct strbuf text = {0};

	f->was_ready = true;
	if (!f->id)
		return 0;
	js_put_string(&text, js_member(event, "vms"));
	return find_in(text.data ? js_value(text.data, text.len) : (struct slice){0}, f->id,
		       f->uuid, err);
}

/* Print one record. 0, or an exit code with err filled. */
static int take_line(struct follow *f, const char *line, size_t len, struct err *err)
{
	AUTO_STRBUF struct strbuf out = {0};
	struct slice event = js_value(line, len);
	bool ready = js_is(js_member(event, "type"), EVENT_READY);
	int r;

	if (js_type(event) != '{') {
		(void)err_set(err, EPROTO, "VminfodEventStream: invalid JSON: %.*s",
			      (int)(len < 80 ? len : 80), line);
		return EXIT_FAILED;
	}
	if (ready) {
		r = find_in_ready(f, event, err);
		if (r < 0)
			return exit_from_errno(r);
	} else if (f->id && !js_is(js_member(event, "zonename"), f->uuid)) {
		return 0;
	}
	r = event_lines(&out, event, &f->view, err);
	if (r < 0)
		return EXIT_FAILED;
	cli_put(out.data, out.len);
	return cli_flush();
}

static int follow(struct follow *f, struct client_stream *s, struct err *err)
{
	for (;;) {
		const char *line;
		size_t len;
		int r = client_line(s, f->was_ready ? -1 : READY_LIMIT_MS, &line, &len, err);

		if (r == -ETIMEDOUT) {
			(void)err_set(err, ETIMEDOUT,
				      "VminfodEventStream ready timeout (%dms) exceeded",
				      READY_LIMIT_MS);
			return EXIT_TIMED_OUT;
		}
		if (r <= 0) {
			(void)err_set(err, ECONNRESET, "VminfodEventStream ended prematurely");
			return EXIT_FAILED;
		}
		r = len ? take_line(f, line, len, err) : 0; /* blank lines are heartbeats */
		if (r)
			return r;
	}
}

int events_run(struct cli *cli, const struct events_request *rq)
{
	struct follow f = {
		.view = {.ready = cli_flag(cli, 'r'),
			 .full = cli_flag(cli, 'f'),
			 .json = cli_flag(cli, 'j') || cli_flag(cli, OPT_JSON),
			 .decoded = rq->decoded},
		.id = rq->id,
	};
	struct client_stream *s;
	struct err err = {0};
	struct client c;
	int code = request_open(cli, PEER_VMINFOD, rq->agent, &c, &err), r;

	if (code)
		return request_fail(code, NULL, &err);
	r = client_stream_open(&c, "/events", &s, &err);
	if (r < 0) {
		code = exit_from_errno(r);
	} else {
		code = follow(&f, s, &err);
		client_stream_close(s);
	}
	client_close(&c);
	return request_fail(code, NULL, &err);
}
