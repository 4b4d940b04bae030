/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safety net below inotify: go round all units, look whether their files are as they were
 * read, and read again what is not. Finds writes through mmap and through links that leave the
 * tree, and whatever the kernel did not tell.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/paths.h"
#include "store/catalog_impl.h"
#include "store/hash.h"
#include "store/repair.h"

static uint64_t hash_stat(uint64_t h, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return hash_number(h, (uint64_t)errno);
	h = hash_number(h, st.st_ino ^ (st.st_dev << 40));
	h = hash_number(h, (uint64_t)st.st_size);
	h = hash_number(h, st.st_mode ^ ((uint64_t)st.st_uid << 32));
	h = hash_number(h, (uint64_t)st.st_mtim.tv_sec);
	return hash_number(h, (uint64_t)st.st_mtim.tv_nsec);
}

static uint64_t stat_unit(const struct catalog *c, const struct unit *u)
{
	AUTO_FREE char *config = path_join(u->path, "config");
	uint64_t h = hash_stat(hash_stat(HASH_START, u->path), config);

	for (size_t i = 0; i < u->nextras; i++)
		h = hash_stat(h, u->extras[i]);
	for (const struct item *it = u->items; it && c->config.metadata; it = it->next) {
		AUTO_FREE char *dir = path_of_data(c->config.paths, it->e.uuid, "config");

		for (size_t i = 0; i < META_FILES; i++) {
			AUTO_FREE char *path = path_join(dir, meta_files[i]);

			h = hash_stat(h, path);
		}
	}
	return h ? h : 1;
}

/* Returns whether something was different that no event had told. */
static bool scan_unit(struct catalog *c, struct unit *u)
{
	AUTO_FREE char *name = NULL;
	uint64_t print = stat_unit(c, u), before;
	bool withheld = u->withheld;

	if (unit_held(c, u))
		return false;
	if (print == u->stat_print && !withheld && !u->broken)
		return false;
	name = xstrdup(u->name);
	before = c->published;
	/* A change between the last sync and this stat has its event: not lost. */
	catalog_sync(c);
	if (c->published != before || map_get(&c->by_dir, name) != u)
		return false;
	u->soft = u->meta_soft = false;
	unit_queue(c, u);
	catalog_apply(c);
	if (map_get(&c->by_dir, name) == u)
		u->stat_print = print;
	return c->published != before && !withheld;
}

void catalog_scan_anew(struct catalog *c)
{
	c->cursor = SIZE_MAX;
}

size_t catalog_scan(struct catalog *c, size_t files)
{
	size_t lost = 0;

	catalog_sync(c);
	if (c->applying)
		return 0;
	if (files >= CATALOG_VMS_MAX)
		catalog_scan_anew(c);
	if (c->cursor >= c->nunits) {
		c->cursor = 0;
		if (!c->listing)
			(void)catalog_list_begin(c, NULL);
	}
	for (size_t i = 0; i < files && (c->listing || c->doubts > 0); i++)
		lost += catalog_repair(c, files >= CATALOG_VMS_MAX);
	if (c->listing || c->doubts > 0)
		return lost;
	for (size_t i = 0; i < files && c->cursor < c->nunits; i++) {
		size_t found = scan_unit(c, c->units[c->cursor++]);

		c->stats.lost += found;
		lost += found;
	}
	c->stats.scans += c->cursor >= c->nunits;
	return lost;
}
