/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what was found on disk to changes of entries. A round works off the queue of units; VMs
 * that disappear are kept until its end, because another unit may turn out to have them now (a
 * directory renamed). When a name or uuid became free, units refused for it get another round.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/vm.h"
#include "store/catalog_impl.h"
#include "store/hash.h"

static void tell(struct catalog *c, struct item *it, enum catalog_change what)
{
	c->published++;
	if (what == CATALOG_CHANGED)
		it->e.version++;
	c->config.changed(c->config.ctx, &it->e, what);
}

/* --- problems --- */

static char *problems_joined(const struct catalog_problem *p, size_t count)
{
	struct strbuf sb = {0};

	for (size_t i = 0; i < count; i++)
		strbuf_printf(&sb, "%s%s", i ? "; " : "", p[i].text);
	return strbuf_steal(&sb);
}

static void report(struct catalog *c, const char *file, const char *text)
{
	if (c->config.problem)
		c->config.problem(c->config.ctx, file, text);
}

void unit_set_problems(struct catalog *c, struct unit *u, struct catalog_problem *problems,
		       size_t count)
{
	AUTO_FREE char *before = problems_joined(u->problems, u->nproblems);
	AUTO_FREE char *after = problems_joined(problems, count);
	const char *old_file = u->nproblems ? u->problems[0].file : NULL;
	const char *new_file = count ? problems[0].file : NULL;

	if (old_file && !str_eq(old_file, new_file))
		report(c, old_file, NULL);
	if (new_file && (!str_eq(old_file, new_file) || !str_eq(before, after)))
		report(c, new_file, after);
	for (size_t i = 0; i < u->nproblems; i++) {
		free(u->problems[i].file);
		free(u->problems[i].text);
		free(u->problems[i].name);
	}
	free(u->problems);
	u->problems = problems;
	u->nproblems = count;
	free(c->flat);
	c->flat = NULL;
}

void unit_problem(struct catalog *c, struct unit *u, const char *file, const char *text)
{
	struct catalog_problem *p = NULL;

	if (text) {
		p = xcalloc(1, sizeof(*p));
		*p = (struct catalog_problem){.file = xstrdup(file), .text = xstrdup(text)};
	}
	unit_set_problems(c, u, p, text ? 1 : 0);
}

/* --- entries --- */

void item_free(struct item *it)
{
	vm_free(it->e.vm);
	free(it->e.error);
	free(it->section);
	free(it);
}

static struct item *item_of_section(const struct unit *u, const char *section)
{
	for (struct item *it = u->items; it; it = it->next) {
		if (str_eq(it->section, section))
			return it;
	}
	return NULL;
}

static void unlink_item(struct item *it)
{
	for (struct item **at = &it->unit->items; *at; at = &(*at)->next) {
		if (*at != it)
			continue;
		*at = it->next;
		return;
	}
}

static void link_item(struct unit *u, struct item *it)
{
	struct item **at = &u->items;

	while (*at)
		at = &(*at)->next;
	*at = it;
	it->next = NULL;
	it->unit = u;
}

static void set_error(struct catalog *c, struct item *it, const char *text)
{
	if (str_eq(it->e.error, text))
		return;
	replace_str(&it->e.error, xstrdup(text));
	it->print = 0;
	tell(c, it, CATALOG_CHANGED);
}

static void vanish(struct catalog *c, struct item *it)
{
	if (it->vanishing)
		return;
	it->vanishing = true;
	c->nvanishing++;
	c->unblocked = true;
	map_del(&c->by_name, it->e.vm->name, it);
}

/* Remove what nobody adopted. The callback sees a whole entry that nothing finds any more. */
static void sweep(struct catalog *c)
{
	size_t kept = 0, n = c->nitems;
	struct item **gone;
	size_t ngone = 0;

	if (c->nvanishing == 0)
		return;
	gone = xcalloc(c->nvanishing, sizeof(struct item *));
	for (size_t i = 0; i < n; i++) {
		if (c->items[i]->vanishing)
			gone[ngone++] = c->items[i];
		else
			c->items[kept++] = c->items[i];
	}
	c->nitems = kept;
	c->nvanishing = 0;
	for (size_t i = 0; i < ngone; i++) {
		map_del(&c->by_uuid, gone[i]->e.uuid, gone[i]);
		unlink_item(gone[i]);
	}
	for (size_t i = 0; i < ngone; i++) {
		tell(c, gone[i], CATALOG_GONE);
		item_free(gone[i]);
	}
	free(gone);
}

static void insert(struct catalog *c, struct unit *u, struct found *f)
{
	struct item *it = xcalloc(1, sizeof(*it));

	it->e.vm = steal_ptr(f->vm);
	it->e.error = steal_ptr(f->warning);
	it->e.number = c->next_number++;
	it->e.version = 1;
	memcpy(it->e.uuid, it->e.vm->uuid, UUID_LEN);
	it->section = xstrdup(f->section);
	it->print = f->print;
	it->found = true;
	c->items = xrealloc(c->items, (c->nitems + 1) * sizeof(struct item *));
	c->items[c->nitems++] = it;
	map_put(&c->by_uuid, it->e.uuid, it);
	map_put(&c->by_name, it->e.vm->name, it);
	link_item(u, it);
	tell(c, it, CATALOG_NEW);
}

static void replace(struct catalog *c, struct item *it, struct found *f)
{
	struct vm *old = it->e.vm;

	it->found = true;
	if (it->print == f->print && !it->vanishing)
		return;
	if (it->vanishing) { /* its section or directory has another name now */
		it->vanishing = false;
		c->nvanishing--;
	} else {
		c->unblocked |= !str_eq(old->name, f->vm->name);
		map_del(&c->by_name, old->name, it);
	}
	it->e.vm = steal_ptr(f->vm);
	map_put(&c->by_name, it->e.vm->name, it);
	replace_str(&it->e.error, steal_ptr(f->warning));
	replace_str(&it->section, xstrdup(f->section));
	it->print = f->print;
	tell(c, it, CATALOG_CHANGED);
	vm_free(old);
}

/* --- one unit --- */

struct problem_list {
	struct catalog_problem *items;
	size_t count;
};

static void add_problem(struct problem_list *l, const char *file, const char *name,
			const char *text)
{
	l->items = xrealloc(l->items, (l->count + 1) * sizeof(*l->items));
	l->items[l->count++] = (struct catalog_problem){
		.file = xstrdup(file), .name = xstrdup(name), .text = xstrdup(text)};
}

/* The VM that has f's uuid or name and keeps it; NULL when f may have both. */
static const struct item *taken(struct catalog *c, const struct item *self, const struct found *f,
				const char **ret_what)
{
	const struct item *other = map_get(&c->by_uuid, f->vm->uuid);

	*ret_what = "uuid";
	if (other && other != self && !other->vanishing)
		return other;
	other = map_get(&c->by_name, f->vm->name);
	*ret_what = "name";
	return other && other != self && !other->vanishing ? other : NULL;
}

static void refuse(struct catalog *c, struct unit *u, struct item *it, const struct found *f,
		   const char *text, struct problem_list *l)
{
	AUTO_FREE char *file = xasprintf("%s/config", u->path);

	u->broken = true;
	if (it) {
		it->found = true;
		set_error(c, it, text);
	} else {
		add_problem(l, file, f->vm ? f->vm->name : f->section, text);
	}
}

static void take_found(struct catalog *c, struct unit *u, struct found *f, struct problem_list *l)
{
	struct item *it = item_of_section(u, f->section);
	const struct item *other;
	const char *what;

	if (it && (it->vanishing || it->found))
		it = NULL;
	if (f->error) {
		refuse(c, u, it, f, f->error, l);
		return;
	}
	other = taken(c, it, f, &what);
	if (other) {
		AUTO_FREE char *text = xasprintf(
			"%s:%d: %s '%s' is taken by the VM of %s:%d, which stays", f->vm->file,
			f->vm->line, what, str_eq(what, "uuid") ? f->vm->uuid : f->vm->name,
			other->e.vm->file, other->e.vm->line);

		u->blocked = true;
		refuse(c, u, it, f, text, l);
		return;
	}
	if (it && !str_eq(it->e.uuid, f->vm->uuid)) {
		vanish(c, it);
		it = NULL;
	}
	if (!it)
		it = map_get(&c->by_uuid, f->vm->uuid); /* vanishing, else it would be taken */
	if (it && it->unit != u) {
		unlink_item(it);
		link_item(u, it);
	}
	if (it)
		replace(c, it, f);
	else if (c->nitems >= CATALOG_VMS_MAX)
		refuse(c, u, NULL, f, "too many VMs on this host", l);
	else
		insert(c, u, f);
}

static bool has_section(const struct reading *r, const char *section)
{
	for (size_t i = 0; i < r->nfound; i++) {
		if (str_eq(r->found[i].section, section))
			return true;
	}
	return false;
}

/* While somebody may still be writing, only what is whole and loses nothing is believed. */
static bool may_be_half(const struct unit *u, const struct reading *r)
{
	if (!u->soft || r->settled)
		return false;
	if (r->error)
		return true;
	for (size_t i = 0; i < r->nfound; i++) {
		if (r->found[i].error)
			return true;
	}
	for (const struct item *it = u->items; it; it = it->next) {
		if (!has_section(r, it->section))
			return true;
	}
	return false;
}

static void take_reading(struct catalog *c, struct unit *u, struct reading *r)
{
	struct problem_list l = {0};

	for (struct item *it = u->items; it; it = it->next) {
		it->found = false;
		if (!r->error && !has_section(r, it->section))
			vanish(c, it);
		else if (r->error)
			set_error(c, it, r->error);
	}
	if (r->error && !u->items) {
		AUTO_FREE char *file = xasprintf("%s/config", u->path);

		add_problem(&l, r->file ? r->file : file, NULL, r->error);
	}
	for (size_t i = 0; !r->error && i < r->nfound; i++)
		take_found(c, u, &r->found[i], &l);
	unit_set_problems(c, u, l.items, l.count);
}

static void take_watches(struct catalog *c, struct unit *u, struct reading *r)
{
	int *old = u->wds;
	size_t nold = u->nwds;

	u->wds = steal_ptr(r->wds);
	u->nwds = r->nwds;
	r->nwds = 0;
	for (size_t i = 0; i < nold; i++) {
		bool kept = false;

		for (size_t k = 0; k < u->nwds && !kept; k++)
			kept = u->wds[k] == old[i];
		if (!kept)
			watch_drop(&c->watches, old[i], u);
	}
	free(old);
	for (size_t i = 0; i < u->nextras; i++)
		free(u->extras[i]);
	free(u->extras);
	u->extras = steal_ptr(r->extras);
	u->nextras = r->nextras;
	r->nextras = 0;
}

static void process(struct catalog *c, struct unit *u)
{
	struct reading r = {0};

	unit_read(c, u, &r);
	c->stats.reloads++;
	u->stat_print = 0;
	take_watches(c, u, &r);
	if (r.gone) {
		for (struct item *it = u->items; it; it = it->next)
			vanish(c, it);
		unit_set_problems(c, u, NULL, 0);
	} else if (may_be_half(u, &r)) {
		u->withheld = true;
	} else {
		u->withheld = u->blocked = false;
		u->broken = r.error != NULL;
		take_reading(c, u, &r);
	}
	reading_done(&r);
}

/* --- rounds --- */

void unit_queue(struct catalog *c, struct unit *u)
{
	if (u->queued)
		return;
	u->queued = true;
	if (c->nqueue == c->queue_cap) {
		c->queue_cap = c->queue_cap ? c->queue_cap * 2 : 16;
		c->queue = xrealloc(c->queue, c->queue_cap * sizeof(struct unit *));
	}
	c->queue[c->nqueue++] = u;
}

static bool is_held(const struct catalog *c, const char *uuid)
{
	for (size_t i = 0; i < c->nholds; i++) {
		if (str_eq(c->holds[i], uuid))
			return true;
	}
	return false;
}

bool unit_held(const struct catalog *c, const struct unit *u)
{
	if (c->nholds == 0)
		return false;
	if (is_held(c, u->name))
		return true;
	for (const struct item *it = u->items; it; it = it->next) {
		if (is_held(c, it->e.uuid))
			return true;
	}
	return false;
}

static bool is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? S_ISDIR(st.st_mode) : errno == EACCES;
}

/* Directories that went away first, so that a renamed one finds its VMs free to take. */
static void round_of_gone(struct catalog *c, struct unit **queue, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!queue[i] || is_directory(queue[i]->path))
			continue;
		process(c, queue[i]);
	}
}

static void one_round(struct catalog *c)
{
	struct unit **queue = steal_ptr(c->queue);
	size_t n = c->nqueue;

	c->nqueue = c->queue_cap = 0;
	for (size_t i = 0; i < n; i++) {
		queue[i]->queued = false;
		queue[i]->held_dirty = unit_held(c, queue[i]);
		if (queue[i]->held_dirty)
			queue[i] = NULL;
	}
	round_of_gone(c, queue, n);
	for (size_t i = 0; i < n; i++) {
		if (queue[i] && is_directory(queue[i]->path))
			process(c, queue[i]);
	}
	sweep(c);
	for (size_t i = 0; i < n; i++) {
		if (queue[i] && !queue[i]->items && !queue[i]->queued &&
		    !is_directory(queue[i]->path))
			unit_free(c, queue[i]);
	}
	free(queue);
}

void catalog_apply(struct catalog *c)
{
	if (c->applying)
		return;
	c->applying = true;
	/* Each round that frees a name can only settle units that waited for it. */
	while (c->nqueue > 0) {
		c->unblocked = false;
		one_round(c);
		for (size_t i = 0; c->unblocked && i < c->nunits; i++) {
			if (c->units[i]->blocked)
				unit_queue(c, c->units[i]);
		}
	}
	c->applying = false;
	for (size_t i = 0; i < c->nresolved; i++)
		free(c->resolved[i].name);
	free(c->resolved);
	c->resolved = NULL;
	c->nresolved = 0;
}
