/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The object `vmadm get` prints on SmartOS as a create payload here: what can be given at creation
 * stays, what is only shown goes without a word, anything else is told. Source: vmadm(8).
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/props.h"
#include "one/convert/convert_private.h"

#define ZVOL_THERE "/dev/zvol/rdsk/"
#define ZVOL_HERE  "/dev/zvol/"

/* Members of theirs that say nothing about the VM, or what every VM of ours is. */
static const char *const silent[] = {"brand", "zonename", "limit_priv", "fs_allowed", "cpu_arch"};

static bool is_silent(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(silent); i++)
		if (str_eq(silent[i], name))
			return true;
	return false;
}

static bool is_empty(const json_t *value)
{
	return json_is_null(value) || json_is_false(value) ||
	       (json_is_string(value) && !*json_string_value(value)) ||
	       (json_is_array(value) && json_array_size(value) == 0) ||
	       (json_is_object(value) && json_object_size(value) == 0);
}

/* Take out what a payload of ours cannot have; at: path for notes, "" for the VM itself. */
static void filter(json_t *object, const struct prop_table *t, const char *at,
		   struct problems *notes)
{
	const char *name;
	json_t *value;
	void *tmp;

	json_object_foreach_safe (object, tmp, name, value) {
		const struct prop *row = prop_find(t, name, false);
		AUTO_FREE char *where = xasprintf("%s%s%s", at, *at ? "." : "", name);

		if (row && (row->set & ON_CREATE) && !is_silent(name))
			continue;
		if (!row && !is_silent(name) && !is_empty(value))
			problems_add(notes, PROBLEM_WARNING, where, NULL,
				     "is not known here: left out");
		(void)json_object_del(object, name);
	}
}

static void convert_disk(json_t *disk, const char *at, struct problems *notes)
{
	const char *path = json_get_str(disk, "path", NULL);
	AUTO_FREE char *here = NULL;

	filter(disk, &disk_props, at, notes);
	if (!path)
		return;
	if (str_starts(path, ZVOL_THERE)) {
		here = xasprintf("%s%s", ZVOL_HERE, path + strlen(ZVOL_THERE));
		json_put_str(disk, "path", here);
		problems_add(notes, PROBLEM_WARNING, at, NULL,
			     "send the volume here first (zfs send | zfs receive): it is expected "
			     "at '%s'",
			     here);
		json_put_str(disk, "format", "raw");
	}
	json_put_bool(disk, "nocreate", true);
	/* Sizes are those of the volume that is there. */
	(void)json_object_del(disk, "size");
	(void)json_object_del(disk, "block_size");
	(void)json_object_del(disk, "image_size");
	(void)json_object_del(disk, "image_uuid");
	(void)json_object_del(disk, "image_name");
}

static void convert_nic(json_t *nic, const char *at, const struct convert_bridges *bridges,
			struct problems *notes)
{
	const char *tag = json_get_str(nic, "nic_tag", NULL);
	const char *bridge = tag ? convert_bridge(bridges, tag) : NULL;

	filter(nic, &nic_props, at, notes);
	if (json_is_false(json_object_get(nic, "primary")))
		(void)json_object_del(nic, "primary");
	if (bridge)
		json_put_str(nic, "nic_tag", bridge);
	else if (tag)
		problems_add(notes, PROBLEM_WARNING, at, NULL,
			     "nic_tag '%s' has to be a bridge of this host (or --bridge %s=BRIDGE)",
			     tag, tag);
}

static void elements(json_t *vm, const struct convert_bridges *bridges, struct problems *notes)
{
	json_t *one;
	size_t i;

	json_array_foreach (json_object_get(vm, "disks"), i, one) {
		AUTO_FREE char *at = xasprintf("disks[%zu]", i);

		convert_disk(one, at, notes);
	}
	json_array_foreach (json_object_get(vm, "nics"), i, one) {
		AUTO_FREE char *at = xasprintf("nics[%zu]", i);

		convert_nic(one, at, bridges, notes);
	}
}

int convert_smartos(const char *text, size_t len, const struct convert_bridges *bridges,
		    json_t **ret, struct problems *notes, struct err *err)
{
	AUTO_JSON json_t *vm = NULL;
	const char *brand;
	int r;

	if (len > CONVERT_MAX)
		return err_set(err, E2BIG, "the object is larger than %u MiB", CONVERT_MAX >> 20);
	r = json_parse_object(text, len, "object", &vm, err);
	if (r < 0)
		return r;
	brand = json_get_str(vm, "brand", "");
	if (!str_eq(brand, "kvm") && !str_eq(brand, "bhyve"))
		return err_set(err, EINVAL,
			       "brand: '%.40s' is no virtual machine (want kvm or bhyve; zones "
			       "need the illumos kernel)",
			       brand);
	if (str_eq(brand, "bhyve"))
		problems_add(notes, PROBLEM_WARNING, "brand", NULL,
			     "of bhyve: give bootrom an OVMF image where the guest boots by UEFI");
	filter(vm, &vm_props, "", notes);
	elements(vm, bridges, notes);
	*ret = steal_ptr(vm);
	return 0;
}
