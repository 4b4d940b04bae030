/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zoneevent; see zoneevent.h. Unlike the original it asks vminfod to go on where a lost connection
 * ended, and says so when that could not be.
 */
#include "cli/zoneevent.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/client.h"
#include "api/names.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/request.h"

#define AGAIN_MS    1000 /* from the end of a stream to the next attempt */
#define MEMBER      "zone_state"
#define NOT_RUNNING "installed"
#define AS_OF_OLD   "uninitialized"

struct follower {
	struct cli cli;
	char *agent;
	bool quiet;       /* -l error and above */
	char *boot, *seq; /* of the last record seen; NULL: none yet */
};

/* --- one record --- */

/* "2018-04-11T17:28:12.046Z" as nanoseconds of the epoch, as text. */
static void put_when(struct strbuf *sb, struct slice event)
{
	AUTO_FREE char *date = js_member_string(event, "date");
	struct tm tm = {0};
	const char *rest = date ? strptime(date, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
	int64_t ms = rest ? (int64_t)timegm(&tm) * 1000 : 0;

	if (rest && *rest == '.')
		ms += strtol(rest + 1, NULL, 10);
	strbuf_printf(sb, "\"when\":\"%" PRId64 "000000\"", ms);
}

static void put_text(struct strbuf *sb, const char *name, const char *value)
{
	strbuf_printf(sb, "\"%s\":\"", name);
	strbuf_put_escaped(sb, value);
	strbuf_puts(sb, "\",");
}

/* The change of the state itself; absent when there is none. */
static struct slice find_change(struct slice event)
{
	struct js_iter it;
	struct slice change;

	js_iter_init(&it, js_member(event, "changes"));
	while (js_next(&it, NULL, &change)) {
		struct slice path = js_member(change, "path");

		if (js_count(path) == 1 && js_is(js_element(path, 0), MEMBER))
			return change;
	}
	return (struct slice){0};
}

/* A zone at rest was called otherwise, but for one that has just been made. */
static const char *old_name(const char *state, const char *before)
{
	return str_eq(state, NOT_RUNNING) && !str_eq(before, "incomplete") ? AS_OF_OLD : state;
}

static void put_zoneid(struct strbuf *sb, struct slice event)
{
	struct slice id = js_member(js_member(event, "vm"), "zoneid");
	AUTO_FREE char *text =
		id.p && js_type(id) != 'n' && js_type(id) != '"' ? xstrndup(id.p, id.len) : NULL;

	put_text(sb, "zoneid", text ? text : "-1");
}

void zoneevent_line(struct strbuf *sb, struct slice event)
{
	struct slice type = js_member(event, "type"), change = {0};
	AUTO_FREE char *zone = js_member_string(event, "zonename");
	AUTO_FREE char *before = NULL, *after = NULL;
	bool gone = js_is(type, EVENT_DELETE);

	if (js_is(type, EVENT_CREATE)) {
		before = xstrdup("");
		after = js_member_string(js_member(event, "vm"), MEMBER);
	} else if (js_is(type, EVENT_MODIFY)) {
		change = find_change(event);
		before = js_member_string(change, "oldValue");
		after = js_member_string(change, "newValue");
	}
	if (!zone || (!gone && (!before || !after)))
		return;
	strbuf_putc(sb, '{');
	put_text(sb, "zonename", zone);
	if (!gone)
		put_text(sb, "oldstate", old_name(before, NULL));
	put_text(sb, "newstate", gone ? "" : old_name(after, before));
	put_zoneid(sb, event);
	put_when(sb, event);
	strbuf_puts(sb, "}\n");
}

/* --- the stream --- */

static void say(const struct follower *f, const char *text)
{
	if (!f->quiet)
		cli_say("%s", text);
}

static int take_line(struct follower *f, const char *line, size_t len)
{
	AUTO_STRBUF struct strbuf sb = {0};
	struct slice event = js_value(line, len), seq = js_member(event, "seq");
	char *boot = js_member_string(event, "boot");

	if (boot)
		replace_str(&f->boot, boot);
	if (seq.p)
		replace_str(&f->seq, xstrndup(seq.p, seq.len));
	if (js_is(js_member(event, "type"), EVENT_GAP))
		say(f, "transitions may have been missed while vminfod was away");
	zoneevent_line(&sb, event);
	if (sb.len == 0)
		return EXIT_OK;
	cli_put(sb.data, sb.len);
	return cli_flush();
}

/* One connection until its end; not EXIT_OK: the end of it all. */
static int follow(struct follower *f)
{
	AUTO_FREE char *target =
		f->boot && f->seq
			? xasprintf("/events?path=" MEMBER "&since=%s:%s", f->boot, f->seq)
			: xstrdup("/events?path=" MEMBER "&seq=1");
	struct client_stream *s;
	struct err err = {0};
	struct client c;
	const char *line;
	size_t len;
	int code = EXIT_OK;

	if (request_open(&f->cli, PEER_VMINFOD, f->agent, &c, &err)) {
		say(f, err.msg);
		return EXIT_OK;
	}
	if (client_stream_open(&c, target, &s, &err) < 0) {
		say(f, err.msg);
	} else {
		while (code == EXIT_OK && client_line(s, -1, &line, &len, &err) > 0)
			code = len ? take_line(f, line, len) : EXIT_OK;
		client_stream_close(s);
		if (code == EXIT_OK)
			say(f, "vminfod ended the stream, connecting again");
	}
	client_close(&c);
	return code;
}

static const char usage[] =
	"usage: zoneevent [-h] [-i ident] [-l loglevel]\n"
	"Print a JSON line for each change of a VM's zone_state.\n"
	"  -i ident     name of the caller, shown in vminfod's list of listeners\n"
	"  -l loglevel  talk on standard error: trace, debug, info (default), warn, error, fatal\n"
	"  -h           print this\n";

static bool known_level(const char *level, bool *ret_quiet)
{
	static const char *const levels[] = {"trace", "debug", "info", "warn", "error", "fatal"};

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		if (!str_eq(levels[i], level))
			continue;
		*ret_quiet = i >= 4;
		return true;
	}
	return false;
}

/* -1: go on; else the exit code. */
static int options(struct follower *f, int argc, char **argv)
{
	const char *ident = NULL;
	AUTO_FREE char *name = NULL;
	int c;

	while ((c = getopt(argc, argv, "hi:l:")) != -1) {
		if (c == 'i') {
			ident = optarg;
		} else if (c == 'h') {
			(void)fputs(usage, stdout);
			return EXIT_OK;
		} else if (c != 'l' || !known_level(optarg, &f->quiet)) {
			(void)fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		(void)fputs(usage, stderr);
		return EXIT_USAGE;
	}
	name = ident ? xasprintf("VM.js events - zoneevent CLI (%s)", ident)
		     : xstrdup("VM.js events - zoneevent CLI");
	f->agent = request_agent(name);
	return -1;
}

int zoneevent_main(int argc, char **argv)
{
	static const struct tool tool = {.name = "zoneevent"};
	struct follower f = {.cli = {.tool = &tool, .timeout_ms = -1}};
	struct err err = {0};
	int code = options(&f, argc, argv);

	if (code < 0 && paths_init(&f.cli.paths, NULL, &err) < 0)
		code = cli_fail(EXIT_FAILED, "%s", err.msg);
	while (code < 0) {
		int end = follow(&f);

		if (end != EXIT_OK)
			code = end;
		else
			(void)poll(NULL, 0, AGAIN_MS);
	}
	paths_done(&f.cli.paths);
	free(f.agent);
	free(f.boot);
	free(f.seq);
	return code;
}
