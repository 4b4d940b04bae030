/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every walker of the property tables needs: finding rows, names of enums, members as text
 * and as JSON, defaults, copies.
 */
#include "model/props.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/rows.h"

#define NAMES_MAX 512 /* names of one table, aliases included */

const char *const disk_media_names[] = {[MEDIA_DISK] = "disk", [MEDIA_CDROM] = "cdrom"};
const char *const disk_model_names[] = {
	[DISK_VIRTIO] = "virtio",
	[DISK_SCSI] = "scsi",
	[DISK_IDE] = "ide",
	[DISK_NVME] = "nvme",
};
const char *const disk_error_names[] = {
	[ERROR_STOP] = "stop",
	[ERROR_ENOSPC] = "enospc",
	[ERROR_REPORT] = "report",
	[ERROR_IGNORE] = "ignore",
};
const char *const disk_preallocation_names[] = {
	[PREALLOCATION_OFF] = "off",
	[PREALLOCATION_METADATA] = "metadata",
	[PREALLOCATION_FALLOC] = "falloc",
	[PREALLOCATION_FULL] = "full",
};

const char *const disk_aio_names[] = {
	[AIO_AUTO] = "auto",
	[AIO_THREADS] = "threads",
	[AIO_NATIVE] = "native",
	[AIO_IO_URING] = "io_uring",
};
const char *const disk_cache_names[] = {
	[CACHE_WRITEBACK] = "writeback",
	[CACHE_NONE] = "none",
	[CACHE_WRITETHROUGH] = "writethrough",
	[CACHE_DIRECTSYNC] = "directsync",
	[CACHE_UNSAFE] = "unsafe",
};
const char *const disk_format_names[] = {
	[FORMAT_AUTO] = "auto",
	[FORMAT_RAW] = "raw",
	[FORMAT_QCOW2] = "qcow2",
};
const char *const nic_model_names[] = {
	[NIC_VIRTIO] = "virtio",
	[NIC_E1000] = "e1000",
	[NIC_RTL8139] = "rtl8139",
};
const char *const vga_model_names[] = {
	[VGA_STD] = "std", [VGA_CIRRUS] = "cirrus", [VGA_VMWARE] = "vmware",
	[VGA_QXL] = "qxl", [VGA_XENFB] = "xenfb",   [VGA_NONE] = "none",
};
const char *const vm_accel_names[] = {
	[ACCEL_AUTO] = "auto",
	[ACCEL_KVM] = "kvm",
	[ACCEL_TCG] = "tcg",
};
const char *const on_failure_names[] = {
	[ON_FAILURE_RESTART] = "restart",
	[ON_FAILURE_FAIL] = "fail",
};
const char *const on_reboot_names[] = {
	[ON_REBOOT_RESET] = "reset",
	[ON_REBOOT_RESTART] = "restart",
};
const char *const vm_hostbridge_names[] = {
	[HOSTBRIDGE_Q35] = "q35",
	[HOSTBRIDGE_AMD] = "amd",
};
const char *const disk_compression_names[] = {
	[COMPRESSION_OFF] = "off",       [COMPRESSION_ON] = "on",
	[COMPRESSION_GZIP] = "gzip",     [COMPRESSION_GZIP_1] = "gzip-1",
	[COMPRESSION_GZIP_2] = "gzip-2", [COMPRESSION_GZIP_3] = "gzip-3",
	[COMPRESSION_GZIP_4] = "gzip-4", [COMPRESSION_GZIP_5] = "gzip-5",
	[COMPRESSION_GZIP_6] = "gzip-6", [COMPRESSION_GZIP_7] = "gzip-7",
	[COMPRESSION_GZIP_8] = "gzip-8", [COMPRESSION_GZIP_9] = "gzip-9",
	[COMPRESSION_LZ4] = "lz4",       [COMPRESSION_LZJB] = "lzjb",
	[COMPRESSION_ZLE] = "zle",
};

_Static_assert(ARRAY_SIZE(disk_media_names) == DISK_MEDIA_COUNT, "names");
_Static_assert(ARRAY_SIZE(disk_model_names) == DISK_MODEL_COUNT, "names");
_Static_assert(ARRAY_SIZE(disk_error_names) == DISK_ERROR_COUNT, "names");
_Static_assert(ARRAY_SIZE(disk_preallocation_names) == DISK_PREALLOCATION_COUNT, "names");
_Static_assert(ARRAY_SIZE(disk_aio_names) == DISK_AIO_COUNT, "names");
_Static_assert(ARRAY_SIZE(disk_cache_names) == DISK_CACHE_COUNT, "names");
_Static_assert(ARRAY_SIZE(disk_format_names) == DISK_FORMAT_COUNT, "names");
_Static_assert(ARRAY_SIZE(nic_model_names) == NIC_MODEL_COUNT, "names");
_Static_assert(ARRAY_SIZE(vga_model_names) == VGA_MODEL_COUNT, "names");
_Static_assert(ARRAY_SIZE(vm_accel_names) == VM_ACCEL_COUNT, "names");
_Static_assert(ARRAY_SIZE(on_failure_names) == ON_FAILURE_COUNT, "names");
_Static_assert(ARRAY_SIZE(on_reboot_names) == ON_REBOOT_COUNT, "names");
_Static_assert(ARRAY_SIZE(vm_hostbridge_names) == VM_HOSTBRIDGE_COUNT, "names");
_Static_assert(ARRAY_SIZE(disk_compression_names) == DISK_COMPRESSION_COUNT, "names");
_Static_assert(sizeof(enum disk_model) == sizeof(int), "enums are read as int");

const char *enum_name(const char *const *names, size_t count, int value)
{
	return value >= 0 && (size_t)value < count ? names[value] : NULL;
}

int enum_value(const char *const *names, size_t count, const char *name)
{
	for (size_t i = 0; name && i < count; i++) {
		if (names[i] && strcmp(names[i], name) == 0)
			return (int)i;
	}
	return -EINVAL;
}

const struct prop *prop_find(const struct prop_table *t, const char *name, bool ucl)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct prop *row = &t->rows[i];

		if (strcmp(row->name, name) == 0)
			return row;
		if (ucl && (str_eq(row->ucl, name) || str_eq(row->ucl2, name)))
			return row;
	}
	return NULL;
}

const char *prop_nearest(const struct prop_table *t, const char *name, bool ucl)
{
	const char *words[NAMES_MAX];
	size_t n = 0;

	for (size_t i = 0; i < t->count && n + 3 <= NAMES_MAX; i++) {
		const struct prop *row = &t->rows[i];

		if (!(row->set & (ON_CREATE | ON_UPDATE | BY_HAND)))
			continue;
		words[n++] = row->name;
		if (ucl && row->ucl)
			words[n++] = row->ucl;
		if (ucl && row->ucl2)
			words[n++] = row->ucl2;
	}
	return str_nearest(name, words, n);
}

void given_set(struct prop_set *set, size_t bit, bool on)
{
	uint64_t mask = 1ull << (bit % 64);

	if (on)
		set->bits[bit / 64] |= mask;
	else
		set->bits[bit / 64] &= ~mask;
}

bool given_get(const struct prop_set *set, size_t bit)
{
	return set->bits[bit / 64] >> (bit % 64) & 1;
}

bool prop_given(const struct prop_table *t, const struct prop_set *set, const struct prop *row)
{
	return given_get(set, row_index(t, row));
}

const struct prop *prop_at(const struct prop_table *t, size_t at)
{
	for (size_t i = 0; i < t->count; i++) {
		if (t->rows[i].at == at && t->rows[i].type < PROP_DISKS)
			return &t->rows[i];
	}
	return NULL;
}

bool prop_at_given(const struct prop_table *t, const void *element, size_t at)
{
	const struct prop *row = prop_at(t, at);

	return row && prop_given(t, elem_given(t, element), row);
}

struct prop_set *elem_given(const struct prop_table *t, const void *element)
{
	return (struct prop_set *)(void *)((char *)element + t->given_at);
}

static struct ucl_names *spelled(const struct prop_table *t, const void *element)
{
	return (struct ucl_names *)(void *)((char *)element + t->spelled_at);
}

const char *elem_spelling(const struct prop_table *t, const void *element, const struct prop *row)
{
	size_t bit = row_index(t, row);

	if (given_get(&spelled(t, element)->ucl, bit))
		return row->ucl;
	return given_get(&spelled(t, element)->ucl2, bit) ? row->ucl2 : row->name;
}

void elem_spelled(const struct prop_table *t, void *element, const struct prop *row,
		  const char *name)
{
	size_t bit = row_index(t, row);

	given_set(&spelled(t, element)->ucl, bit, str_eq(row->ucl, name));
	given_set(&spelled(t, element)->ucl2, bit, str_eq(row->ucl2, name));
}

bool prop_same(const struct prop *row, const void *a, const void *b)
{
	json_t *x = prop_json(row, a), *y = prop_json(row, b);
	bool same = x && y ? json_equal(x, y) : x == y;

	json_decref(x);
	json_decref(y);
	return same;
}

void prop_reset(const struct prop *row, void *element)
{
	void *at = row_at(row, element);

	switch (row->type) {
	case PROP_STR:
		replace_str(at, xstrdup(row->def_str));
		break;
	case PROP_BOOL:
		*(bool *)at = row->def != 0;
		break;
	case PROP_U32:
		*(uint32_t *)at = (uint32_t)row->def;
		break;
	case PROP_I32:
		*(int32_t *)at = (int32_t)row->def;
		break;
	case PROP_U64:
		*(uint64_t *)at = (uint64_t)row->def;
		break;
	case PROP_MS:
		*(uint64_t *)at = (uint64_t)row->def * 1000;
		break;
	case PROP_ENUM:
		*(int *)at = (int)row->def;
		break;
	case PROP_LIST:
		str_list_done(at);
		break;
	case PROP_MAP:
		json_decref(*(json_t **)at);
		*(json_t **)at = NULL;
		break;
	case PROP_DISKS:
	case PROP_NICS:
	case PROP_CONSOLES:
	case PROP_RUNTIME:
		break;
	}
}

void prop_defaults(const struct prop_table *t, void *element)
{
	for (size_t i = 0; i < t->count; i++)
		prop_reset(&t->rows[i], element);
}

void props_done(const struct prop_table *t, void *element)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct prop *row = &t->rows[i];

		if (row->type == PROP_STR)
			replace_str(row_at(row, element), NULL);
		else if (row->type == PROP_LIST || row->type == PROP_MAP)
			prop_reset(row, element);
	}
}

void props_copy(const struct prop_table *t, void *dst, const void *src)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct prop *row = &t->rows[i];
		void *to = row_at(row, dst), *from = row_at(row, src);

		if (row->type == PROP_STR)
			*(char **)to = xstrdup(*(char **)from);
		else if (row->type == PROP_LIST)
			str_list_copy(to, from);
		else if (row->type == PROP_MAP)
			*(json_t **)to = json_deep_copy(*(json_t **)from);
	}
}

bool prop_is_default(const struct prop *row, const void *element)
{
	const void *at = row_at(row, element);

	switch (row->type) {
	case PROP_STR:
		return !*(char *const *)at || str_eq(*(char *const *)at, row->def_str);
	case PROP_BOOL:
		return *(const bool *)at == (row->def != 0);
	case PROP_U32:
		return *(const uint32_t *)at == (uint32_t)row->def;
	case PROP_I32:
		return *(const int32_t *)at == (int32_t)row->def;
	case PROP_U64:
		return *(const uint64_t *)at == (uint64_t)row->def;
	case PROP_MS:
		return *(const uint64_t *)at == (uint64_t)row->def * 1000;
	case PROP_ENUM:
		return *(const int *)at == (int)row->def;
	case PROP_LIST:
		return ((const struct str_list *)at)->count == 0;
	case PROP_MAP:
		return json_object_size(*(json_t *const *)at) == 0;
	case PROP_DISKS:
	case PROP_NICS:
	case PROP_CONSOLES:
	case PROP_RUNTIME:
		break;
	}
	return true;
}

static json_t *list_json(const struct str_list *list)
{
	json_t *j = json_array();

	for (size_t i = 0; i < list->count; i++)
		(void)json_array_append_new(j, json_string(list->items[i]));
	return j;
}

static json_t *seconds_json(uint64_t ms)
{
	if (ms % 1000 == 0)
		return json_integer((json_int_t)(ms / 1000));
	return json_real((double)ms / 1000);
}

json_t *prop_json(const struct prop *row, const void *element)
{
	const void *at = row_at(row, element);

	switch (row->type) {
	case PROP_STR:
		return *(char *const *)at ? json_string(*(char *const *)at) : NULL;
	case PROP_BOOL:
		return json_boolean(*(const bool *)at);
	case PROP_U32:
		return json_integer(*(const uint32_t *)at);
	case PROP_I32:
		return json_integer(*(const int32_t *)at);
	case PROP_U64:
		return json_integer((json_int_t) * (const uint64_t *)at);
	case PROP_MS:
		return seconds_json(*(const uint64_t *)at);
	case PROP_ENUM:
		return json_string(enum_name(row->names, row->nnames, *(const int *)at));
	case PROP_LIST:
		return list_json(at);
	case PROP_MAP:
		return *(json_t *const *)at ? json_deep_copy(*(json_t *const *)at) : json_object();
	case PROP_DISKS:
	case PROP_NICS:
	case PROP_CONSOLES:
	case PROP_RUNTIME:
		break;
	}
	return NULL;
}

static char *list_text(const struct str_list *list)
{
	struct strbuf sb = {0};

	for (size_t i = 0; i < list->count; i++) {
		if (i)
			strbuf_putc(&sb, ',');
		strbuf_puts(&sb, list->items[i]);
	}
	return strbuf_steal(&sb);
}

char *prop_text(const struct prop *row, const void *element)
{
	json_t *j;
	char *text;

	if (row->type >= PROP_DISKS)
		return xstrdup("");
	if (row->type == PROP_LIST)
		return list_text(row_at(row, element));
	j = prop_json(row, element);
	if (!j)
		return xstrdup("");
	text = json_is_string(j) ? xstrdup(json_string_value(j)) : json_text(j);
	json_decref(j);
	return text;
}
