/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout: 16 empty sectors, the two descriptors and their end, two path tables for each, the
 * two root directories, then the files.
 */
#include "qemu/iso.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define SECTOR     2048u
#define NAME_LEN   8 /* of a plain ISO 9660 name */
#define JOLIET_LEN 60

enum sector {
	AT_PRIMARY = 16,
	AT_JOLIET,
	AT_END,
	AT_TABLE_L,
	AT_TABLE_M,
	AT_JOLIET_TABLE_L,
	AT_JOLIET_TABLE_M,
	AT_ROOT,
	AT_JOLIET_ROOT,
	AT_FILES,
};

struct iso {
	char *data;
	size_t count;
	const struct iso_file *files;
	uint32_t sectors;
};

static uint8_t *sector(const struct iso *iso, enum sector at)
{
	return (uint8_t *)iso->data + (size_t)at * SECTOR;
}

/* --- numbers: little-endian, big-endian, or both, one behind the other --- */

static void le(uint8_t *at, uint32_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static void be(uint8_t *at, uint32_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static void both(uint8_t *at, uint32_t value, int bytes)
{
	le(at, value, bytes);
	be(at + bytes, value, bytes);
}

/* --- text: padded with blanks, in two bytes per character for Joliet --- */

static void text(uint8_t *at, size_t len, const char *value, bool joliet)
{
	size_t width = joliet ? 2 : 1, have = strlen(value);

	for (size_t i = 0; i < len / width; i++)
		be(at + i * width, i < have ? (uint8_t)value[i] : ' ', (int)width);
}

/* --- directory records --- */

struct record {
	uint32_t extent, size;
	bool folder;
	uint8_t name[128];
	uint8_t name_len;
};

/* Writes the record without what Rock Ridge adds; returns its length. */
static size_t put_record(uint8_t *at, const struct record *r)
{
	size_t len = 33u + r->name_len + (r->name_len % 2 == 0);
	static const uint8_t when[7] = {100, 1, 1}; /* 2000-01-01 */

	at[0] = (uint8_t)len;
	both(at + 2, r->extent, 4);
	both(at + 10, r->size, 4);
	memcpy(at + 18, when, sizeof(when));
	at[25] = r->folder ? 2 : 0;
	both(at + 28, 1, 2);
	at[32] = r->name_len;
	memcpy(at + 33, r->name, r->name_len);
	return len;
}

static struct record root_record(bool joliet, uint8_t name)
{
	return (struct record){.extent = joliet ? AT_JOLIET_ROOT : AT_ROOT,
			       .size = SECTOR,
			       .folder = true,
			       .name = {name},
			       .name_len = 1};
}

/* --- Rock Ridge --- */

static size_t put_entry(uint8_t *at, const char *kind, const void *data, size_t len)
{
	memcpy(at, kind, 2);
	at[2] = (uint8_t)(4 + len);
	at[3] = 1;
	memcpy(at + 4, data, len);
	return 4 + len;
}

static size_t put_mode(uint8_t *at, uint32_t mode)
{
	uint8_t data[32] = {0};

	both(data, mode, 4);
	both(data + 8, 1, 4); /* links; user and group are 0 */
	return put_entry(at, "PX", data, sizeof(data));
}

static size_t put_name(uint8_t *at, const char *name)
{
	uint8_t data[1 + 64] = {0};
	size_t len = strlen(name) < 64 ? strlen(name) : 64;

	memcpy(data + 1, name, len);
	return put_entry(at, "NM", data, 1 + len);
}

/* A record grows by what was put behind it, to an even length. */
static size_t grow(uint8_t *at, size_t len)
{
	len += len % 2;
	at[0] = (uint8_t)len;
	return len;
}

static size_t put_folder(uint8_t *at, bool joliet, uint8_t name)
{
	static const uint8_t sp[] = {0xbe, 0xef, 0}, er[] = "\12\0\0\1RRIP_1991A";
	const struct record r = root_record(joliet, name);
	size_t len = put_record(at, &r);

	if (joliet)
		return len;
	if (name == 0) {
		len += put_entry(at + len, "SP", sp, sizeof(sp));
		len += put_entry(at + len, "ER", er, sizeof(er) - 1);
	}
	len += put_mode(at + len, 040555);
	return grow(at, len);
}

static uint8_t plain(uint8_t c)
{
	return isalnum(c) ? (uint8_t)toupper(c) : '_';
}

/* "user-data" as USER_DAT.;1, or in two bytes per character for Joliet. */
static void name_of(const char *name, bool joliet, struct record *r)
{
	const char *end = joliet ? ";1" : ".;1";
	size_t width = joliet ? 2 : 1, len = strnlen(name, joliet ? JOLIET_LEN : NAME_LEN);
	uint8_t *at = r->name;

	for (size_t i = 0; i < len; i++, at += width) {
		uint8_t c = (uint8_t)name[i];

		be(at, joliet ? c : plain(c), (int)width);
	}
	for (; *end; end++, at += width)
		be(at, (uint8_t)*end, (int)width);
	r->name_len = (uint8_t)(at - r->name);
}

static void put_root(const struct iso *iso, bool joliet)
{
	uint8_t *at = sector(iso, joliet ? AT_JOLIET_ROOT : AT_ROOT);
	uint32_t extent = AT_FILES;

	at += put_folder(at, joliet, 0);
	at += put_folder(at, joliet, 1);
	for (size_t i = 0; i < iso->count; i++) {
		const struct iso_file *f = &iso->files[i];
		struct record r = {.extent = extent, .size = (uint32_t)f->len};
		size_t len;

		name_of(f->name, joliet, &r);
		len = put_record(at, &r);
		if (!joliet) {
			len += put_mode(at + len, 0100444);
			len += put_name(at + len, f->name);
		}
		at += grow(at, len);
		extent += (uint32_t)((f->len + SECTOR - 1) / SECTOR);
	}
}

/* --- the volume --- */

static void put_table(uint8_t *at, uint32_t root, bool big)
{
	at[0] = 1;
	(big ? be : le)(at + 2, root, 4);
	(big ? be : le)(at + 6, 1, 2);
}

static void put_volume(const struct iso *iso, const char *label, bool joliet)
{
	static const struct {
		size_t at, len;
	} texts[] = {{8, 32},    {190, 128}, {318, 128}, {446, 128},
		     {574, 128}, {702, 37},  {739, 37},  {776, 37}};
	uint8_t *at = sector(iso, joliet ? AT_JOLIET : AT_PRIMARY);
	const struct record root = root_record(joliet, 0);
	enum sector table = joliet ? AT_JOLIET_TABLE_L : AT_TABLE_L;

	at[0] = joliet ? 2 : 1;
	memcpy(at + 1, "CD001\1", 6);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		text(at + texts[i].at, texts[i].len, "", joliet);
	text(at + 40, 32, label, joliet);
	both(at + 80, iso->sectors, 4);
	if (joliet)
		memcpy(at + 88, "%/E", 3);
	both(at + 120, 1, 2);
	both(at + 124, 1, 2);
	both(at + 128, SECTOR, 2);
	both(at + 132, 10, 4); /* bytes of a path table */
	le(at + 140, table, 4);
	be(at + 148, table + 1, 4);
	(void)put_record(at + 156, &root);
	for (size_t i = 0; i < 4; i++)
		memset(at + 813 + 17 * i, '0', 16);
	at[881] = 1;
	put_table(sector(iso, table), root.extent, false);
	put_table(sector(iso, table + 1), root.extent, true);
}

int iso_build(const char *label, const struct iso_file *files, size_t count, char **ret,
	      size_t *ret_len, struct err *err)
{
	struct iso iso = {.files = files, .count = count, .sectors = AT_FILES};
	char *at;

	if (count > ISO_FILES_MAX)
		return err_set(err, E2BIG, "more than %d files", ISO_FILES_MAX);
	for (size_t i = 0; i < count; i++) {
		if (files[i].len > ISO_FILE_MAX)
			return err_set(err, E2BIG, "'%s' is over %u bytes", files[i].name,
				       ISO_FILE_MAX);
		iso.sectors += (uint32_t)((files[i].len + SECTOR - 1) / SECTOR);
	}
	iso.data = xcalloc(iso.sectors, SECTOR);
	put_volume(&iso, label, false);
	put_volume(&iso, label, true);
	memcpy(sector(&iso, AT_END), "\377CD001\1", 7);
	put_root(&iso, false);
	put_root(&iso, true);
	at = (char *)sector(&iso, AT_FILES);
	for (size_t i = 0; i < count; i++) {
		memcpy(at, files[i].data, files[i].len);
		at += (files[i].len + SECTOR - 1) / SECTOR * SECTOR;
	}
	*ret = iso.data;
	*ret_len = (size_t)iso.sectors * SECTOR;
	return 0;
}
