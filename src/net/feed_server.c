/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The giving end of a feed; see feed.h and docs/feeds.md. A line is written to each subscriber's
 * socket at once; what does not fit waits in its bounded buffer. Waits for acknowledgements are
 * settled from the loop only, in the order they were made, so their deadlines are in order too.
 */
#include <errno.h>
#include <pwd.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "net/feed.h"

#define SUBSCRIBERS_MAX 16
#define REQUEST_MAX     4096u /* a line of a subscriber */
#define TIMER_US        1000

struct subscriber {
	struct feed_server *server;
	struct subscriber *next;
	sd_event_source *io;
	int fd;
	struct strbuf in, out;
	size_t sent;  /* of out */
	size_t bound; /* of what may wait: FEED_QUEUE_MAX beside the snapshot */
	char name[32];
	bool hello, confirms, broken;
	uint64_t acked;
};

struct feed_wait {
	struct feed_server *server;
	struct feed_wait *next;
	uint64_t seq, deadline_ms, id;
	void (*done)(void *ctx, bool confirmed);
	void *ctx;
};

struct feed_server {
	sd_event *event;
	struct feed_server_config config;
	sd_event_source *accept, *settle, *timer;
	int fd;
	uint64_t seq, last_id;
	struct subscriber *subscribers, *snapshot_for;
	struct feed_wait *waits, **waits_end;
};

/* --- subscribers --- */

static void subscriber_free(struct subscriber *sub)
{
	(void)sd_event_source_disable_unref(sub->io);
	(void)close(sub->fd);
	strbuf_done(&sub->in);
	strbuf_done(&sub->out);
	free(sub);
}

static int on_settle(sd_event_source *source, void *ctx);

/*
 * Everybody who waits may have to look again. A new source each time: sd-event keeps a defer
 * source's place in the queue from its making on, so one that is armed again and again would
 * starve every other source.
 */
static void settle_soon(struct feed_server *s)
{
	if (!s->settle)
		(void)sd_event_add_defer(s->event, &s->settle, on_settle, s);
}

static void break_off(struct subscriber *sub, const char *why)
{
	if (sub->broken)
		return;
	log_debug("feed subscriber dropped name=%s reason=\"%s\"", sub->name, why);
	sub->broken = true; /* freed from the loop */
	sub->confirms = false;
	(void)sd_event_source_set_enabled(sub->io, SD_EVENT_OFF);
	settle_soon(sub->server);
}

static void sweep_broken(struct feed_server *s)
{
	struct subscriber **at = &s->subscribers;

	while (*at) {
		struct subscriber *sub = *at;

		if (sub->broken) {
			*at = sub->next;
			subscriber_free(sub);
		} else {
			at = &sub->next;
		}
	}
}

static void flush(struct subscriber *sub)
{
	while (!sub->broken && sub->sent < sub->out.len) {
		ssize_t n = send(sub->fd, sub->out.data + sub->sent, sub->out.len - sub->sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0)
			sub->sent += (size_t)n;
		else if (n < 0 && errno == EAGAIN)
			break;
		else if (n < 0 && errno != EINTR)
			break_off(sub, "gone");
	}
	if (sub->sent == sub->out.len || sub->sent > sub->out.len / 2) {
		strbuf_drop(&sub->out, sub->sent);
		sub->sent = 0;
	}
	if (sub->out.len - sub->sent > sub->bound)
		break_off(sub, "too slow");
	(void)sd_event_source_set_io_events(sub->io, EPOLLIN | (sub->out.len ? EPOLLOUT : 0u));
}

static void put_line(struct subscriber *sub, const char *text)
{
	strbuf_puts(&sub->out, text);
	strbuf_putc(&sub->out, '\n');
}

/* {"type":T,"seq":N,"uuid":U,KEY:VALUE}; caller frees. */
static char *line_text(const char *type, uint64_t seq, const char *uuid, const char *key,
		       const json_t *value)
{
	AUTO_JSON json_t *line = json_pack("{s:s,s:I}", "type", type, "seq", (json_int_t)seq);
	char *text;

	json_put_str(line, "uuid", uuid);
	if (key && value)
		(void)json_object_set(line, key, (json_t *)(uintptr_t)value);
	text = json_text(line);
	if (strlen(text) < FEED_LINE_MAX)
		return text;
	/* A reader would cut us off at this line, again and again. */
	log_debug("feed line too long type=%s uuid=%s", type, uuid);
	free(text);
	(void)json_object_set_new(line, key, json_object());
	return json_text(line);
}

static uint64_t publish(struct feed_server *s, const char *type, const char *uuid, const char *key,
			const json_t *value)
{
	AUTO_FREE char *text = line_text(type, ++s->seq, uuid, key, value);

	for (struct subscriber *sub = s->subscribers; sub; sub = sub->next) {
		if (!sub->hello || sub->broken)
			continue;
		put_line(sub, text);
		flush(sub);
	}
	return s->seq;
}

static void greet(struct subscriber *sub)
{
	struct feed_server *s = sub->server;
	AUTO_JSON json_t *hello = json_pack("{s:s,s:i,s:s,s:s,s:I}", "type", FEED_HELLO, "feed",
					    FEED_VERSION, "daemon", s->config.daemon, "version",
					    DROVER_VERSION, "seq", (json_int_t)s->seq);
	AUTO_FREE char *text = json_text(hello);
	AUTO_FREE char *ready = line_text(FEED_READY, s->seq, NULL, NULL, NULL);

	sub->hello = true;
	put_line(sub, text);
	s->snapshot_for = sub;
	if (s->config.snapshot)
		s->config.snapshot(s, s->config.ctx);
	s->snapshot_for = NULL;
	put_line(sub, ready);
	sub->bound = sub->out.len + FEED_QUEUE_MAX;
	flush(sub);
}

/* {"hello":NAME,"confirms":true} once, then {"ack":N}. */
static int take_line(struct subscriber *sub, const char *line, size_t len)
{
	AUTO_JSON json_t *json = NULL;
	const char *name;
	json_int_t ack;

	if (json_parse_object(line, len, "feed", &json, NULL) < 0)
		return -EPROTO;
	name = json_get_str(json, "hello", NULL);
	if (name && !sub->hello) {
		(void)snprintf(sub->name, sizeof(sub->name), "%s", name);
		sub->confirms = json_get_bool(json, "confirms", false);
		greet(sub);
		return 0;
	}
	ack = json_get_int(json, "ack", -1);
	if (!sub->hello || ack < 0 || (uint64_t)ack > sub->server->seq)
		return -EPROTO;
	if ((uint64_t)ack > sub->acked)
		sub->acked = (uint64_t)ack;
	settle_soon(sub->server);
	return 0;
}

static void take_lines(struct subscriber *sub)
{
	size_t pos = 0;
	char *nl;

	while (!sub->broken && pos < sub->in.len &&
	       (nl = memchr(sub->in.data + pos, '\n', sub->in.len - pos))) {
		size_t len = (size_t)(nl - sub->in.data) - pos;

		if (take_line(sub, sub->in.data + pos, len) < 0)
			break_off(sub, "sent nonsense");
		pos += len + 1;
	}
	strbuf_drop(&sub->in, pos);
	if (sub->in.len > REQUEST_MAX)
		break_off(sub, "sent too long a line");
}

static int on_subscriber(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct subscriber *sub = ctx;
	char buf[REQUEST_MAX];
	ssize_t n;

	if (events & EPOLLOUT)
		flush(sub);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n > 0) {
			strbuf_add(&sub->in, buf, (size_t)n);
			take_lines(sub);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			break_off(sub, "left");
		}
	}
	return 0;
}

static bool may_subscribe(const struct feed_server *s, int fd)
{
	struct sock_peer peer;
	bool ok;

	if (sock_peer(fd, &peer, NULL) < 0)
		return false;
	ok = peer.uid == 0 || peer.uid == geteuid() ||
	     (s->config.has_reader && peer.uid == s->config.reader);
	sock_peer_done(&peer);
	return ok;
}

/* Over the limit, one that has not said hello makes room. */
static bool make_room(struct feed_server *s)
{
	struct subscriber *oldest_silent = NULL;
	size_t count = 0;

	for (struct subscriber *sub = s->subscribers; sub; sub = sub->next) {
		if (sub->broken)
			continue;
		count++;
		if (!sub->hello)
			oldest_silent = sub;
	}
	if (count < SUBSCRIBERS_MAX)
		return true;
	if (oldest_silent)
		break_off(oldest_silent, "silent");
	return oldest_silent != NULL;
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct feed_server *s = ctx;
	AUTO_FD int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct subscriber *sub;

	if (client < 0 || !may_subscribe(s, client) || !make_room(s))
		return 0;
	sub = xcalloc(1, sizeof(*sub));
	*sub = (struct subscriber){
		.server = s, .fd = steal_fd(&client), .bound = FEED_QUEUE_MAX, .name = "?"};
	if (sd_event_add_io(s->event, &sub->io, sub->fd, EPOLLIN, on_subscriber, sub) < 0) {
		subscriber_free(sub);
		return 0;
	}
	sub->next = s->subscribers;
	s->subscribers = sub;
	return 0;
}

/* --- waits --- */

static bool acked_by_all(const struct feed_server *s, uint64_t seq, bool *ret_anyone)
{
	bool all = true;

	*ret_anyone = false;
	for (const struct subscriber *sub = s->subscribers; sub; sub = sub->next) {
		if (!sub->confirms)
			continue;
		*ret_anyone = true;
		all &= sub->acked >= seq;
	}
	return all && *ret_anyone;
}

static void unlink_wait(struct feed_wait *w)
{
	struct feed_server *s = w->server;
	struct feed_wait **at = &s->waits;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	if (!w->next)
		s->waits_end = at;
}

/* The first wait that is over, of those made up to last_id. */
static struct feed_wait *next_over(struct feed_server *s, uint64_t last_id, bool *ret_confirmed)
{
	uint64_t now = clock_ms();

	for (struct feed_wait *w = s->waits; w && w->id <= last_id; w = w->next) {
		bool anyone;

		*ret_confirmed = acked_by_all(s, w->seq, &anyone);
		if (*ret_confirmed || !anyone || now >= w->deadline_ms)
			return w;
	}
	return NULL;
}

static void arm_timer(struct feed_server *s)
{
	uint64_t now = clock_ms();
	uint64_t left;

	if (!s->waits)
		return;
	left = s->waits->deadline_ms > now ? s->waits->deadline_ms - now : 0;
	(void)sd_event_source_set_time_relative(s->timer, left * 1000 + TIMER_US);
	(void)sd_event_source_set_enabled(s->timer, SD_EVENT_ONESHOT);
}

static void settle(struct feed_server *s)
{
	uint64_t last_id = s->last_id; /* those made by a done() wait for the next turn */
	struct feed_wait *w;
	bool confirmed;

	sweep_broken(s);
	while ((w = next_over(s, last_id, &confirmed))) {
		unlink_wait(w);
		w->done(w->ctx, confirmed);
		free(w);
	}
	arm_timer(s);
}

static int on_settle(sd_event_source *source, void *ctx)
{
	struct feed_server *s = ctx;

	s->settle = sd_event_source_disable_unref(s->settle);
	settle(s);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *ctx)
{
	settle(ctx);
	return 0;
}

struct feed_wait *feed_when_seen(struct feed_server *s, uint64_t seq,
				 void (*done)(void *ctx, bool confirmed), void *ctx)
{
	struct feed_wait *w = xcalloc(1, sizeof(*w));

	*w = (struct feed_wait){.server = s,
				.seq = seq,
				.deadline_ms = clock_ms() + FEED_CONFIRM_MS,
				.id = ++s->last_id,
				.done = done,
				.ctx = ctx};
	*s->waits_end = w;
	s->waits_end = &w->next;
	settle_soon(s);
	return w;
}

void feed_wait_cancel(struct feed_wait *w)
{
	if (!w)
		return;
	unlink_wait(w);
	free(w);
}

/* --- life --- */

static int add_sources(struct feed_server *s)
{
	int r = sd_event_add_io(s->event, &s->accept, s->fd, EPOLLIN, on_accept, s);

	if (r >= 0)
		r = sd_event_add_time(s->event, &s->timer, CLOCK_BOOTTIME, 0, TIMER_US, on_timer,
				      s);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
	return r;
}

int feed_find_reader(const char *name, uid_t *ret, struct err *err)
{
	const struct passwd *pw = getpwnam(name);

	if (!pw)
		return err_set(err, EINVAL, "there is no user '%s'", name);
	*ret = pw->pw_uid;
	return 0;
}

static void default_reader(struct feed_server *s)
{
	if (!s->config.has_reader && geteuid() == 0)
		s->config.has_reader = feed_find_reader(FEED_READER, &s->config.reader, NULL) == 0;
}

int feed_server_new(sd_event *event, const struct feed_server_config *config,
		    struct feed_server **ret, struct err *err)
{
	struct feed_server *s = xcalloc(1, sizeof(*s));
	int r;

	s->event = sd_event_ref(event);
	s->config = *config;
	s->waits_end = &s->waits;
	default_reader(s);
	r = sock_listen(config->path, 0600, &s->fd, err);
	if (r < 0) {
		s->fd = -1;
	} else if (s->config.has_reader && s->config.reader != geteuid() &&
		   chown(config->path, s->config.reader, (gid_t)-1) < 0) {
		r = err_sys(err, errno, "cannot give '%s' to uid %u", config->path,
			    (unsigned)s->config.reader);
	} else {
		r = add_sources(s);
		if (r < 0)
			(void)err_sys(err, -r, "cannot watch '%s'", config->path);
	}
	if (r < 0) {
		feed_server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void feed_server_free(struct feed_server *s)
{
	if (!s)
		return;
	while (s->waits)
		feed_wait_cancel(s->waits);
	while (s->subscribers) {
		struct subscriber *sub = s->subscribers;

		s->subscribers = sub->next;
		subscriber_free(sub);
	}
	(void)sd_event_source_disable_unref(s->accept);
	(void)sd_event_source_disable_unref(s->settle);
	(void)sd_event_source_disable_unref(s->timer);
	if (s->fd >= 0)
		(void)close(s->fd);
	(void)sd_event_unref(s->event);
	free(s);
}

uint64_t feed_vm(struct feed_server *s, const char *uuid, const json_t *facts)
{
	return publish(s, FEED_VM, uuid, "facts", facts);
}

uint64_t feed_gone(struct feed_server *s, const char *uuid)
{
	return publish(s, FEED_GONE, uuid, NULL, NULL);
}

uint64_t feed_begin(struct feed_server *s, const char *uuid, const json_t *cause)
{
	return publish(s, FEED_BEGIN, uuid, "cause", cause);
}

uint64_t feed_job(struct feed_server *s, const char *uuid, const json_t *job)
{
	return publish(s, FEED_JOB, uuid, "job", job);
}

uint64_t feed_commit(struct feed_server *s, const char *uuid)
{
	return publish(s, FEED_COMMIT, uuid, NULL, NULL);
}

void feed_snapshot_vm(struct feed_server *s, const char *uuid, const json_t *facts)
{
	AUTO_FREE char *text = NULL;

	if (!s->snapshot_for)
		return;
	text = line_text(FEED_VM, s->seq, uuid, "facts", facts);
	put_line(s->snapshot_for, text);
}

uint64_t feed_seq(const struct feed_server *s)
{
	return s->seq;
}
