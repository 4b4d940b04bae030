/* SPDX-License-Identifier: Apache-2.0 */
/* Event records and the ring of the last ones; see record.h. */
#include "vminfod/record.h"

#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"

struct record {
	unsigned refs;
	uint64_t seq;
	char uuid[37];
	bool modify;
	bool differ; /* not the same for everybody */
	uint32_t owner_uid, group_gid;
	char *texts[2]; /* up to what is on request; [1] of everybody, NULL: the same or nothing */
	char *cause;
	size_t bytes;
};

static char *make_text(const struct cache_event *ev, int64_t wall_ms, bool open)
{
	const struct text *vm = open ? ev->open : ev->full;
	const json_t *changes = open ? ev->open_changes : ev->changes;
	char date[ISO_TIME_LEN];
	struct strbuf sb = {0};

	strbuf_printf(&sb, "{\"type\":\"%s\",\"date\":\"%s\",\"zonename\":\"%s\",\"uuid\":\"%s\"",
		      ev->type, clock_iso(wall_ms, date, sizeof(date)), ev->uuid, ev->uuid);
	if (strcmp(ev->type, EVENT_DELETE) != 0) {
		strbuf_puts(&sb, ",\"vm\":");
		strbuf_add(&sb, vm->data, vm->len);
	}
	if (changes) {
		AUTO_FREE char *text = json_text(changes);

		strbuf_puts(&sb, ",\"changes\":");
		strbuf_puts(&sb, text);
	}
	return strbuf_steal(&sb);
}

struct record *record_new(const struct cache_event *ev, uint64_t seq, int64_t wall_ms)
{
	struct record *r = xcalloc(1, sizeof(*r));
	bool gone = strcmp(ev->type, EVENT_DELETE) == 0;

	*r = (struct record){.refs = 1,
			     .seq = seq,
			     .modify = ev->changes != NULL,
			     .differ = !gone &&
				       (ev->full != ev->open || ev->changes != ev->open_changes),
			     .owner_uid = ev->owner_uid,
			     .group_gid = ev->group_gid,
			     .cause = xstrdup(ev->cause)};
	(void)snprintf(r->uuid, sizeof(r->uuid), "%s", ev->uuid);
	r->texts[0] = make_text(ev, wall_ms, false);
	if (r->differ && !(ev->changes && !ev->open_changes))
		r->texts[1] = make_text(ev, wall_ms, true);
	r->bytes = sizeof(*r) + strlen(r->texts[0]) + (r->texts[1] ? strlen(r->texts[1]) : 0);
	return r;
}

struct record *record_ref(struct record *r)
{
	r->refs++;
	return r;
}

void record_unref(struct record *r)
{
	if (!r || --r->refs > 0)
		return;
	free(r->texts[0]);
	free(r->texts[1]);
	free(r->cause);
	free(r);
}

uint64_t record_seq(const struct record *r)
{
	return r->seq;
}

/* --- who gets it --- */

static bool same_part(const char *part, size_t len, const json_t *element)
{
	const char *text = json_string_value(element);

	if (len == 1 && *part == '*')
		return true;
	return text && strlen(text) == len && memcmp(text, part, len) == 0;
}

/* "nics.*.ip" and a change's path: equal, or one the beginning of the other. */
static bool concerns(const char *path, size_t len, const json_t *change)
{
	const json_t *at = json_object_get(change, "path");
	const char *p = path, *end = path + len;

	for (size_t i = 0; i < json_array_size(at) && p < end; i++) {
		const char *dot = memchr(p, '.', (size_t)(end - p));
		const char *stop = dot ? dot : end;

		if (!same_part(p, (size_t)(stop - p), json_array_get(at, i)))
			return false;
		p = stop + (dot ? 1 : 0);
	}
	return true;
}

bool changes_concern(const json_t *changes, const char *paths)
{
	const json_t *change;
	size_t i;

	for (const char *p = paths; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ',')) {
		size_t len = strcspn(p, ",");

		json_array_foreach (changes, i, change) {
			if (len > 0 && concerns(p, len, change))
				return true;
		}
	}
	return false;
}

bool record_wanted(const struct record *r, const struct record_filter *f, int open,
		   const json_t *changes)
{
	AUTO_FREE char *text = NULL;
	AUTO_JSON json_t *own = NULL;

	if (f->uuids && !strstr(f->uuids, r->uuid))
		return false;
	if (!f->paths || !r->modify)
		return true;
	if (!changes) {
		text = xasprintf("%s}", r->texts[open ? 1 : 0]);
		own = json_loads(text, 0, NULL);
		changes = json_object_get(own, "changes");
	}
	return changes_concern(changes, f->paths);
}

int record_open(const struct record *r, const struct viewer *who)
{
	return r->differ && !viewer_may(who, r->owner_uid, r->group_gid);
}

bool record_hidden(const struct record *r, const struct viewer *who)
{
	return record_open(r, who) && !r->texts[1];
}

void record_put(const struct record *r, int open, unsigned wants, struct strbuf *to)
{
	strbuf_puts(to, r->texts[open ? 1 : 0]);
	if ((wants & WANT_CAUSE) && r->cause) {
		strbuf_puts(to, ",\"cause\":");
		strbuf_puts(to, r->cause);
	}
	if (wants & WANT_SEQ)
		strbuf_printf(to, ",\"seq\":%llu", (unsigned long long)r->seq);
	strbuf_puts(to, "}\n");
}

/* --- the last ones --- */

struct ring {
	struct record *items[REPLAY_RECORDS];
	size_t head, count, bytes;
};

struct ring *ring_new(void)
{
	return xcalloc(1, sizeof(struct ring));
}

static void drop_first(struct ring *g)
{
	struct record *r = g->items[g->head];

	g->bytes -= r->bytes;
	record_unref(r);
	g->head = (g->head + 1) % REPLAY_RECORDS;
	g->count--;
}

void ring_clear(struct ring *g)
{
	while (g->count > 0)
		drop_first(g);
}

void ring_free(struct ring *g)
{
	ring_clear(g);
	free(g);
}

void ring_add(struct ring *g, struct record *r)
{
	while (g->count > 0 && (g->count == REPLAY_RECORDS || g->bytes + r->bytes > REPLAY_BYTES))
		drop_first(g);
	g->items[(g->head + g->count++) % REPLAY_RECORDS] = record_ref(r);
	g->bytes += r->bytes;
}

struct record *ring_at(const struct ring *g, uint64_t seq)
{
	return g->items[(g->head + (seq - g->items[g->head]->seq)) % REPLAY_RECORDS];
}

bool ring_has(const struct ring *g, uint64_t seq)
{
	return g->count > 0 && seq >= g->items[g->head]->seq;
}

void ring_size(const struct ring *g, size_t *ret_records, size_t *ret_bytes)
{
	*ret_records = g->count;
	*ret_bytes = g->bytes;
}
