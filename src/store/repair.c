/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is doubted: after lost events every unit, after listing the configuration directory those
 * that are new or gone. Listing and looking go in small steps, so that a daemon with readers can
 * do a few at a time; what is left says how much is not yet known to be so.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/strbuf.h"
#include "store/catalog_impl.h"
#include "store/repair.h"

#define NAMES_STEP 64u /* of one step of listing */
#define UNITS_STEP 4u

void unit_doubt(struct catalog *c, struct unit *u)
{
	c->doubts += !u->doubted;
	u->doubted = true;
}

void unit_trust(struct catalog *c, struct unit *u)
{
	c->doubts -= u->doubted;
	u->doubted = false;
}

void catalog_list_end(struct catalog *c)
{
	if (c->dir)
		(void)closedir(c->dir);
	c->dir = NULL;
	for (size_t i = 0; i < c->nnames; i++)
		free(c->names[i]);
	free(steal_ptr(c->names));
	c->nnames = 0;
	c->listing = false;
}

int catalog_list_begin(struct catalog *c, struct err *err)
{
	const char *etc = c->config.paths->etc;
	struct err why = {0};
	int r;

	catalog_list_end(c);
	c->dir = opendir(etc);
	r = c->dir ? 0 : -errno;
	if (r < 0 && r != -ENOENT) {
		c->list_failed = true;
		(void)err_sys(&why, -r, "cannot read the configuration directory '%s'", etc);
		unit_problem(c, &c->self, etc, why.msg);
		return err_set(err, -r, "%s", why.msg);
	}
	if (c->list_failed)
		unit_problem(c, &c->self, etc, NULL);
	c->list_failed = false;
	c->listing = true;
	for (size_t i = 0; i < c->nunits; i++)
		c->units[i]->seen = false;
	return 0;
}

void catalog_doubt_all(struct catalog *c)
{
	for (size_t i = 0; i < c->nunits; i++)
		unit_doubt(c, c->units[i]);
	c->doubtful = true;
	if (catalog_list_begin(c, NULL) < 0)
		c->doubtful = c->doubts > 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All names are read: doubt those that are new, sorted, so that every daemon numbers VMs alike,
 * and those that are gone. */
static void listed(struct catalog *c)
{
	if (c->nnames > 0)
		qsort(c->names, c->nnames, sizeof(char *), by_text);
	for (size_t i = 0; i < c->nunits; i++) {
		if (!c->units[i]->seen)
			unit_doubt(c, c->units[i]);
	}
	for (size_t i = 0; i < c->nnames; i++) {
		if (!map_get(&c->by_dir, c->names[i]))
			unit_doubt(c, unit_new(c, c->names[i]));
	}
	catalog_list_end(c);
}

static void list_some(struct catalog *c)
{
	for (size_t i = 0; i < NAMES_STEP; i++) {
		const struct dirent *de = c->dir ? readdir(c->dir) : NULL;
		struct unit *u;

		if (!de) {
			listed(c);
			return;
		}
		if (de->d_name[0] == '.' ||
		    (de->d_type != DT_DIR && de->d_type != DT_LNK && de->d_type != DT_UNKNOWN))
			continue;
		u = map_get(&c->by_dir, de->d_name);
		if (u) {
			u->seen = true;
			continue;
		}
		c->names = xrealloc(c->names, (c->nnames + 1) * sizeof(char *));
		c->names[c->nnames++] = xstrdup(de->d_name);
	}
}

static void look_at_some(struct catalog *c, size_t most)
{
	size_t taken = 0;

	/* Units may have been freed or added meanwhile: until there is no doubt, from the start. */
	for (size_t i = c->doubt_cursor; c->doubts > 0 && taken < most; i++) {
		if (i >= c->nunits)
			i = 0;
		c->doubt_cursor = i;
		if (!c->units[i]->doubted)
			continue;
		unit_trust(c, c->units[i]);
		unit_queue(c, c->units[i]);
		taken++;
	}
	catalog_apply(c);
}

bool catalog_repair_some(struct catalog *c, bool all)
{
	while (c->listing) {
		list_some(c);
		if (!all)
			return c->listing || c->doubts > 0 || c->doubtful;
	}
	if (c->doubts > 0)
		look_at_some(c, all ? SIZE_MAX : UNITS_STEP);
	c->doubtful &= c->doubts > 0;
	return c->doubts > 0;
}

bool catalog_doubtful(const struct catalog *c)
{
	return c->doubtful;
}

size_t catalog_repair(struct catalog *c, bool all)
{
	uint64_t before = c->published;

	catalog_sync(c);
	if (c->applying)
		return 0;
	while (catalog_repair_some(c, all) && all)
		;
	c->stats.lost += c->published - before;
	return (size_t)(c->published - before);
}
