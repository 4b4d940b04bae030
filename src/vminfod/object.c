/* SPDX-License-Identifier: Apache-2.0 */
/* One VM's object out of its definition, the facts of two daemons, and what is not known. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/vm.h"
#include "ucl/ucl.h"
#include "vminfod/cache_impl.h"
#include "vminfod/disks.h"
#include "vminfod/host.h"

#define DISKS            "disks"
#define DISK_SIZE        "size" /* MiB, as the member of a definition */
#define DISK_MISSING     "missing"
#define DISK_FORMAT      "format"
#define DISK_BACKING     "backing"
#define DISK_COMPRESSION "compression"
#define DISK_ALLOCATED   "allocated" /* MiB on the host */
#define MIB              (1ull << 20)

static const char *const feed_names[FEED_SOURCES] = {"vmstated", "vmadmd"};

const struct vm *object_vm(const struct cached *v)
{
	return v->entry ? v->entry->vm : v->ghost;
}

static json_t *parsed(const char *facts)
{
	json_t *j = NULL;

	if (!facts || json_parse_object(facts, strlen(facts), "facts", &j, NULL) < 0)
		return json_object();
	return j;
}

bool facts_pending(const char *facts)
{
	AUTO_JSON json_t *j = parsed(facts);

	return json_get_bool(j, FACT_PENDING, false);
}

bool facts_run(const char *facts)
{
	AUTO_JSON json_t *j = parsed(facts);

	return json_object_get(j, FACT_PID) != NULL;
}

static void put_unknown(json_t *facts, const char *what, const char *since)
{
	json_t *unknown = json_object_get(facts, FACT_UNKNOWN);

	if (!unknown) {
		unknown = json_object();
		(void)json_object_set_new(facts, FACT_UNKNOWN, unknown);
	}
	json_put_str(unknown, what, since);
}

static void put_unknown_since(json_t *facts, const char *what, int64_t wall_ms)
{
	char buf[ISO_TIME_LEN];

	put_unknown(facts, what, clock_iso(wall_ms, buf, sizeof(buf)));
}

/*
 * vmstated answers for the lifecycle. With it there, a VM it does not speak of has a definition
 * and no more ("configured"); with it away, what it last said stays, or nothing is known.
 */
static json_t *lifecycle(const struct cache *c, struct cached *v)
{
	const struct feed_state *feed = &c->feeds[FEED_OF_VMSTATED];
	const char *known = v->facts[FEED_OF_VMSTATED];
	json_t *facts = parsed(known);
	const char *state = feed->ready ? "configured" : "unknown";
	bool installed = feed->ready && v->installed; /* vmstated is about to take it up */

	if (!known) {
		json_put_str(facts, FACT_ZONE_STATE, installed ? "installed" : state);
		json_put_str(facts, FACT_STATE, installed ? "stopped" : state);
		v->shows_unknown = true;
	}
	if (!feed->ever) {
		put_unknown_since(facts, feed_names[FEED_OF_VMSTATED], c->born_wall_ms);
		v->shows_unknown = true;
	} else if (feed->said) {
		put_unknown_since(facts, feed_names[FEED_OF_VMSTATED], feed->lost_wall_ms);
		v->shows_unknown = true;
	}
	return facts;
}

/* Our own reading of the file is the newer word than vmstated's. */
static void put_definition(json_t *facts, const struct cached *v)
{
	const char *state = v->entry ? (v->entry->error ? "broken" : NULL) : "missing";

	json_put_str(facts, FACT_DEFINITION, state);
	if (!state || v->entry)
		json_put_str(facts, FACT_DEFINITION_ERROR, v->entry ? v->entry->error : NULL);
}

/* --- disks --- */

void object_forget_disks(const struct cache *c, struct cached *v)
{
	for (size_t i = 0; i < v->ndisks; i++)
		disks_put(c->disks, v->disks[i]);
	free(steal_ptr(v->disks));
	v->ndisks = 0;
}

/* Take the new ones before the old are given back: those in both are not looked at again. */
static void take_disks(const struct cache *c, struct cached *v, const struct vm *vm)
{
	struct seen_disk **now = NULL;

	if (!c->disks)
		return;
	if (vm->ndisks)
		now = xcalloc(vm->ndisks, sizeof(struct seen_disk *));
	for (size_t i = 0; i < vm->ndisks; i++)
		now[i] = vm->disks[i]->path ? disks_get(c->disks, vm->disks[i]->path) : NULL;
	object_forget_disks(c, v);
	v->disks = now;
	v->ndisks = vm->ndisks;
}

/* A guest owns all bytes of a raw disk: what looks like another format in it is its own word. */
static void put_disk(json_t *j, const struct disk *disk, const struct disk_look *look)
{
	bool raw = disk->format == FORMAT_RAW;
	uint64_t size = raw ? look->file_size : look->size;

	if (look->error == ENOENT)
		json_put_bool(j, DISK_MISSING, true);
	if (look->error)
		return;
	if (disk->media == MEDIA_DISK)
		json_put_int(j, DISK_SIZE, (json_int_t)((size + MIB - 1) / MIB));
	json_put_str(j, DISK_FORMAT, raw ? "raw" : look->format);
	json_put_str(j, DISK_BACKING, raw ? NULL : look->backing);
	json_put_int(j, DISK_ALLOCATED, (json_int_t)((look->allocated + MIB - 1) / MIB));
}

static void put_disks(json_t *object, const struct cached *v, const struct vm *vm)
{
	json_t *list = json_object_get(object, DISKS);

	for (size_t i = 0; i < v->ndisks; i++) {
		if (v->disks[i])
			put_disk(json_array_get(list, i), vm->disks[i], disk_look(v->disks[i]));
	}
}

/* What a disk says is not known while it cannot be read. */
static void put_unreadable(json_t *facts, struct cached *v)
{
	for (size_t i = 0; i < v->ndisks; i++) {
		const struct disk_look *look = v->disks[i] ? disk_look(v->disks[i]) : NULL;

		if (!look || !look->error || look->error == ENOENT)
			continue;
		put_unknown_since(facts, DISKS, look->failed_wall_ms);
		return;
	}
}

/* --- ZFS, as vmadmd tells --- */

/* The members of the VM's dataset; what is not known of them, since when. */
static void put_zfs(json_t *facts, json_t *zfs)
{
	static const char *const members[] = {"quota", "zfs_root_compression", "snapshots"};
	const char *since = json_get_str(zfs, FACT_UNKNOWN, NULL);

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		json_t *value = json_object_get(zfs, members[i]);

		if (value && !json_object_get(facts, members[i]))
			(void)json_object_set(facts, members[i], value);
	}
	if (since)
		put_unknown(facts, FACT_ZFS, since);
}

/* Disks that are volumes. */
static void put_volumes(json_t *object, const struct vm *vm, const json_t *zfs)
{
	json_t *volumes = json_object_get(zfs, DISKS), *list = json_object_get(object, DISKS);

	for (size_t i = 0; volumes && i < vm->ndisks; i++) {
		const char *name = vm->disks[i]->zfs_filesystem;
		json_t *volume = name ? json_object_get(volumes, name) : NULL;

		if (volume)
			json_put_str(json_array_get(list, i), DISK_COMPRESSION,
				     json_get_str(volume, DISK_COMPRESSION, NULL));
	}
}

/* --- NICs --- */

/* One daemon's word of a NIC's addresses, {address: since}, added to what is known already. */
static void add_addresses(json_t *nic, const json_t *found, const char *source)
{
	json_t *list = json_object_get(nic, FACT_ADDRESSES), *sources, *since;
	const char *address;

	if (json_object_size(found) == 0)
		return;
	if (!list) {
		list = json_array();
		(void)json_object_set_new(nic, FACT_ADDRESSES, list);
		(void)json_object_set_new(nic, FACT_SOURCES, json_object());
	}
	sources = json_object_get(nic, FACT_SOURCES);
	json_object_foreach ((json_t *)(uintptr_t)found, address, since) {
		if (json_object_get(sources, address))
			continue;
		(void)json_array_append_new(list, json_string(address));
		(void)json_object_set_new(
			sources, address,
			json_pack("{s:s, s:O}", "source", source, "since", since));
	}
}

/* The guest's own word, as its agent tells, is all; else what the host leased and saw it use. */
static void put_addresses(json_t *object, const struct vm *vm, const json_t *facts)
{
	const json_t *said = json_object_get(facts, FACT_SAID);
	const json_t *leases = json_object_get(facts, FACT_LEASES);
	const json_t *seen = json_object_get(facts, FACT_NEIGHBOURS);
	json_t *list = json_object_get(object, "nics");

	for (size_t i = 0; i < vm->nnics; i++) {
		const char *mac = vm->nics[i]->mac;
		json_t *nic = json_array_get(list, i);

		add_addresses(nic, json_object_get(said, mac), "agent");
		if (json_object_get(nic, FACT_ADDRESSES))
			continue;
		add_addresses(nic, json_object_get(leases, mac), "lease");
		add_addresses(nic, json_object_get(seen, mac), "neighbour");
	}
}

json_t *object_make(const struct cache *c, struct cached *v)
{
	const struct feed_state *actor = &c->feeds[FEED_OF_VMADMD];
	AUTO_JSON json_t *facts = NULL;
	AUTO_JSON json_t *ours = parsed(v->facts[FEED_OF_VMADMD]);
	const char *zone_state = json_get_str(ours, FACT_ZONE_STATE, NULL);
	const struct vm *vm = object_vm(v);
	json_t *object, *zfs = json_object_get(ours, FACT_ZFS);

	v->shows_unknown = false;
	if (zone_state)
		v->installed = str_eq(zone_state, "installed");
	facts = lifecycle(c, v);
	if (v->held && !v->ending) {
		(void)json_object_del(facts, FACT_PENDING);
		if (v->pending)
			json_put_bool(facts, FACT_PENDING, true);
	}
	put_definition(facts, v);
	/* Until a creation is complete vmadmd has the word. */
	(void)json_object_update(facts, ours);
	put_zfs(facts, zfs);
	if (actor->said && (zfs || json_object_get(ours, FACT_PROVISIONING))) {
		put_unknown_since(facts, feed_names[FEED_OF_VMADMD], actor->lost_wall_ms);
		v->shows_unknown = true;
	}
	take_disks(c, v, vm);
	put_unreadable(facts, v);
	if (c->host)
		(void)json_object_update_missing(facts, (json_t *)(uintptr_t)host_facts(c->host));
	object = vm_to_json(vm, facts, true);
	put_disks(object, v, vm);
	put_volumes(object, vm, zfs);
	put_addresses(object, vm, facts);
	return object;
}

static struct vm *first_vm(const struct ucl_doc *doc, const char *uuid, const char *data)
{
	AUTO_PROBLEMS struct problems p = {0};
	const struct ucl_value *root = ucl_root(doc);
	struct vm *vm;

	if (root->type != UCL_OBJECT || root->count == 0)
		return NULL;
	vm = vm_from_ucl(root->keys[0], root->items[0], uuid, uuid, &p);
	if (p.errors || !str_eq(vm->uuid, uuid)) {
		vm_free(vm);
		return NULL;
	}
	vm_finish(vm, data);
	return vm;
}

struct vm *object_started(const struct paths *paths, const char *uuid)
{
	static const struct ucl_options folded = {.fold_keys = true};
	AUTO_FREE char *path = path_of_run(paths, uuid, "started.json");
	AUTO_FREE char *data = path_of_data(paths, uuid, NULL);
	AUTO_FREE char *text = NULL;
	AUTO_JSON json_t *j = NULL;
	struct ucl_doc *doc = NULL;
	struct vm *vm = NULL;
	const char *definition;
	size_t len;

	if (file_read(path, JSON_TEXT_MAX, &text, &len, NULL, NULL) < 0 ||
	    json_parse_object(text, len, path, &j, NULL) < 0)
		return NULL;
	definition = json_get_str(j, "definition", NULL);
	if (!definition || ucl_parse(path, definition, strlen(definition), &folded, &doc, NULL) < 0)
		return NULL;
	vm = first_vm(doc, uuid, data);
	ucl_free(doc);
	if (vm) {
		vm->owner_uid = (uint32_t)json_get_int(j, "owner_uid", UINT32_MAX);
		vm->group_gid = (uint32_t)json_get_int(j, "group_gid", UINT32_MAX);
	}
	return vm;
}
