/* SPDX-License-Identifier: Apache-2.0 */
/* The event stream; see events.h. */
#include "vminfod/events.h"

#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/uuid.h"
#include "daemon/daemon.h"
#include "net/http.h"
#include "vminfod/stamp.h"

#define QUOTED_KEPT_MS 2000u /* the snapshot's text, for subscribers who come together */

struct listener {
	struct hub *hub;
	struct listener *next;
	struct http_stream *stream;
	char uuid[37];
	char *agent; /* NULL: not said */
	int64_t wall_ms;
	uint64_t us;
	bool all;
	bool has_peer;
	struct sock_peer peer;
	unsigned heartbeat_s;
	sd_event_source *heart;
};

struct hub {
	sd_event *event;
	struct cache *cache;
	struct listener *listeners;
	struct hub_stats stats;
	sd_event_source *forget;
};

static int forget_quoted(sd_event_source *source, uint64_t us, void *ctx)
{
	cache_drop_quoted(((struct hub *)ctx)->cache);
	return 0;
}

struct hub *hub_new(sd_event *event, struct cache *cache)
{
	struct hub *h = xcalloc(1, sizeof(*h));

	h->event = sd_event_ref(event);
	h->cache = cache;
	return h;
}

static void listener_free(struct listener *l)
{
	(void)sd_event_source_disable_unref(l->heart);
	sock_peer_done(&l->peer);
	free(l->agent);
	free(l);
}

void hub_free(struct hub *h)
{
	struct listener *l;

	if (!h)
		return;
	while ((l = h->listeners) != NULL) {
		h->listeners = l->next;
		listener_free(l);
	}
	(void)sd_event_source_disable_unref(h->forget);
	(void)sd_event_unref(h->event);
	free(h);
}

/* --- records --- */

static void put_head(struct strbuf *sb, const char *type, int64_t wall_ms)
{
	char date[ISO_TIME_LEN];

	strbuf_printf(sb, "{\"type\":\"%s\",\"date\":\"%s\"", type,
		      clock_iso(wall_ms, date, sizeof(date)));
}

char *record_text(const struct cache_event *ev, int64_t wall_ms, bool open)
{
	const struct text *vm = open ? ev->open : ev->full;
	const json_t *changes = open ? ev->open_changes : ev->changes;
	struct strbuf sb = {0};

	if (open && ev->changes && !changes)
		return NULL;
	put_head(&sb, ev->type, wall_ms);
	strbuf_printf(&sb, ",\"zonename\":\"%s\",\"uuid\":\"%s\"", ev->uuid, ev->uuid);
	if (strcmp(ev->type, EVENT_DELETE) != 0) {
		strbuf_puts(&sb, ",\"vm\":");
		strbuf_add(&sb, vm->data, vm->len);
	}
	if (changes) {
		AUTO_FREE char *text = json_text(changes);

		strbuf_puts(&sb, ",\"changes\":");
		strbuf_puts(&sb, text);
	}
	if (ev->cause) {
		strbuf_puts(&sb, ",\"cause\":");
		strbuf_puts(&sb, ev->cause);
	}
	strbuf_puts(&sb, "}\n");
	return strbuf_steal(&sb);
}

static struct http_body *record_body(const struct cache_event *ev, int64_t wall_ms, bool open)
{
	char *text = record_text(ev, wall_ms, open);

	return text ? http_body_new(text, strlen(text)) : NULL;
}

static bool may_see_all(const struct listener *l, const struct cache_event *ev)
{
	struct viewer who = {l->all, l->has_peer ? &l->peer : NULL};

	return viewer_may(&who, ev->owner_uid, ev->group_gid);
}

void hub_event(void *ctx, const struct cache_event *ev)
{
	struct hub *h = ctx;
	bool differ = ev->full != ev->open || ev->changes != ev->open_changes;
	struct http_body *bodies[2] = {NULL, NULL};
	bool made[2] = {false, false};
	int64_t now = clock_wall_ms();

	h->stats.records++;
	for (struct listener *l = h->listeners; l; l = l->next) {
		int open = differ && !may_see_all(l, ev);

		if (!made[open])
			bodies[open] = record_body(ev, now, open);
		made[open] = true;
		/* Over its bound the stream ends by itself; on_end tells. */
		if (bodies[open] && l->stream)
			(void)http_stream_send(l->stream, bodies[open]);
	}
	http_body_unref(bodies[0]);
	http_body_unref(bodies[1]);
}

bool hub_listening(void *ctx)
{
	return ((struct hub *)ctx)->listeners != NULL;
}

/* --- listeners --- */

static void on_end(struct http_stream *s, enum http_stream_end why, void *ctx)
{
	static const char *const reasons[] = {
		[HTTP_STREAM_CLIENT] = "client left",
		[HTTP_STREAM_FULL] = "queue full",
		[HTTP_STREAM_STALLED] = "took nothing",
		[HTTP_STREAM_CLOSED] = "closed",
	};
	struct listener *l = ctx;
	struct hub *h = l->hub;

	h->stats.full += why == HTTP_STREAM_FULL;
	h->stats.stalled += why == HTTP_STREAM_STALLED;
	log_at(why == HTTP_STREAM_FULL || why == HTTP_STREAM_STALLED ? LOG_LEVEL_WARN
								     : LOG_LEVEL_DEBUG,
	       "listener=%s ended reason=\"%s\" agent=\"%s\"", l->uuid, reasons[why],
	       l->agent ? l->agent : "");
	for (struct listener **at = &h->listeners; *at; at = &(*at)->next) {
		if (*at != l)
			continue;
		*at = l->next;
		break;
	}
	listener_free(l);
}

static void copy_peer(struct listener *l, const struct sock_peer *peer)
{
	l->has_peer = peer != NULL;
	if (!peer)
		return;
	l->peer = *peer;
	l->peer.groups = xcalloc(peer->ngroups + 1, sizeof(gid_t));
	if (peer->ngroups)
		memcpy(l->peer.groups, peer->groups, peer->ngroups * sizeof(gid_t));
}

static struct http_body *ready_head(const struct listener *l)
{
	struct strbuf sb = {0};
	size_t len;

	put_head(&sb, EVENT_READY, l->wall_ms);
	strbuf_printf(&sb, ",\"uuid\":\"%s\",\"vms\":", l->uuid);
	len = sb.len;
	return http_body_new(strbuf_steal(&sb), len);
}

static void send_ready(struct listener *l, struct http_body *tail)
{
	struct http_body *head = ready_head(l);

	(void)http_stream_send(l->stream, head);
	(void)http_stream_send(l->stream, tail);
	http_body_unref(head);
}

static int on_heart(sd_event_source *source, uint64_t us, void *ctx)
{
	struct listener *l = ctx;
	struct http_body *beat = http_body_new(xstrdup("\n"), 1);

	(void)http_stream_send(l->stream, beat);
	http_body_unref(beat);
	(void)timer_set(l->hub->event, &l->heart, l->heartbeat_s * 1000ull, on_heart, l);
	return 0;
}

void hub_subscribe(struct hub *h, struct http_request *req, const struct viewer *who,
		   unsigned heartbeat_s)
{
	struct listener *l = xcalloc(1, sizeof(*l));
	struct http_stream_config config = {.type = HTTP_JSON, .on_end = on_end, .ctx = l};
	struct http_body *tail = cache_vms_quoted(h->cache, who);
	size_t len;

	(void)http_body_data(tail, &len);
	/* The snapshot is one record in two pieces; it does not count against the bound. */
	config.max_bytes = HTTP_STREAM_BYTES + len;
	l->hub = h;
	l->agent = xstrdup(http_header(req, "User-Agent"));
	l->wall_ms = clock_wall_ms();
	l->us = clock_us();
	l->all = who->all;
	l->heartbeat_s = heartbeat_s;
	copy_peer(l, who->peer);
	uuid_random(l->uuid);
	l->stream = http_reply_stream(req, &config);
	l->next = h->listeners;
	h->listeners = l;
	send_ready(l, tail);
	http_body_unref(tail);
	if (heartbeat_s)
		(void)timer_set(h->event, &l->heart, heartbeat_s * 1000ull, on_heart, l);
	(void)timer_set(h->event, &h->forget, QUOTED_KEPT_MS, forget_quoted, h);
}

/* --- status --- */

const struct hub_stats *hub_stats(const struct hub *h)
{
	return &h->stats;
}

static json_t *listener_status(const struct listener *l)
{
	char stamp[STAMP_LEN], date[ISO_TIME_LEN], ago[DURATION_LEN];
	json_t *j = json_object();
	size_t events, bytes;

	json_put_str(j, "userAgent", l->agent);
	json_put_str(j, "createdTime", stamp_text(l->us * 1000, stamp, sizeof(stamp)));
	json_put_str(j, "createdDate", clock_iso(l->wall_ms, date, sizeof(date)));
	json_put_str(j, "createdAgo", duration_text((clock_us() - l->us) * 1000, ago, sizeof(ago)));
	http_stream_queue(l->stream, &events, &bytes);
	json_put_int(j, "queuedRecords", (json_int_t)events);
	json_put_int(j, "queuedBytes", (json_int_t)bytes);
	return j;
}

json_t *hub_status(const struct hub *h)
{
	json_t *j = json_object();

	for (const struct listener *l = h->listeners; l; l = l->next)
		(void)json_object_set_new(j, l->uuid, listener_status(l));
	return j;
}
