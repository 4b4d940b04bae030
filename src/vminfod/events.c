/* SPDX-License-Identifier: Apache-2.0 */
/* The event stream; see events.h. */
#include "vminfod/events.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "daemon/daemon.h"
#include "net/http.h"
#include "vminfod/record.h"
#include "vminfod/stamp.h"

#define QUOTED_KEPT_MS 2000u      /* the snapshot's text, for subscribers who come together */
#define REPLAY_KEPT_US 600000000u /* records, for who wanted numbers and left */
#define UUIDS_MAX      64u

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
	unsigned wants;
	struct record_filter filter; /* its texts are ours */
	char *uuids, *paths;
	sd_event_source *heart;
};

struct hub {
	sd_event *event;
	struct cache *cache;
	struct listener *listeners;
	size_t nlisteners;
	struct hub_stats stats; /* its counters */
	sd_event_source *forget;
	char boot[UUID_LEN + 1];
	uint64_t seq;
	struct ring *ring;
	size_t nseq;          /* listeners that want numbers: they may come back */
	uint64_t seq_left_us; /* when the last of them left; 0: never was one */
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
	h->ring = ring_new();
	uuid_random(h->boot);
	return h;
}

static void listener_free(struct listener *l)
{
	(void)sd_event_source_disable_unref(l->heart);
	sock_peer_done(&l->peer);
	free(l->agent);
	free(l->uuids);
	free(l->paths);
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
	ring_free(h->ring);
	free(h);
}

/* --- records --- */

static void put_head(struct strbuf *sb, const char *type, int64_t wall_ms)
{
	char date[ISO_TIME_LEN];

	strbuf_printf(sb, "{\"type\":\"%s\",\"date\":\"%s\"", type,
		      clock_iso(wall_ms, date, sizeof(date)));
}

static struct viewer viewer_of(const struct listener *l)
{
	return (struct viewer){l->all, l->has_peer ? &l->peer : NULL};
}

static struct http_body *body_of(struct strbuf *sb)
{
	size_t len = sb->len;

	return http_body_new(strbuf_steal(sb), len);
}

/* The bodies of one record, made when the first listener wants them. */
struct bodies {
	struct http_body *of[2][WANT_VARIANTS];
};

static struct http_body *body_for(struct bodies *b, const struct record *r, int open,
				  unsigned wants)
{
	struct strbuf sb = {0};

	if (!b->of[open][wants]) {
		record_put(r, open, wants, &sb);
		b->of[open][wants] = body_of(&sb);
	}
	return b->of[open][wants];
}

static void bodies_done(struct bodies *b)
{
	for (size_t i = 0; i < 2 * WANT_VARIANTS; i++)
		http_body_unref(b->of[i / WANT_VARIANTS][i % WANT_VARIANTS]);
}

static void send_record(struct listener *l, const struct record *r, const struct cache_event *ev,
			struct bodies *bodies)
{
	struct viewer who = viewer_of(l);
	int open = record_open(r, &who);

	if (!l->stream || record_hidden(r, &who) ||
	    !record_wanted(r, &l->filter, open, open ? ev->open_changes : ev->changes))
		return;
	/* Over its bound the stream ends by itself; on_end tells. */
	(void)http_stream_send(l->stream, body_for(bodies, r, open, l->wants));
}

static bool kept_for_some(const struct hub *h)
{
	return h->nseq > 0 || (h->seq_left_us && clock_us() - h->seq_left_us < REPLAY_KEPT_US);
}

void hub_event(void *ctx, const struct cache_event *ev)
{
	struct hub *h = ctx;
	struct record *r = record_new(ev, ++h->seq, clock_wall_ms());
	struct bodies bodies = {0};

	h->stats.records++;
	if (kept_for_some(h))
		ring_add(h->ring, r);
	else
		ring_clear(h->ring);
	for (struct listener *l = h->listeners; l; l = l->next)
		send_record(l, r, ev, &bodies);
	bodies_done(&bodies);
	record_unref(r);
}

bool hub_listening(void *ctx)
{
	struct hub *h = ctx;

	if (h->listeners || kept_for_some(h))
		return true;
	/* It will not be told: a number is missing from here on. */
	h->seq++;
	ring_clear(h->ring);
	return false;
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
	h->nlisteners--;
	if ((l->wants & WANT_SEQ) && --h->nseq == 0)
		h->seq_left_us = clock_us();
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

/* Up to the snapshot's text. */
static struct http_body *ready_head(const struct listener *l)
{
	struct strbuf sb = {0};

	put_head(&sb, EVENT_READY, l->wall_ms);
	strbuf_printf(&sb, ",\"uuid\":\"%s\"", l->uuid);
	if (l->wants & WANT_SEQ)
		strbuf_printf(&sb, ",\"boot\":\"%s\",\"seq\":%llu", l->hub->boot,
			      (unsigned long long)l->hub->seq);
	strbuf_puts(&sb, ",\"vms\":");
	return body_of(&sb);
}

static void send_ready(struct listener *l, struct http_body *tail)
{
	struct http_body *head = ready_head(l);

	(void)http_stream_send(l->stream, head);
	(void)http_stream_send(l->stream, tail);
	http_body_unref(head);
}

/* --- since --- */

static bool parse_since(const char *text, char boot[UUID_LEN + 1], uint64_t *ret_seq)
{
	char *end;

	if (strlen(text) < UUID_LEN + 2 || text[UUID_LEN] != ':' ||
	    strspn(text + UUID_LEN + 1, "0123456789") != strlen(text + UUID_LEN + 1))
		return false;
	memcpy(boot, text, UUID_LEN);
	boot[UUID_LEN] = '\0';
	*ret_seq = strtoull(text + UUID_LEN + 1, &end, 10);
	return uuid_valid(boot) && strlen(text) < UUID_LEN + 21;
}

/* Why what came since cannot be told, NULL: it can. */
static const char *gap_reason(const struct hub *h, const char *since, uint64_t *ret_seq)
{
	char boot[UUID_LEN + 1];

	if (!parse_since(since, boot, ret_seq) || !str_eq(boot, h->boot))
		return "vminfod was started again";
	if (*ret_seq > h->seq)
		return "no such record";
	if (*ret_seq < h->seq && !ring_has(h->ring, *ret_seq + 1))
		return "the records are not kept any more";
	return NULL;
}

static void send_gap(struct listener *l, const char *since, const char *reason)
{
	struct strbuf sb = {0};
	struct http_body *body;

	put_head(&sb, EVENT_GAP, l->wall_ms);
	strbuf_printf(&sb, ",\"since\":\"%s\",\"reason\":\"%s\"}\n", since, reason);
	body = body_of(&sb);
	(void)http_stream_send(l->stream, body);
	http_body_unref(body);
	l->hub->stats.gaps++;
}

/* All that was missed in one piece: the bound of a stream is for what comes after. */
static void replay(struct listener *l, uint64_t since)
{
	struct hub *h = l->hub;
	struct viewer who = viewer_of(l);
	struct strbuf sb = {0};
	struct http_body *body;

	for (uint64_t seq = since + 1; seq <= h->seq; seq++) {
		const struct record *r = ring_at(h->ring, seq);
		int open = record_open(r, &who);

		if (record_hidden(r, &who) || !record_wanted(r, &l->filter, open, NULL))
			continue;
		record_put(r, open, l->wants, &sb);
		h->stats.replayed++;
	}
	if (sb.len == 0)
		return;
	body = body_of(&sb);
	(void)http_stream_send(l->stream, body);
	http_body_unref(body);
}

static size_t parts(const char *list)
{
	size_t n = 1;

	for (const char *p = list; *p; p++)
		n += *p == ',';
	return n;
}

static bool are_uuids(const char *list)
{
	for (const char *p = list;; p += UUID_LEN + 1) {
		char one[UUID_LEN + 1] = {0};

		memcpy(one, p, strnlen(p, UUID_LEN));
		if (!uuid_valid(one) || (p[UUID_LEN] && p[UUID_LEN] != ','))
			return false;
		if (!p[UUID_LEN])
			return true;
	}
}

int hub_check(const struct hub_wish *wish, struct err *err)
{
	char boot[UUID_LEN + 1];
	uint64_t seq;

	if (wish->since && !parse_since(wish->since, boot, &seq))
		return err_set(err, EINVAL, "since: want BOOT:SEQ of a record seen before");
	if (wish->uuids && (!are_uuids(wish->uuids) || parts(wish->uuids) > UUIDS_MAX))
		return err_set(err, EINVAL, "uuid: want uuids (at most %u), a comma between two",
			       UUIDS_MAX);
	if (wish->paths && (!*wish->paths || parts(wish->paths) > PATHS_MAX))
		return err_set(err, EINVAL,
			       "path: want property paths as \"state,nics.*.ip\" (at most %u)",
			       PATHS_MAX);
	return 0;
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

static struct listener *listener_new(struct hub *h, const struct viewer *who,
				     const struct hub_wish *wish)
{
	struct listener *l = xcalloc(1, sizeof(*l));

	l->hub = h;
	l->wall_ms = clock_wall_ms();
	l->us = clock_us();
	l->all = who->all;
	l->heartbeat_s = wish->heartbeat_s;
	l->wants = wish->wants | (wish->since ? WANT_SEQ : 0);
	l->filter.uuids = l->uuids = xstrdup(wish->uuids);
	l->filter.paths = l->paths = xstrdup(wish->paths);
	for (char *p = l->uuids; p && *p; p++)
		*p = (char)tolower((unsigned char)*p);
	copy_peer(l, who->peer);
	uuid_random(l->uuid);
	l->next = h->listeners;
	h->listeners = l;
	h->nlisteners++;
	h->nseq += (l->wants & WANT_SEQ) != 0;
	return l;
}

/* Open the stream with one first piece, the snapshot or a gap before it, beside the bound. */
static void start_with_ready(struct listener *l, struct http_request *req,
			     struct http_stream_config *config, const char *since,
			     const char *reason)
{
	struct viewer who = viewer_of(l);
	struct http_body *tail = cache_vms_quoted(l->hub->cache, &who, l->uuids);
	size_t len;

	(void)http_body_data(tail, &len);
	config->max_bytes = HTTP_STREAM_BYTES + len;
	l->stream = http_reply_stream(req, config);
	if (reason)
		send_gap(l, since, reason);
	send_ready(l, tail);
	http_body_unref(tail);
}

void hub_subscribe(struct hub *h, struct http_request *req, const struct viewer *who,
		   const struct hub_wish *wish)
{
	struct listener *l = listener_new(h, who, wish);
	struct http_stream_config config = {.type = HTTP_JSON, .on_end = on_end, .ctx = l};
	const char *reason = NULL;
	uint64_t since = 0;

	l->agent = xstrdup(http_header(req, "User-Agent"));
	if (wish->since)
		reason = gap_reason(h, wish->since, &since);
	if (wish->since && !reason) {
		l->stream = http_reply_stream(req, &config);
		replay(l, since);
	} else {
		start_with_ready(l, req, &config, wish->since, reason);
	}
	if (l->heartbeat_s)
		(void)timer_set(h->event, &l->heart, l->heartbeat_s * 1000ull, on_heart, l);
	(void)timer_set(h->event, &h->forget, QUOTED_KEPT_MS, forget_quoted, h);
}

/* --- status --- */

void hub_stats(const struct hub *h, struct hub_stats *ret)
{
	*ret = h->stats;
	ret->seq = h->seq;
	ret->listeners = h->nlisteners;
	ring_size(h->ring, &ret->kept, &ret->kept_bytes);
	for (const struct listener *l = h->listeners; l; l = l->next) {
		size_t events, bytes;

		http_stream_queue(l->stream, &events, &bytes);
		ret->queued += events;
		ret->queued_bytes += bytes;
	}
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
