/* SPDX-License-Identifier: Apache-2.0 */
/* Datasets to facts; see zfs_facts.h. */
#include "vmadmd/disks/zfs_facts.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"

#define SNAPSHOT "@vmsnap-"
#define MIB      (1ull << 20)
#define GIB      (1ull << 30)

enum { TYPE, QUOTA, COMPRESSION, CREATION, USED };
#define PROPERTIES 5

static const char *const names[PROPERTIES] = {"type", "quota", "compression", "creation", "used"};

struct dataset {
	char *name;
	char *values[PROPERTIES]; /* NULL: not told, or "-" */
};

struct reading {
	json_t *facts;
	bool (*backs)(void *ctx, const char *pool, const char *uuid);
	void *ctx;
};

static void dataset_done(struct dataset *d)
{
	free(d->name);
	for (size_t i = 0; i < PROPERTIES; i++)
		free(d->values[i]);
	*d = (struct dataset){0};
}

static bool number(const char *text, uint64_t *ret)
{
	char *end;

	if (!text || *text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return !*end && !errno && *ret <= INT64_MAX;
}

/* Whole where it is, else with two decimals. */
static json_t *in_units(uint64_t bytes, uint64_t unit)
{
	if (bytes % unit == 0)
		return json_integer((json_int_t)(bytes / unit));
	return json_real((double)(int64_t)((double)bytes * 100 / (double)unit) / 100);
}

static void put_own(json_t *facts, const struct dataset *d)
{
	uint64_t quota;

	if (number(d->values[QUOTA], &quota))
		(void)json_object_set_new(facts, "quota", in_units(quota, GIB));
	json_put_str(facts, "zfs_root_compression", d->values[COMPRESSION]);
}

static void put_volume(json_t *facts, const struct dataset *d)
{
	json_t *disks = json_object_get(facts, "disks"), *disk = json_object();

	if (!disks) {
		disks = json_object();
		(void)json_object_set_new(facts, "disks", disks);
	}
	json_put_str(disk, "compression", d->values[COMPRESSION]);
	(void)json_object_set_new(disks, d->name, disk);
}

/* They come oldest first. */
static void put_snapshot(json_t *facts, const struct dataset *d, const char *name)
{
	json_t *list = json_object_get(facts, "snapshots"), *row = json_object();
	uint64_t used, created;
	char buf[ISO_TIME_LEN];

	json_put_str(row, "name", name);
	if (number(d->values[USED], &used))
		(void)json_object_set_new(row, "size", in_units(used, MIB));
	if (number(d->values[CREATION], &created) && created < INT64_MAX / 1000)
		json_put_str(row, "created_at",
			     clock_iso((int64_t)created * 1000, buf, sizeof(buf)));
	(void)json_array_insert_new(list, 0, row);
}

static json_t *facts_of(struct reading *r, const char *uuid)
{
	json_t *facts = json_object_get(r->facts, uuid);

	if (facts)
		return facts;
	facts = json_pack("{s:[]}", "snapshots");
	(void)json_object_set_new(r->facts, uuid, facts);
	return facts;
}

/* The lines of one dataset are complete. */
static void take(struct reading *r, struct dataset *d)
{
	const char *slash = d->name ? strrchr(d->name, '/') : NULL;
	AUTO_FREE char *pool = slash ? xstrndup(d->name, (size_t)(slash - d->name)) : NULL;
	AUTO_FREE char *uuid = slash ? xstrndup(slash + 1, UUID_LEN) : NULL;
	const char *rest;

	if (uuid && uuid_valid(uuid) && r->backs(r->ctx, pool, uuid)) {
		rest = slash + 1 + UUID_LEN;
		if (!*rest)
			put_own(facts_of(r, uuid), d);
		else if (str_starts(rest, SNAPSHOT))
			put_snapshot(facts_of(r, uuid), d, rest + strlen(SNAPSHOT));
		else if (*rest == '-' && str_eq(d->values[TYPE], "volume"))
			put_volume(facts_of(r, uuid), d);
	}
	dataset_done(d);
}

static void take_line(struct reading *r, struct dataset *d, const char *line, size_t len)
{
	const char *end = line + len;
	const char *property = memchr(line, '\t', len), *value;
	size_t name_len;

	if (!property)
		return;
	name_len = (size_t)(property++ - line);
	value = memchr(property, '\t', (size_t)(end - property));
	if (!value)
		return;
	if (!d->name || strlen(d->name) != name_len || memcmp(d->name, line, name_len) != 0) {
		take(r, d);
		d->name = xstrndup(line, name_len);
	}
	for (size_t i = 0; i < PROPERTIES; i++) {
		size_t n = strlen(names[i]);

		if ((size_t)(value - property) == n && memcmp(property, names[i], n) == 0 &&
		    !(end - value == 2 && value[1] == '-'))
			replace_str(&d->values[i], xstrndup(value + 1, (size_t)(end - value - 1)));
	}
}

json_t *zfs_facts(const char *text, bool (*backs)(void *ctx, const char *pool, const char *uuid),
		  void *ctx)
{
	struct reading r = {.facts = json_object(), .backs = backs, .ctx = ctx};
	struct dataset d = {0};

	while (*text) {
		size_t len = strcspn(text, "\n");

		take_line(&r, &d, text, len);
		text += len + (text[len] == '\n');
	}
	take(&r, &d);
	return r.facts;
}
