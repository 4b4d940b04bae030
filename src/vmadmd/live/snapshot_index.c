/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What we know of a VM's snapshots: the file snapshots.json in its data directory. A snapshot is
 * one when it is in there: it is written last at a creation and first at a deletion, and tags in
 * images without an entry are leftovers. `current` is the one the disks as they are come from.
 */
#include <errno.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "store/catalog.h"
#include "store/started.h"
#include "store/write.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/snapshot.h"

#define INDEX_VERSION 1
#define MIB           (1024.0 * 1024.0)

static const char *const disk_media_names[] = {"disk", "cdrom"};

/* Source: smartos facts 8.31. */
int snap_name_check(const char *name, struct err *err)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789-_.:%";
	size_t len = name ? strlen(name) : 0;

	if (len >= 1 && len <= SNAP_NAME_MAX && strspn(name, allowed) == len)
		return 0;
	return err_set(err, EINVAL,
		       "Invalid snapshot name '%.80s': want 1 to %d characters of "
		       "[A-Za-z0-9-_.:%%]",
		       name ? name : "", SNAP_NAME_MAX);
}

static char *index_path(struct vmadmd *d, const char *uuid)
{
	return path_of_data(d->paths, uuid, "snapshots.json");
}

json_t *snap_index(struct vmadmd *d, const char *uuid, struct err *err)
{
	AUTO_FREE char *path = index_path(d, uuid);
	json_t *index = NULL;
	int r = state_read(path, INDEX_VERSION, &index, err);

	if (r == -ENOENT)
		return json_pack("{s:[]}", "snapshots");
	if (r < 0)
		return NULL;
	(void)json_object_del(index, "format_version");
	if (!json_is_array(json_object_get(index, "snapshots")))
		(void)json_object_set_new(index, "snapshots", json_array());
	return index;
}

int snap_index_write(struct vmadmd *d, const char *uuid, const json_t *index, struct err *err)
{
	AUTO_FREE char *path = index_path(d, uuid);

	return state_write(path, INDEX_VERSION, index, d->sync, err);
}

json_t *snap_find(const json_t *index, const char *name)
{
	json_t *entry;
	size_t i;

	json_array_foreach (json_object_get(index, "snapshots"), i, entry) {
		if (str_eq(json_get_str(entry, "name", NULL), name))
			return entry;
	}
	return NULL;
}

void snap_add(json_t *index, json_t *entry)
{
	json_put_str(entry, "parent", json_get_str(index, "current", NULL));
	json_put_str(index, "current", json_get_str(entry, "name", ""));
	(void)json_array_append_new(json_object_get(index, "snapshots"), entry);
}

/* Its children become its parent's. */
void snap_remove(json_t *index, const char *name)
{
	json_t *list = json_object_get(index, "snapshots"), *entry = snap_find(index, name), *other;
	AUTO_FREE char *parent = xstrdup(json_get_str(entry, "parent", NULL));
	size_t i, at = 0;

	if (!entry)
		return;
	json_array_foreach (list, i, other) {
		if (other == entry)
			at = i;
		else if (str_eq(json_get_str(other, "parent", NULL), name))
			json_put_str(other, "parent", parent);
	}
	if (str_eq(json_get_str(index, "current", NULL), name))
		json_put_str(index, "current", parent);
	(void)json_array_remove(list, at);
}

static json_t *told(const json_t *entry, bool whole)
{
	json_t *out = json_object();

	json_put_str(out, "name", json_get_str(entry, "name", ""));
	(void)json_object_set_new(out, "size",
				  json_real((double)json_get_int(entry, "bytes", 0) / MIB));
	json_put_str(out, "created_at", json_get_str(entry, "created_at", ""));
	json_put_bool(out, "memory", json_get_bool(entry, "memory", false));
	json_put_str(out, "parent", json_get_str(entry, "parent", NULL));
	if (!whole)
		return out;
	json_put_bool(out, "frozen", json_get_bool(entry, "frozen", false));
	(void)json_object_set(out, "disks", json_object_get(entry, "disks"));
	return out;
}

json_t *snap_told(const json_t *index, bool whole)
{
	json_t *list = json_array(), *entry;
	size_t i;

	json_array_foreach (json_object_get(index, "snapshots"), i, entry)
		(void)json_array_insert_new(list, 0, told(entry, whole));
	return list;
}

char *snap_vars_path(const char *vars, const char *name)
{
	return xasprintf("%s." SNAP_TAG "%s", vars, name);
}

/* --- in the VM object --- */

void snapshots_facts(const struct guest *g, json_t *facts)
{
	if (g->snapshots && catalog_by_uuid(g->d->catalog, g->uuid))
		(void)json_object_update(facts, g->snapshots);
}

void snapshots_read(struct vmadmd *d, const char *uuid)
{
	AUTO_FREE char *path = index_path(d, uuid);
	AUTO_JSON json_t *index = NULL;
	struct err err = {0};
	struct guest *g;

	if (!file_exists(path))
		return;
	index = snap_index(d, uuid, &err);
	if (!index) {
		log_error("vm=%s snapshots not known: %s", uuid, err.msg);
		return;
	}
	g = guest_get(d, uuid);
	json_decref(g->snapshots);
	g->snapshots = json_object();
	(void)json_object_set_new(g->snapshots, FACT_SNAPSHOTS, snap_told(index, false));
	json_put_str(g->snapshots, FACT_SNAPSHOTS_CHANGED, json_get_str(index, "changed", NULL));
}

/* --- the machine --- */

/* "pc-q35-7.2" out of the "-machine" of the command line: what "newest" was at the start. */
static const char *machine_type(const json_t *started)
{
	const json_t *argv = json_object_get(started, "argv"), *word;
	size_t i;

	json_array_foreach (argv, i, word) {
		if (str_eq(json_string_value(word), "-machine"))
			return json_string_value(json_array_get(argv, i + 1));
	}
	return "";
}

static void put_devices(json_t *machine, const struct vm *vm)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		AUTO_FREE char *key = xasprintf("disks[%zu]", i);
		AUTO_FREE char *text =
			xasprintf("%s, model %d", disk_media_names[vm->disks[i]->media],
				  (int)vm->disks[i]->model);

		json_put_str(machine, key, text);
	}
	for (size_t i = 0; i < vm->nnics; i++) {
		AUTO_FREE char *key = xasprintf("nics[%zu]", i);
		AUTO_FREE char *text =
			xasprintf("%s, model %d", vm->nics[i]->mac ? vm->nics[i]->mac : "",
				  (int)vm->nics[i]->model);

		json_put_str(machine, key, text);
	}
}

json_t *snap_machine_of(const struct vm *vm)
{
	json_t *machine = json_object();

	json_put_int(machine, "ram", vm->ram_mib);
	json_put_int(machine, "vcpus", vm->vcpus);
	json_put_int(machine, "sockets", vm->sockets);
	json_put_int(machine, "cores", vm->cores);
	json_put_int(machine, "threads", vm->threads);
	json_put_str(machine, "cpu_type", vm->cpu_type);
	json_put_int(machine, "vga", vm->vga);
	json_put_str(machine, "bootrom", vm->bootrom);
	put_devices(machine, vm);
	return machine;
}

json_t *snap_machine(struct vmadmd *d, const char *uuid, struct err *err)
{
	AUTO_JSON json_t *started = NULL;
	AUTO_VM struct vm *vm = NULL;
	const char *type;
	json_t *machine;

	if (started_read(d->paths, uuid, &vm, &started, err) < 0)
		return NULL;
	type = machine_type(started);
	machine = snap_machine_of(vm);
	(void)json_object_set_new(machine, "machine", json_stringn(type, strcspn(type, ",")));
	return machine;
}

int snap_same_machine(const json_t *was, const json_t *is, struct err *err)
{
	AUTO_JSON json_t *all = json_object();
	const char *key;
	json_t *value;

	(void)json_object_update(all, (json_t *)(uintptr_t)was);
	(void)json_object_update(all, (json_t *)(uintptr_t)is);
	json_object_foreach (all, key, value) {
		if (!json_equal(json_object_get(was, key), json_object_get(is, key)))
			return err_set(err, EBUSY,
				       "its memory fits the machine it was taken of alone, and "
				       "'%s' is another now; set it back, or take the disks alone",
				       key);
	}
	return 0;
}
