/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmstated --check: all problems of all definitions, one per line, and of what they name: hooks,
 * configfiles, images, other definitions. Starts nothing.
 */
#include "vmstated/check.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "qemu/bhyve.h"
#include "qemu/image.h"
#include "store/catalog.h"
#include "ucl/ucl.h"
#include "vmstated/parts.h"

static void print(const struct vm *vm, const struct problems *p, size_t *count)
{
	for (size_t i = 0; i < p->count; i++) {
		AUTO_STRBUF struct strbuf sb = {0};
		bool warning = p->items[i].kind == PROBLEM_WARNING;

		problem_print(&sb, &p->items[i]);
		(void)printf("%s: %s: %s%s\n", vm->file, vm->name, warning ? "warning: " : "",
			     sb.data);
		*count += !warning;
	}
}

/* Files that a start opens. */
static void check_files(const struct vm *vm, struct problems *p)
{
	const struct {
		const char *key, *path;
	} rows[] = {{"bootrom", vm->bootrom}, {"kernel", vm->kernel}, {"initrd", vm->initrd}};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].path && access(rows[i].path, R_OK) < 0)
			problems_add(p, PROBLEM_BAD_VALUE, rows[i].key, NULL, "'%s': %s",
				     rows[i].path, strerror(errno));
	}
}

static void check_disks(const struct vm *vm, struct problems *p)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		const struct disk *d = vm->disks[i];
		struct image_info info;
		struct err err = {0};
		AUTO_FREE char *where = xasprintf("disks[%zu].path", i);

		if (!d->path || image_protocol(d->path) || (!file_exists(d->path) && d->size_mib))
			continue;
		if (image_probe(d->path, &info, &err) < 0)
			problems_add(p, PROBLEM_BAD_VALUE, where, NULL, "%s", err.msg);
	}
}

static void check_vm(const struct vm *vm, struct problems *p)
{
	struct bhyve *bhyve = NULL;

	hooks_check(vm, p);
	check_files(vm, p);
	check_disks(vm, p);
	if (vm->configfile) {
		(void)bhyve_load(vm->configfile, vm, &bhyve, p);
		bhyve_free(bhyve);
	}
}

/* --- conflicts: only VMs that claim the same are compared --- */

struct claim {
	char *text;
	size_t vm; /* in the catalog */
};

struct claims {
	struct claim *items;
	size_t count, room, vm;
};

struct rivals {
	struct pair {
		size_t vm, other;
	} * items;
	size_t count, at;
};

static void add_claim(void *ctx, const char *text)
{
	struct claims *c = ctx;

	if (c->count == c->room) {
		c->room = c->room ? 2 * c->room : 64;
		c->items = xrealloc(c->items, c->room * sizeof(*c->items));
	}
	c->items[c->count++] = (struct claim){.text = xstrdup(text), .vm = c->vm};
}

static int by_text(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r = strcmp(x->text, y->text);

	return r ? r : (x->vm > y->vm) - (x->vm < y->vm);
}

static int by_vm(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;

	return x->vm == y->vm ? (x->other > y->other) - (x->other < y->other)
			      : (x->vm > y->vm) - (x->vm < y->vm);
}

/* Each that claims what another had before it, with that one. */
static void pair_up(struct claims *claims, struct rivals *ret)
{
	size_t first = 0;

	if (claims->count > 0)
		qsort(claims->items, claims->count, sizeof(*claims->items), by_text);
	ret->items = xcalloc(claims->count + 1, sizeof(*ret->items));
	for (size_t i = 1; i < claims->count; i++) {
		const struct claim *one = &claims->items[i], *had = &claims->items[first];

		if (!str_eq(one->text, had->text))
			first = i;
		else if (one->vm != had->vm)
			ret->items[ret->count++] = (struct pair){.vm = one->vm, .other = had->vm};
	}
	qsort(ret->items, ret->count, sizeof(*ret->items), by_vm);
}

static void find_rivals(struct catalog *c, struct rivals *ret)
{
	struct claims claims = {0};

	*ret = (struct rivals){0};
	for (claims.vm = 0; claims.vm < catalog_count(c); claims.vm++)
		vm_claims(catalog_at(c, claims.vm)->vm, add_claim, &claims);
	pair_up(&claims, ret);
	for (size_t i = 0; i < claims.count; i++)
		free(claims.items[i].text);
	free(claims.items);
}

/* VMs are asked for in rising order. */
static void check_rivals(struct catalog *c, struct rivals *rivals, size_t vm, struct problems *p)
{
	size_t last = SIZE_MAX;

	for (; rivals->at < rivals->count && rivals->items[rivals->at].vm == vm; rivals->at++) {
		size_t other = rivals->items[rivals->at].other;

		if (other != last) /* they may claim more than one thing */
			vm_conflicts(catalog_at(c, vm)->vm, catalog_at(c, other)->vm, p);
		last = other;
	}
}

/* --- what is there and means nothing --- */

/* The original's section about the daemon itself, which it never used either. */
static void note_ignored(const char *file)
{
	static const struct ucl_options options = {.fold_keys = true};
	AUTO_FREE char *text = NULL;
	const struct ucl_value *root;
	struct ucl_doc *doc;
	size_t len;

	if (file_read(file, UCL_TEXT_MAX, &text, &len, NULL, NULL) < 0 ||
	    !strcasestr(text, CATALOG_IGNORED) ||
	    ucl_parse(file, text, len, &options, &doc, NULL) < 0)
		return;
	root = ucl_root(doc);
	for (size_t i = 0; root->type == UCL_OBJECT && i < root->count; i++) {
		AUTO_FREE char *where = ucl_where(&root->items[i]->key);

		if (str_eq(root->keys[i], CATALOG_IGNORED))
			(void)printf("%s: warning: section %s is ignored (taps have names of their "
				     "own, and null modems are not needed)\n",
				     where, CATALOG_IGNORED);
	}
	ucl_free(doc);
}

static void note_all_ignored(const struct paths *paths)
{
	DIR *d = opendir(paths->etc);
	struct dirent *de;

	while (d && (de = readdir(d)) != NULL) {
		AUTO_FREE char *dir = path_join(paths->etc, de->d_name);
		AUTO_FREE char *file = path_join(dir, "config");

		if (de->d_name[0] != '.')
			note_ignored(file);
	}
	if (d)
		(void)closedir(d);
}

static void nothing(void *ctx, struct catalog_entry *e, enum catalog_change what)
{
}

int check_run(const struct paths *paths, struct err *err)
{
	struct catalog_config config = {.paths = paths, .changed = nothing};
	const struct catalog_problem *broken;
	struct rivals rivals;
	struct catalog *c;
	size_t count, nbroken;
	int r = catalog_new(&config, &c, err);

	if (r == 0)
		r = catalog_load(c, err);
	if (r < 0)
		return r;
	nbroken = catalog_problems(c, &broken);
	count = nbroken;
	for (size_t i = 0; i < nbroken; i++)
		(void)printf("%s\n", broken[i].text);
	note_all_ignored(paths);
	find_rivals(c, &rivals);
	for (size_t i = 0; i < catalog_count(c); i++) {
		AUTO_PROBLEMS struct problems p = {0};
		const struct vm *vm = catalog_at(c, i)->vm;

		check_vm(vm, &p);
		check_rivals(c, &rivals, i, &p);
		print(vm, &p, &count);
	}
	free(rivals.items);
	(void)fprintf(stderr, "%zu virtual machine%s, %zu problem%s\n", catalog_count(c),
		      catalog_count(c) == 1 ? "" : "s", count, count == 1 ? "" : "s");
	catalog_free(c);
	return count > 0;
}
