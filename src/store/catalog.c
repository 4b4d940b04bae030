/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog's public face: making, loading, finding, withholding; see catalog.h. */
#include "store/catalog.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/vm.h"
#include "store/catalog_impl.h"
#include "store/repair.h"

#define PREFIX_MIN 4 /* characters of a uuid's prefix */

/* All daemons may start at once on a new host: who links first wins, the others read. */
static int make_host_uuid(const char *path, struct err *err)
{
	AUTO_FREE char *temp = xasprintf("%s.%ld", path, (long)getpid());
	char uuid[UUID_LEN + 1], line[UUID_LEN + 2];
	int r;

	uuid_random(uuid);
	(void)snprintf(line, sizeof(line), "%s\n", uuid);
	r = file_write(temp, line, UUID_LEN + 1, 0644, FILE_SYNC, err);
	if (r < 0)
		return r;
	r = link(temp, path) < 0 && errno != EEXIST ? -errno : 0;
	(void)unlink(temp);
	return r < 0 ? err_sys(err, -r, "cannot make '%s'", path) : 0;
}

static int load_host_uuid(struct catalog *c, struct err *err)
{
	AUTO_FREE char *path = path_join(c->config.paths->lib, "host-uuid");
	AUTO_FREE char *text = NULL;
	int r;

	if (!file_exists(path)) {
		r = make_host_uuid(path, err);
		if (r < 0)
			return r;
	}
	r = file_read(path, 4096, &text, NULL, NULL, err);
	if (r < 0)
		return r;
	text[strcspn(text, " \t\r\n")] = '\0';
	if (!uuid_valid(text))
		return err_set(err, EINVAL,
			       "'%s' holds '%.40s' (want the UUID of this host; uuids of VMs are "
			       "derived from it)",
			       path, text);
	for (size_t i = 0; i < UUID_LEN; i++)
		c->host_uuid[i] = (char)tolower((unsigned char)text[i]);
	return 0;
}

int catalog_new(const struct catalog_config *config, struct catalog **ret, struct err *err)
{
	struct catalog *c = xcalloc(1, sizeof(*c));
	int r;

	c->config = *config;
	c->etc_wd = c->lib_wd = c->etc_parent_wd = c->lib_parent_wd = -1;
	c->watches.fd = -1;
	c->next_number = 1;
	r = dir_make(config->paths->etc, 0755, err);
	if (r == 0)
		r = dir_make(config->paths->lib, 0755, err);
	if (r == 0)
		r = load_host_uuid(c, err);
	if (r == 0)
		r = watches_init(&c->watches, err);
	if (r < 0) {
		catalog_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void catalog_free(struct catalog *c)
{
	if (!c)
		return;
	c->config.problem = NULL;
	catalog_list_end(c);
	while (c->nunits > 0)
		unit_free(c, c->units[c->nunits - 1]);
	unit_set_problems(c, &c->self, NULL, 0);
	for (size_t i = 0; i < c->nitems; i++)
		item_free(c->items[i]);
	for (size_t i = 0; i < c->nholds; i++)
		free(c->holds[i]);
	watches_done(&c->watches);
	map_done(&c->by_uuid);
	map_done(&c->by_name);
	map_done(&c->by_dir);
	free(c->items);
	free(c->units);
	free(c->queue);
	free(c->holds);
	free(c->distrust);
	free(c->flat);
	free(c);
}

int catalog_load(struct catalog *c, struct err *err)
{
	int r;

	catalog_watch_roots(c);
	r = catalog_list_begin(c, err);
	while (r == 0 && catalog_repair_some(c, true))
		;
	return r;
}

int catalog_fd(const struct catalog *c)
{
	return c->watches.fd;
}

void catalog_reload(struct catalog *c, const char *uuid)
{
	struct item *it = map_get(&c->by_uuid, uuid);

	if (!it)
		return;
	it->unit->soft = it->unit->meta_soft = false;
	unit_queue(c, it->unit);
	catalog_apply(c);
}

bool catalog_verify(struct catalog *c, const char *uuid)
{
	struct item *it = map_get(&c->by_uuid, uuid);
	AUTO_FREE char *path = path_join(c->config.paths->etc, uuid);
	uint64_t before = c->published;
	struct unit *u = it ? it->unit : map_get(&c->by_dir, uuid);

	/* Somebody is writing right now: his end is yet to come, and to be told. */
	if (c->applying || (u && (u->soft || u->meta_soft)))
		return false;
	if (!u && !file_exists(path))
		return false;
	unit_queue(c, u ? u : unit_new(c, uuid));
	catalog_apply(c);
	c->stats.lost += c->published != before;
	return c->published != before;
}

void catalog_hold(struct catalog *c, const char *uuid)
{
	/* What came before the hold is not withheld. */
	catalog_sync(c);
	for (size_t i = 0; i < c->nholds; i++) {
		if (str_eq(c->holds[i], uuid))
			return;
	}
	c->holds = xrealloc(c->holds, (c->nholds + 1) * sizeof(char *));
	c->holds[c->nholds++] = xstrdup(uuid);
}

void catalog_release(struct catalog *c, const char *uuid)
{
	catalog_sync(c);
	for (size_t i = 0; i < c->nholds; i++) {
		if (!str_eq(c->holds[i], uuid))
			continue;
		free(c->holds[i]);
		c->holds[i] = c->holds[--c->nholds];
		break;
	}
	for (size_t i = 0; i < c->nunits; i++) {
		if (c->units[i]->held_dirty && !unit_held(c, c->units[i]))
			unit_queue(c, c->units[i]);
	}
	catalog_apply(c);
}

struct catalog_entry *catalog_by_uuid(struct catalog *c, const char *uuid)
{
	struct item *it = map_get(&c->by_uuid, uuid);

	return it && !it->vanishing ? &it->e : NULL;
}

static int ambiguous(const char *id, const struct item *a, const struct item *b, struct err *err)
{
	return err_set(err, EEXIST, "%s is ambiguous: matches %s (%s), %s (%s)", id, a->e.uuid,
		       a->e.vm->name, b->e.uuid, b->e.vm->name);
}

static bool has_prefix(const struct item *it, const char *id)
{
	return strncasecmp(it->e.uuid, id, strlen(id)) == 0;
}

static bool has_alias(const struct item *it, const char *id)
{
	return str_eq(it->e.vm->alias, id);
}

/* 1 found, 0 none, -EEXIST more than one. */
static int find_only(struct catalog *c, const char *id,
		     bool (*fits)(const struct item *it, const char *id), struct item **ret,
		     struct err *err)
{
	struct item *found = NULL;

	for (size_t i = 0; i < c->nitems; i++) {
		if (c->items[i]->vanishing || !fits(c->items[i], id))
			continue;
		if (found)
			return ambiguous(id, found, c->items[i], err);
		found = c->items[i];
	}
	*ret = found;
	return found != NULL;
}

int catalog_find(struct catalog *c, const char *id, struct catalog_entry **ret, struct err *err)
{
	struct item *it = NULL;
	int r = 0;

	if (uuid_valid(id))
		r = find_only(c, id, has_prefix, &it, err);
	if (r == 0) {
		it = map_get(&c->by_name, id);
		r = it != NULL;
	}
	if (r == 0 && *id)
		r = find_only(c, id, has_alias, &it, err);
	if (r == 0 && strlen(id) >= PREFIX_MIN)
		r = find_only(c, id, has_prefix, &it, err);
	if (r < 0)
		return r;
	if (r == 0)
		return err_set(err, ENOENT, "VM %s not found", id);
	*ret = &it->e;
	return 0;
}

size_t catalog_count(const struct catalog *c)
{
	return c->nitems;
}

struct catalog_entry *catalog_at(struct catalog *c, size_t index)
{
	return &c->items[index]->e;
}

static size_t add_flat(struct catalog_problem *at, const struct unit *u)
{
	for (size_t i = 0; at && i < u->nproblems; i++)
		at[i] = u->problems[i];
	return u->nproblems;
}

size_t catalog_problems(const struct catalog *c, const struct catalog_problem **ret)
{
	/* Made on demand: a view, not a change. */
	struct catalog *own = (struct catalog *)(uintptr_t)c;
	size_t n = add_flat(NULL, &c->self);

	for (size_t i = 0; i < c->nunits; i++)
		n += add_flat(NULL, c->units[i]);
	if (!c->flat && n > 0) {
		own->flat = xcalloc(n, sizeof(*own->flat));
		n = add_flat(own->flat, &c->self);
		for (size_t i = 0; i < c->nunits; i++)
			n += add_flat(own->flat + n, c->units[i]);
	}
	*ret = c->flat;
	return n;
}

const struct catalog_stats *catalog_stats(const struct catalog *c)
{
	return &c->stats;
}

const char *catalog_host_uuid(const struct catalog *c)
{
	return c->host_uuid;
}
