/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmstated --check: all problems of all definitions, one per line, and of what they name: hooks,
 * configfiles, images, other definitions. Starts nothing.
 */
#include "vmstated/check.h"

#include <errno.h>
#include <stdio.h>
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

static void check_vm(struct catalog *c, const struct vm *vm, struct problems *p)
{
	struct bhyve *bhyve = NULL;

	hooks_check(vm, p);
	check_files(vm, p);
	check_disks(vm, p);
	if (vm->configfile) {
		(void)bhyve_load(vm->configfile, vm, &bhyve, p);
		bhyve_free(bhyve);
	}
	for (size_t i = 0; i < catalog_count(c); i++) {
		const struct vm *other = catalog_at(c, i)->vm;

		if (strcmp(other->uuid, vm->uuid) > 0) /* each pair once */
			vm_conflicts(vm, other, p);
	}
}

static void nothing(void *ctx, struct catalog_entry *e, enum catalog_change what)
{
}

int check_run(const struct paths *paths, struct err *err)
{
	struct catalog_config config = {.paths = paths, .changed = nothing};
	const struct catalog_problem *broken;
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
	for (size_t i = 0; i < catalog_count(c); i++) {
		AUTO_PROBLEMS struct problems p = {0};
		const struct vm *vm = catalog_at(c, i)->vm;

		check_vm(c, vm, &p);
		print(vm, &p, &count);
	}
	(void)fprintf(stderr, "%zu virtual machine%s, %zu problem%s\n", catalog_count(c),
		      catalog_count(c) == 1 ? "" : "s", count, count == 1 ? "" : "s");
	catalog_free(c);
	return count > 0;
}
