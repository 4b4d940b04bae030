/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's log over the control socket: all of it, of this start or an earlier one, its last
 * lines, and as it grows. A start begins at our own line "vmstated: start (".
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "net/http.h"
#include "vmstated/parts.h"
#include "vmstated/routes.h"

#define LOG_BYTES   (16u << 20) /* more than the log may grow to before it is rotated */
#define FOLLOW_STEP 65536u
#define TYPE        "text/plain; charset=utf-8"
#define START_MARK  " vmstated: start ("

/* A reader that follows: an inotify descriptor tells of growth and of rotation. */
struct follow {
	char *path;
	int fd, watch;
	off_t at;
	sd_event *event;
	sd_event_source *source;
	struct http_stream *stream;
};

/* Offset of the line that holds `at`. */
static size_t line_of(const char *text, size_t at)
{
	while (at > 0 && text[at - 1] != '\n')
		at--;
	return at;
}

/* Cut text to one start: boot 0 the newest, -1 the one before, and so on. */
static void cut_to_boot(char **text, size_t *len, long boot)
{
	size_t end = *len;
	char *p = *text;

	for (long b = 0; b >= boot; b--) {
		char *found = NULL, *q = p;

		while ((q = strstr(q, START_MARK)) && (size_t)(q - p) < end) {
			found = q;
			q++;
		}
		if (!found) {
			*len = 0;
			return;
		}
		*len = end;
		end = line_of(p, (size_t)(found - p));
	}
	*text = p + end;
	*len -= end;
}

static void cut_to_lines(char **text, size_t *len, long lines)
{
	size_t at = *len;

	if (at > 0)
		at--; /* the newline of the last line */
	while (at > 0 && lines > 0) {
		if ((*text)[at - 1] == '\n' && --lines == 0)
			break;
		at--;
	}
	*text += at;
	*len -= at;
}

static void follow_end(struct http_stream *s, enum http_stream_end why, void *ctx)
{
	struct follow *f = ctx;

	sd_event_source_disable_unref(f->source);
	if (f->fd >= 0)
		(void)close(f->fd);
	(void)close(f->watch);
	free(f->path);
	free(f);
}

static void send_new(struct follow *f)
{
	AUTO_FREE char *buf = xmalloc(FOLLOW_STEP);
	ssize_t n;

	while (f->fd >= 0 && (n = pread(f->fd, buf, FOLLOW_STEP, f->at)) > 0) {
		struct http_body *body = http_body_new(steal_ptr(buf), (size_t)n);
		int r = http_stream_send(f->stream, body);

		http_body_unref(body);
		if (r < 0)
			return;
		f->at += n;
		buf = xmalloc(FOLLOW_STEP);
	}
}

/* The log was renamed and a new one begun: finish the old one and change over. */
static void reopen(struct follow *f)
{
	AUTO_FD int fd = open(f->path, O_RDONLY | O_CLOEXEC);
	struct stat now, old;

	if (fd < 0 || fstat(fd, &now) < 0)
		return;
	if (f->fd >= 0 && fstat(f->fd, &old) == 0 && old.st_ino == now.st_ino)
		return;
	if (f->fd >= 0)
		(void)close(f->fd);
	f->fd = steal_fd(&fd);
	f->at = 0;
}

static int on_change(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct follow *f = userdata;
	char buf[4096];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
	send_new(f);
	reopen(f);
	send_new(f);
	return 0;
}

static void start_follow(struct guest *g, struct http_request *req, off_t at)
{
	struct follow *f = xcalloc(1, sizeof(*f));
	struct http_stream_config config = {.type = TYPE, .on_end = follow_end, .ctx = f};
	struct supervisor *sup = g->sup;

	f->path = xasprintf("%s/%s.log", sup->paths.log, g->name);
	f->at = at;
	f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
	f->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	(void)inotify_add_watch(f->watch, sup->paths.log, IN_MODIFY | IN_CREATE | IN_MOVED_TO);
	f->stream = http_reply_stream(req, &config);
	(void)sd_event_add_io(sup->event, &f->source, f->watch, EPOLLIN, on_change, f);
	send_new(f);
}

static long number(const struct http_request *req, const char *name, long fallback)
{
	const char *text = http_query(req, name);

	return text ? strtol(text, NULL, 10) : fallback;
}

void get_log(struct http_request *req, void *ctx)
{
	struct supervisor *sup = ctx;
	AUTO_FREE char *path = NULL;
	AUTO_FREE char *text = NULL;
	struct err err = {0};
	struct guest *g;
	char *part;
	size_t len = 0;
	int r = supervisor_find(sup, http_param(req, "id"), &g, &err);

	if (r == 0 && routes_refused(sup, req, g))
		return;
	if (r == 0) {
		path = xasprintf("%s/%s.log", sup->paths.log, g->name);
		r = file_read(path, LOG_BYTES, &text, &len, NULL, &err);
		if (r == -ENOENT) { /* nothing was ever said */
			err.code = 0;
			r = 0;
		}
	}
	if (r < 0) {
		http_reply_err(req, r, &err);
		return;
	}
	if (!text)
		text = xcalloc(1, 1);
	part = text;
	if (http_query(req, "boot"))
		cut_to_boot(&part, &len, number(req, "boot", 0));
	if (http_query(req, "lines"))
		cut_to_lines(&part, &len, number(req, "lines", 0));
	if (number(req, "follow", 0))
		start_follow(g, req, (off_t)(part - text));
	else
		http_reply(req, 200, TYPE, part, len);
}
