/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The taking end of a feed; see feed.h and docs/feeds.md. Connects, says hello, hands each line
 * to the owner, acknowledges once per lot what was handed over. Any fault, and any gap in the
 * numbers, ends the connection; a new one starts with a snapshot. While there is no server the
 * attempts become rare, and its socket's folder is watched: an absent peer costs no wake-ups.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/names.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "net/feed.h"

#define READ_SIZE (64u << 10)
#define TIMER_US  1000

struct feed_client {
	sd_event *event;
	struct feed_client_config config;
	char *path, *name;
	sd_event_source *io, *retry, *watch;
	int fd, watch_fd;
	uint64_t delay_ms; /* before the next attempt */
	struct strbuf in, out;
	size_t scanned; /* no newline in `in` before this */
	uint64_t seq, acked;
	bool up, ready;
	bool busy;  /* inside the owner's callbacks */
	bool dying; /* freed as soon as busy ends */
};

static void disconnect(struct feed_client *c, const char *why);

static void arm_retry(struct feed_client *c)
{
	uint64_t rest = c->watch ? FEED_REST_MS : FEED_BLIND_MS;

	(void)sd_event_source_set_time_relative(c->retry, c->delay_ms * 1000);
	(void)sd_event_source_set_enabled(c->retry, SD_EVENT_ONESHOT);
	c->delay_ms = c->delay_ms * 2 < rest ? c->delay_ms * 2 : rest;
}

static void unwatch(struct feed_client *c)
{
	c->watch = sd_event_source_disable_unref(c->watch);
	if (c->watch_fd >= 0)
		(void)close(steal_fd(&c->watch_fd));
}

/* Something new in the folder; it may be the socket, and it may not listen yet. */
static int on_watch(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct feed_client *c = ctx;
	const char *name = strrchr(c->path, '/') + 1;
	union {
		struct inotify_event align;
		char data[4096];
	} buf;
	ssize_t n = read(fd, &buf, sizeof(buf));
	bool appeared = false;

	for (char *p = buf.data; n > 0 && p < buf.data + n;) {
		const struct inotify_event *ev = (const void *)p;

		appeared |= ev->len && strcmp(ev->name, name) == 0;
		p += sizeof(*ev) + ev->len;
	}
	if (appeared && c->fd < 0) {
		c->delay_ms = FEED_RETRY_MS;
		(void)sd_event_source_set_time_relative(c->retry, 0);
		(void)sd_event_source_set_enabled(c->retry, SD_EVENT_ONESHOT);
	}
	return 0;
}

static void watch_folder(struct feed_client *c)
{
	const char *slash = strrchr(c->path, '/');
	AUTO_FREE char *folder = NULL;

	if (c->watch || !slash)
		return;
	folder = xstrndup(c->path, slash == c->path ? 1 : (size_t)(slash - c->path));
	c->watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (c->watch_fd < 0 ||
	    inotify_add_watch(c->watch_fd, folder, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR) < 0 ||
	    sd_event_add_io(c->event, &c->watch, c->watch_fd, EPOLLIN, on_watch, c) < 0)
		unwatch(c);
}

static void client_destroy(struct feed_client *c)
{
	(void)sd_event_source_disable_unref(c->io);
	(void)sd_event_source_disable_unref(c->retry);
	unwatch(c);
	if (c->fd >= 0)
		(void)close(c->fd);
	strbuf_done(&c->in);
	strbuf_done(&c->out);
	free(c->path);
	free(c->name);
	(void)sd_event_unref(c->event);
	free(c);
}

static void flush(struct feed_client *c)
{
	size_t sent = 0;

	while (sent < c->out.len) {
		ssize_t n = send(c->fd, c->out.data + sent, c->out.len - sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
			sent += (size_t)n;
		else if (n < 0 && errno != EINTR)
			break; /* full, or gone: reading tells */
	}
	strbuf_drop(&c->out, sent);
	if (c->io)
		(void)sd_event_source_set_io_events(c->io, EPOLLIN | (c->out.len ? EPOLLOUT : 0u));
}

/* Acknowledgements are cumulative: one that is still unsent is replaced, not followed. */
static void acknowledge(struct feed_client *c)
{
	if (c->fd < 0 || c->seq == c->acked || !c->ready || c->out.len > 0)
		return;
	c->acked = c->seq;
	strbuf_printf(&c->out, "{\"ack\":%llu}\n", (unsigned long long)c->seq);
	flush(c);
}

static int take_hello(struct feed_client *c, const json_t *line)
{
	if (c->up || json_get_int(line, "feed", 0) != FEED_VERSION)
		return -EPROTO;
	c->seq = (uint64_t)json_get_int(line, "seq", 0);
	c->up = true;
	c->delay_ms = FEED_RETRY_MS;
	unwatch(c);
	if (c->config.link)
		c->config.link(c->config.ctx, true);
	return 0;
}

static int take_line(struct feed_client *c, const char *text, size_t len)
{
	AUTO_JSON json_t *line = NULL;
	const char *type;
	uint64_t seq;

	if (json_parse_object(text, len, "feed", &line, NULL) < 0)
		return -EPROTO;
	type = json_get_str(line, "type", "");
	seq = (uint64_t)json_get_int(line, "seq", -1);
	if (strcmp(type, FEED_HELLO) == 0)
		return take_hello(c, line);
	/* The snapshot repeats the greeting's number; from then on each line is the next. */
	if (!c->up || seq != c->seq + (c->ready ? 1 : 0))
		return -EPROTO;
	c->seq = seq;
	if (strcmp(type, FEED_READY) == 0) {
		c->ready = true;
		c->acked = UINT64_MAX; /* none yet on this connection */
	}
	if (c->config.line)
		c->config.line(c->config.ctx, type, line);
	return 0;
}

static int take_lines(struct feed_client *c)
{
	size_t pos = 0;
	char *nl;
	int r = 0;

	while (r >= 0 && !c->dying && c->in.len > c->scanned &&
	       (nl = memchr(c->in.data + c->scanned, '\n', c->in.len - c->scanned))) {
		r = take_line(c, c->in.data + pos, (size_t)(nl - c->in.data) - pos);
		pos = (size_t)(nl - c->in.data) + 1;
		c->scanned = pos;
	}
	strbuf_drop(&c->in, pos);
	c->scanned = c->in.len;
	if (c->in.len > FEED_LINE_MAX)
		r = -E2BIG;
	return r;
}

/* Read up to max bytes, hand over the lines, acknowledge. */
static void take(struct feed_client *c, size_t max)
{
	char buf[READ_SIZE];
	const char *why = NULL;
	ssize_t n = 0;

	c->busy = true;
	while (max > 0 && !why && !c->dying) {
		n = recv(c->fd, buf, max < sizeof(buf) ? max : sizeof(buf), MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			why = "closed";
			break;
		}
		max -= (size_t)n;
		strbuf_add(&c->in, buf, (size_t)n);
		if (take_lines(c) < 0)
			why = "sent nonsense";
		if (n < (ssize_t)sizeof(buf))
			break;
	}
	if (!why && !c->dying)
		acknowledge(c);
	if (why)
		disconnect(c, why);
	c->busy = false;
	if (c->dying)
		client_destroy(c);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct feed_client *c = ctx;

	if (events & EPOLLOUT) {
		flush(c);
		acknowledge(c);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		take(c, READ_SIZE);
	return 0;
}

static void disconnect(struct feed_client *c, const char *why)
{
	bool was_up = c->up;

	log_debug("feed lost path=%s reason=\"%s\"", c->path, why);
	c->io = sd_event_source_disable_unref(c->io);
	if (c->fd >= 0)
		(void)close(steal_fd(&c->fd));
	strbuf_drop(&c->in, c->in.len);
	strbuf_drop(&c->out, c->out.len);
	c->scanned = 0;
	c->up = false;
	c->ready = false;
	arm_retry(c);
	if (was_up && c->config.link && !c->dying)
		c->config.link(c->config.ctx, false);
}

static void connect_now(struct feed_client *c)
{
	AUTO_JSON json_t *hello =
		json_pack("{s:s,s:b}", "hello", c->name, "confirms", (int)c->config.confirms);
	AUTO_FREE char *text = json_text(hello);

	/* Watch first, try then: whoever appears in between is seen. */
	watch_folder(c);
	if (sock_connect(c->path, &c->fd, NULL) < 0) {
		c->fd = -1;
		arm_retry(c);
		return;
	}
	if (sd_event_add_io(c->event, &c->io, c->fd, EPOLLIN, on_io, c) < 0) {
		disconnect(c, "cannot watch the socket");
		return;
	}
	c->seq = 0;
	c->acked = 0;
	strbuf_puts(&c->out, text);
	strbuf_putc(&c->out, '\n');
	flush(c);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct feed_client *c = ctx;

	if (c->fd < 0)
		connect_now(c);
	return 0;
}

int feed_client_new(sd_event *event, const struct feed_client_config *config,
		    struct feed_client **ret, struct err *err)
{
	struct feed_client *c = xcalloc(1, sizeof(*c));
	int r;

	*c = (struct feed_client){.event = sd_event_ref(event),
				  .config = *config,
				  .path = xstrdup(config->path),
				  .name = xstrdup(config->name),
				  .fd = -1,
				  .watch_fd = -1,
				  .delay_ms = FEED_RETRY_MS};
	r = sd_event_add_time(event, &c->retry, CLOCK_BOOTTIME, 0, TIMER_US, on_retry, c);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->retry, SD_EVENT_OFF);
	if (r < 0) {
		client_destroy(c);
		return err_sys(err, -r, "cannot follow '%s'", config->path);
	}
	connect_now(c);
	*ret = c;
	return 0;
}

void feed_client_free(struct feed_client *c)
{
	if (!c)
		return;
	if (c->busy)
		c->dying = true;
	else
		client_destroy(c);
}

bool feed_client_ready(const struct feed_client *c)
{
	return c->ready;
}

bool feed_client_connected(const struct feed_client *c)
{
	return c->fd >= 0;
}

void feed_client_drain(struct feed_client *c)
{
	int there = 0;

	if (c->busy || c->fd < 0 || ioctl(c->fd, FIONREAD, &there) < 0 || there <= 0)
		return;
	take(c, (size_t)there);
}
