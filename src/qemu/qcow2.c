/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer of qcow2.h. Version 3, clusters of 64 KiB, references of 16 bits. Everything is
 * counted before the first byte goes out, in this order: header, reference table, reference blocks,
 * L1 table, L2 tables, data.
 */
#include "qemu/qcow2.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#define CLUSTER       ((uint64_t)QCOW2_CLUSTER)
#define CLUSTER_BITS  16
#define L2_ENTRIES    (CLUSTER / 8)
#define REFS_IN_BLOCK (CLUSTER / 2)
#define REFS_ORDER    4
#define COPIED        (1ull << 63)
#define L1_MAX        (4ull << 20) /* entries: QEMU's limit of 32 MiB */
#define BACKING_MAX   1023
#define HEADER_LEN    112
#define FORMAT_EXT    0xe2792acau
#define OUT_SIZE      (1u << 20)

struct header {
	char magic[4];
	uint32_t version;
	uint64_t backing_at;
	uint32_t backing_len, cluster_bits;
	uint64_t size;
	uint32_t crypt, l1_size;
	uint64_t l1_at, refs_at;
	uint32_t refs_clusters, nsnapshots;
	uint64_t snapshots_at, incompatible, compatible, autoclear;
	uint32_t refs_order, length;
	uint64_t compression;
} __attribute__((packed));

_Static_assert(sizeof(struct header) == HEADER_LEN, "the header of version 3 with compression");

/* Clusters of the guest's disk that have data: [first, last]. */
struct run {
	uint64_t first, last;
};

struct layout {
	struct run *runs; /* owned */
	size_t nruns;
	uint64_t data, l2, l1_entries, l1, blocks, table; /* in clusters, but for the entries */
	uint64_t total;
};

struct out {
	qcow2_put put;
	void *ctx;
	char *buf; /* owned */
	size_t len;
	uint64_t at;
	int r;
	struct err *err;
};

/* --- counting --- */

static uint64_t up(uint64_t n, uint64_t unit)
{
	return n / unit + (n % unit ? 1 : 0);
}

static void find_runs(const struct qcow2 *q, struct layout *l)
{
	l->runs = xcalloc(q->nextents + 1, sizeof(*l->runs));
	for (size_t i = 0; i < q->nextents; i++) {
		const struct extent *e = &q->extents[i];
		struct run *before = l->nruns ? &l->runs[l->nruns - 1] : NULL;
		struct run now = {e->start / CLUSTER, (e->start + e->length - 1) / CLUSTER};

		if (e->length == 0)
			continue;
		if (before && now.first <= before->last + 1)
			before->last = now.last > before->last ? now.last : before->last;
		else
			l->runs[l->nruns++] = now;
	}
}

static void count(const struct qcow2 *q, struct layout *l)
{
	uint64_t tables_end = 0, before;

	*l = (struct layout){0};
	find_runs(q, l);
	for (size_t i = 0; i < l->nruns; i++) {
		uint64_t first = l->runs[i].first / L2_ENTRIES, end;

		end = l->runs[i].last / L2_ENTRIES + 1;
		first = first < tables_end ? tables_end : first;
		l->l2 += end > first ? end - first : 0;
		tables_end = end;
		l->data += l->runs[i].last - l->runs[i].first + 1;
	}
	l->l1_entries = q->size ? up(up(q->size, CLUSTER), L2_ENTRIES) : 1;
	l->l1 = up(l->l1_entries * 8, CLUSTER);
	do {
		before = l->total;
		l->total = 1 + l->table + l->blocks + l->l1 + l->l2 + l->data;
		l->blocks = up(l->total, REFS_IN_BLOCK);
		l->table = up(l->blocks * 8, CLUSTER);
	} while (l->total != before);
}

uint64_t qcow2_length(const struct qcow2 *q)
{
	struct layout l;

	count(q, &l);
	free(l.runs);
	return l.total * CLUSTER;
}

/* --- out --- */

static void flush(struct out *o)
{
	if (o->r == 0 && o->len > 0)
		o->r = o->put(o->ctx, o->buf, o->len, o->err);
	o->len = 0;
}

/* Room for a piece of at most want bytes; *ret says how many. */
static char *room(struct out *o, uint64_t want, size_t *ret)
{
	if (o->len == OUT_SIZE)
		flush(o);
	*ret = want < OUT_SIZE - o->len ? (size_t)want : OUT_SIZE - o->len;
	o->len += *ret;
	o->at += *ret;
	return o->buf + o->len - *ret;
}

static void add(struct out *o, const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		size_t part;
		char *to = room(o, len, &part);

		memcpy(to, at, part);
		at += part;
		len -= part;
	}
}

static void add_zeros(struct out *o, uint64_t len)
{
	while (len > 0 && o->r == 0) {
		size_t part;
		char *to = room(o, len, &part);

		memset(to, 0, part);
		len -= part;
	}
}

static void add_entry(struct out *o, uint64_t value)
{
	uint64_t be = htobe64(value);

	add(o, &be, sizeof(be));
}

static void fill_cluster(struct out *o)
{
	add_zeros(o, up(o->at, CLUSTER) * CLUSTER - o->at);
}

/* --- parts --- */

static void put_header(struct out *o, const struct qcow2 *q, const struct layout *l)
{
	size_t format = q->backing ? strlen(q->backing_format) : 0;
	size_t extension = q->backing ? 8 + (format + 7) / 8 * 8 : 0;
	const uint32_t begin[] = {htobe32(FORMAT_EXT), htobe32((uint32_t)format)};
	const struct header h = {
		.magic = {'Q', 'F', 'I', '\xfb'},
		.version = htobe32(3),
		.backing_at = q->backing ? htobe64(HEADER_LEN + extension + 8) : 0,
		.backing_len = q->backing ? htobe32((uint32_t)strlen(q->backing)) : 0,
		.cluster_bits = htobe32(CLUSTER_BITS),
		.size = htobe64(q->size),
		.l1_size = htobe32((uint32_t)l->l1_entries),
		.l1_at = htobe64((1 + l->table + l->blocks) * CLUSTER),
		.refs_at = htobe64(CLUSTER),
		.refs_clusters = htobe32((uint32_t)l->table),
		.refs_order = htobe32(REFS_ORDER),
		.length = htobe32(HEADER_LEN),
	};

	add(o, &h, sizeof(h));
	if (q->backing) {
		add(o, begin, sizeof(begin));
		add(o, q->backing_format, format);
		add_zeros(o, extension - 8 - format);
	}
	add_zeros(o, 8); /* no more extensions */
	if (q->backing)
		add(o, q->backing, strlen(q->backing));
	fill_cluster(o);
}

static void put_references(struct out *o, const struct layout *l)
{
	const uint16_t one = htobe16(1);

	for (uint64_t i = 0; i < l->blocks; i++)
		add_entry(o, (1 + l->table + i) * CLUSTER);
	fill_cluster(o);
	for (uint64_t i = 0; i < l->total && o->r == 0; i++)
		add(o, &one, sizeof(one));
	fill_cluster(o);
}

static void put_l1(struct out *o, const struct layout *l)
{
	uint64_t at = (1 + l->table + l->blocks + l->l1) * CLUSTER;
	size_t run = 0;

	for (uint64_t i = 0; i < l->l1_entries && o->r == 0; i++) {
		bool used;

		while (run < l->nruns && l->runs[run].last / L2_ENTRIES < i)
			run++;
		used = run < l->nruns && l->runs[run].first / L2_ENTRIES <= i;
		add_entry(o, used ? at | COPIED : 0);
		at += used ? CLUSTER : 0;
	}
	fill_cluster(o);
}

static void put_l2(struct out *o, const struct layout *l)
{
	uint64_t at = (l->total - l->data) * CLUSTER, next = 0;

	for (size_t i = 0; i < l->nruns && o->r == 0; i++) {
		const struct run *run = &l->runs[i];
		uint64_t table = run->first / L2_ENTRIES * L2_ENTRIES;

		if (next < table) { /* the rest of its table, and on to the run's */
			if (next % L2_ENTRIES)
				fill_cluster(o);
			next = table;
		}
		add_zeros(o, (run->first - next) * 8);
		for (next = run->first; next <= run->last && o->r == 0; next++) {
			add_entry(o, at | COPIED);
			at += CLUSTER;
		}
	}
	fill_cluster(o);
}

static void put_bytes(struct out *o, int fd, uint64_t offset, uint64_t len)
{
	while (len > 0 && o->r == 0) {
		size_t part;
		char *to = room(o, len, &part);
		ssize_t n = fd_read_full_at(fd, to, part, offset);

		if (n < 0)
			o->r = err_sys(o->err, (int)-n, "cannot read a disk");
		else /* an image may end before its last sector does */
			memset(to + n, 0, part - (size_t)n);
		offset += part;
		len -= part;
	}
}

static void put_data(struct out *o, const struct qcow2 *q, const struct layout *l)
{
	size_t i = 0;

	for (size_t run = 0; run < l->nruns; run++) {
		uint64_t at = l->runs[run].first * CLUSTER, end = (l->runs[run].last + 1) * CLUSTER;

		while (at < end && o->r == 0) {
			const struct extent *e;
			uint64_t to;

			while (i < q->nextents && q->extents[i].start + q->extents[i].length <= at)
				i++;
			e = &q->extents[i];
			if (i < q->nextents && e->start <= at) {
				to = e->start + e->length < end ? e->start + e->length : end;
				put_bytes(o, q->files[e->file], e->offset + (at - e->start),
					  to - at);
			} else {
				to = i < q->nextents && e->start < end ? e->start : end;
				add_zeros(o, to - at);
			}
			at = to;
		}
	}
}

int qcow2_write(const struct qcow2 *q, qcow2_put put, void *ctx, struct err *err)
{
	struct layout l;
	struct out o = {.put = put, .ctx = ctx, .err = err};

	count(q, &l);
	if (l.l1_entries > L1_MAX)
		o.r = err_set(err, E2BIG, "a disk of %llu bytes is too large for qcow2",
			      (unsigned long long)q->size);
	else if (q->backing && strlen(q->backing) > BACKING_MAX)
		o.r = err_set(err, E2BIG, "'%.60s...' is longer than the %d bytes qcow2 keeps",
			      q->backing, BACKING_MAX);
	if (o.r == 0) {
		o.buf = xmalloc(OUT_SIZE);
		put_header(&o, q, &l);
		put_references(&o, &l);
		put_l1(&o, &l);
		put_l2(&o, &l);
		put_data(&o, q, &l);
		flush(&o);
	}
	free(o.buf);
	free(l.runs);
	return o.r;
}

/* --- the map --- */

void extents_done(struct extents *x)
{
	free(x->items);
	*x = (struct extents){0};
}

static int keep(struct extents *x, const struct extent *e, struct err *err)
{
	if (x->count == EXTENTS_MAX)
		return err_set(err, ENOTSUP, "it lies in more than %u pieces", EXTENTS_MAX);
	if (x->count == x->cap) {
		x->cap = x->cap ? x->cap * 2 : 64;
		x->items = xrealloc(x->items, x->cap * sizeof(*x->items));
	}
	x->items[x->count++] = *e;
	x->deepest = e->file > x->deepest ? e->file : x->deepest;
	return 0;
}

int extents_add(struct extents *x, const char *line, struct err *err)
{
	const char *text = line + strspn(line, "[ ");
	size_t len = strcspn(text, "}");
	AUTO_JSON json_t *row = NULL;
	json_int_t start, length, depth, offset;

	if (text[len] != '}' || json_parse_object(text, len + 1, "a line", &row, NULL) < 0)
		return err_set(err, EBADMSG, "qemu-img map said '%.100s'", line);
	start = json_get_int(row, "start", -1);
	length = json_get_int(row, "length", -1);
	depth = json_get_int(row, "depth", -1);
	offset = json_get_int(row, "offset", -1);
	if (start < 0 || length < 0 || depth < 0 || depth > UINT16_MAX ||
	    (uint64_t)start < x->size || length > INT64_MAX - start)
		return err_set(err, EBADMSG, "qemu-img map said '%.100s'", line);
	x->size = (uint64_t)start + (uint64_t)length;
	if (!json_get_bool(row, "data", false) || json_get_bool(row, "zero", false))
		return 0;
	if (offset < 0)
		return err_set(err, ENOTSUP, "it has compressed data");
	return keep(x,
		    &(struct extent){(uint64_t)start, (uint64_t)length, (uint64_t)offset,
				     (uint32_t)depth},
		    err);
}
