/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members of "vmadm info"; see info.h. QEMU dropped or renamed some of the members people
 * know: `device` of block devices is empty with -blockdev and comes from `qdev`; the highest
 * offset written is only told by the file node below; query-cpus is query-cpus-fast. What is
 * new in the answers stays, behind what is old.
 */
#include "vmadmd/info.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"

/* "/machine/peripheral/disk0/virtio-backend" and "disk0" both become "disk0". */
static json_t *device_of(const json_t *device)
{
	static const char prefix[] = "/machine/peripheral/";
	const char *name = json_get_str(device, "device", "");
	const char *qdev = json_get_str(device, "qdev", "");

	if (!*name && str_starts(qdev, prefix))
		name = qdev + strlen(prefix);
	else if (!*name)
		name = qdev;
	if (!*name)
		name = json_get_str(device, "node-name", "");
	return json_stringn(name, strcspn(name, "/"));
}

/* The members of from that to does not have. */
static void add_rest(json_t *to, const json_t *from)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)from, key, value) {
		if (!json_object_get(to, key))
			json_object_set(to, key, value);
	}
}

static json_t *map_each(const json_t *array, json_t *(*one)(const json_t *element))
{
	json_t *out = json_array();
	json_t *element;
	size_t i;

	json_array_foreach (array, i, element)
		json_array_append_new(out, one(element));
	return out;
}

static json_t *block_one(const json_t *device)
{
	json_t *out = json_object();

	json_object_set_new(out, "device", device_of(device));
	add_rest(out, device);
	return out;
}

static json_t *map_block(const json_t *value)
{
	return json_is_array(value) ? map_each(value, block_one) : NULL;
}

static json_t *blockstats_one(const json_t *device)
{
	const json_t *stats = json_object_get(device, "stats");
	const json_t *file = json_object_get(json_object_get(device, "parent"), "stats");
	const json_t *offset = json_object_get(file, "wr_highest_offset");
	json_t *out = json_object();

	json_object_set_new(out, "device", device_of(device));
	if (json_is_object(stats)) {
		json_t *copy = json_copy((json_t *)(uintptr_t)stats);

		if (json_is_integer(offset) && json_get_int(stats, "wr_highest_offset", 0) == 0)
			json_object_set(copy, "wr_highest_offset", (json_t *)(uintptr_t)offset);
		json_object_set_new(out, "stats", copy);
	}
	add_rest(out, device);
	return out;
}

static json_t *map_blockstats(const json_t *value)
{
	return json_is_array(value) ? map_each(value, blockstats_one) : NULL;
}

static json_t *cpu_one(const json_t *cpu)
{
	static const char *const renamed[] = {"cpu-index", "thread-id"};
	json_t *out = json_object();

	json_put_int(out, "CPU", json_get_int(cpu, "cpu-index", 0));
	json_put_bool(out, "current", json_get_int(cpu, "cpu-index", 0) == 0);
	json_put_int(out, "thread_id", json_get_int(cpu, "thread-id", 0));
	add_rest(out, cpu);
	for (size_t i = 0; i < ARRAY_SIZE(renamed); i++)
		json_object_del(out, renamed[i]);
	return out;
}

static json_t *map_cpus(const json_t *value)
{
	return json_is_array(value) ? map_each(value, cpu_one) : NULL;
}

/* spice_port > 0 is refused, so there never is a listener: {} as the original says it. */
static json_t *map_spice(const json_t *value)
{
	json_t *out = json_object();

	if (json_get_bool(value, "enabled", false))
		add_rest(out, value);
	return out;
}

const struct info_type info_types[] = {
	/* clang-format off */
	{ "status",	"query-status",		NULL },
	{ "version",	"query-version",	NULL },
	{ "chardev",	"query-chardev",	NULL },
	{ "block",	"query-block",		map_block },
	{ "blockstats",	"query-blockstats",	map_blockstats },
	{ "cpus",	"query-cpus-fast",	map_cpus },
	{ "pci",	"query-pci",		NULL },
	{ "kvm",	"query-kvm",		NULL },
	{ "vnc",	NULL,			NULL },
	{ "spice",	"query-spice",		map_spice },
	/* clang-format on */
};

_Static_assert(ARRAY_SIZE(info_types) == INFO_TYPE_COUNT, "info_types and its count differ");

#define ALL ((1u << INFO_TYPE_COUNT) - 1)

static int type_bit(const char *name, size_t len, unsigned *ret_bit, struct err *err)
{
	if (len == 3 && memcmp(name, "all", 3) == 0) {
		*ret_bit = ALL;
		return 0;
	}
	for (size_t i = 0; i < INFO_TYPE_COUNT; i++) {
		if (strlen(info_types[i].name) == len &&
		    memcmp(info_types[i].name, name, len) == 0) {
			*ret_bit = 1u << i;
			return 0;
		}
	}
	return err_set(err, EINVAL,
		       "unknown info type %.*s (want all, status, version, chardev, block, "
		       "blockstats, cpus, pci, kvm, vnc, spice)",
		       (int)(len > 100 ? 100 : len), name);
}

int info_parse(const char *list, unsigned *ret_mask, struct err *err)
{
	unsigned mask = 0;

	for (const char *at = list ? list : ""; *at;) {
		size_t len = strcspn(at, ", ");
		unsigned bit = 0;
		int r = len ? type_bit(at, len, &bit, err) : 0;

		if (r < 0)
			return r;
		mask |= bit;
		at += len;
		at += strspn(at, ", ");
	}
	*ret_mask = mask ? mask : ALL;
	return 0;
}

size_t info_row(const char *name)
{
	size_t i = 0;

	while (i + 1 < INFO_TYPE_COUNT && strcmp(info_types[i].name, name) != 0)
		i++;
	return i;
}

json_t *info_map(size_t type, const json_t *value)
{
	json_t *mapped;

	if (!value || json_is_null(value))
		return json_null();
	if (!info_types[type].map)
		return json_incref((json_t *)(uintptr_t)value);
	mapped = info_types[type].map(value);
	return mapped ? mapped : json_null();
}
