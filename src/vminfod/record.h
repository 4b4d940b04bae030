/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event records: the text of one, made once for all listeners that want it alike, and the last of
 * them kept for who reconnects. Numbers count every change of any VM since the start of the
 * process, whose name `boot` they go with. Source: smartos facts 1.3, issue of replay.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "vminfod/cache.h"

#define REPLAY_RECORDS 1024u
#define REPLAY_BYTES   (4u << 20)
#define PATHS_MAX      16u

struct record;
struct ring;

/* What a listener wants beside the original's members, as bits. */
#define WANT_SEQ      1u
#define WANT_CAUSE    2u
#define WANT_VARIANTS 4u

/* Which records a listener wants. Members NULL: all. Borrowed texts. */
struct record_filter {
	const char *uuids; /* a comma between two */
	const char *paths; /* "state,nics.*.ip": changes at, below or around one of these */
};

struct record *record_new(const struct cache_event *ev, uint64_t seq, int64_t wall_ms);
struct record *record_ref(struct record *r);
void record_unref(struct record *r); /* NULL is fine */

uint64_t record_seq(const struct record *r);
/* open: by what everybody may see. changes: the event's, or NULL: taken from the text. */
bool record_wanted(const struct record *r, const struct record_filter *f, int open,
		   const json_t *changes);
/* Nothing of it is for everybody, and who is not to see it all. */
bool record_hidden(const struct record *r, const struct viewer *who);
/* Which of the two texts who gets: 1, the one for everybody. */
int record_open(const struct record *r, const struct viewer *who);
/* Append the whole line. */
void record_put(const struct record *r, int open, unsigned wants, struct strbuf *to);

/* "[{path:...}]" at least one of which concerns one of paths. */
bool changes_concern(const json_t *changes, const char *paths);

struct ring *ring_new(void);
void ring_free(struct ring *g);
void ring_add(struct ring *g, struct record *r); /* adds a reference */
void ring_clear(struct ring *g);
/* Have all records from seq on been kept? */
bool ring_has(const struct ring *g, uint64_t seq);
/* The record numbered seq, which it has; borrowed. */
struct record *ring_at(const struct ring *g, uint64_t seq);
void ring_size(const struct ring *g, size_t *ret_records, size_t *ret_bytes);
