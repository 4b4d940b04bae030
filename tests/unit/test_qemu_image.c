/* SPDX-License-Identifier: Apache-2.0 */
/* Image headers: made by hand here, byte by byte, and what must be refused of them. */
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/argv.h"
#include "qemu/image.h"

static char dir[64], path[96];

static int setup(void **state)
{
	(void)snprintf(dir, sizeof(dir), "/tmp/test-image-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/disk", dir);
	return 0;
}

static int teardown(void **state)
{
	return dir_remove_tree(dir, NULL);
}

static void put32(uint8_t *h, size_t at, uint32_t v)
{
	v = htobe32(v);
	memcpy(h + at, &v, sizeof(v));
}

static void put64(uint8_t *h, size_t at, uint64_t v)
{
	v = htobe64(v);
	memcpy(h + at, &v, sizeof(v));
}

/* A good version 3 header of 64 KiB clusters with a backing name at 200. */
static void good(uint8_t h[512])
{
	memset(h, 0, 512);
	memcpy(h, "QFI\xfb", 4);
	put32(h, 4, 3);
	put64(h, 8, 200);
	put32(h, 16, 9);
	put32(h, 20, 16);
	put64(h, 24, 20ull << 30);
	put32(h, 100, 104);
	memcpy(h + 200, "/base.img", 9);
}

static int probe(const uint8_t *h, size_t len, struct image_info *ret, struct err *err)
{
	assert_int_equal(file_write(path, h, len, 0600, FILE_NO_SYNC, NULL), 0);
	return image_probe(path, ret, err);
}

static void qcow2_is_read(void **state)
{
	struct image_info info;
	uint8_t h[512];

	good(h);
	assert_int_equal(probe(h, sizeof(h), &info, NULL), 0);
	assert_int_equal(info.format, IMAGE_QCOW2);
	assert_int_equal(info.virtual_size, 20ull << 30);
	assert_true(info.allocated_size > 0 && info.allocated_size <= 65536);
	assert_true(info.has_backing && !info.has_data_file && !info.block_device);
	assert_string_equal(info.backing, "/base.img");
	put64(h, 72, 4);
	assert_int_equal(probe(h, sizeof(h), &info, NULL), 0);
	assert_true(info.has_data_file);
	put32(h, 4, 2);
	put64(h, 8, 0);
	assert_int_equal(probe(h, 72, &info, NULL), 0);
	assert_int_equal(info.format, IMAGE_QCOW2);
	assert_true(!info.has_backing && !info.has_data_file);
}

struct wrong {
	size_t at, size;
	uint64_t value;
	const char *text;
};

static void damaged_headers_are_refused(void **state)
{
	static const struct wrong wrong[] = {
		{4, 4, 4, "version 4"},       {4, 4, 0, "version 0"},
		{20, 4, 8, "cluster size"},   {20, 4, 22, "cluster size"},
		{20, 4, ~0u, "cluster size"}, {24, 8, ~0ull, "size"},
		{16, 4, 0, "backing name"},   {16, 4, 1024, "1023"},
		{16, 4, 700, "cut off"},      {8, 8, 65536, "outside"},
		{8, 8, ~0ull, "outside"},     {8, 8, 65530, "outside"},
		{100, 4, 103, "length"},      {100, 4, 65537, "length"},
		{200, 4, 0, "NUL"},
	};
	struct image_info info;
	struct err err;
	uint8_t h[512];

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		good(h);
		if (wrong[i].size == 4)
			put32(h, wrong[i].at, (uint32_t)wrong[i].value);
		else
			put64(h, wrong[i].at, wrong[i].value);
		assert_int_equal(probe(h, sizeof(h), &info, &err), -EINVAL);
		assert_non_null(strstr(err.msg, wrong[i].text));
		assert_non_null(strstr(err.msg, path));
	}
}

static void every_cut_is_survived(void **state)
{
	struct image_info info;
	uint8_t h[512];

	good(h);
	for (size_t len = 0; len < 209; len++) {
		int r = probe(h, len, &info, NULL);

		assert_int_equal(r, len < 8 ? 0 : -EINVAL);
		if (r == 0)
			assert_int_equal(info.format, IMAGE_RAW);
	}
}

static void the_rest_is_raw_or_other(void **state)
{
	uint8_t h[512] = {0};
	struct image_info info;

	assert_int_equal(probe(h, sizeof(h), &info, NULL), 0);
	assert_int_equal(info.format, IMAGE_RAW);
	assert_int_equal(info.virtual_size, 512);
	memcpy(h, "KDMV", 4);
	assert_int_equal(probe(h, sizeof(h), &info, NULL), 0);
	assert_int_equal(info.format, IMAGE_OTHER);
	memset(h, 0, sizeof(h));
	memcpy(h + 0x40, "\x7f\x10\xda\xbe", 4);
	assert_int_equal(probe(h, sizeof(h), &info, NULL), 0);
	assert_int_equal(info.format, IMAGE_OTHER);
}

static void what_is_no_image_is_refused(void **state)
{
	struct image_info info;
	struct err err;

	assert_int_equal(image_probe(path, &info, &err), -ENOENT);
	assert_int_equal(image_probe(dir, &info, &err), -EISDIR);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(image_probe(path, &info, &err), -EINVAL);
	assert_int_equal(image_probe("/dev/null", &info, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "/dev/null"));
}

static void protocols_are_recognised(void **state)
{
	assert_string_equal(image_protocol("nbd:unix:/x"), "nbd");
	assert_string_equal(image_protocol("nbd+unix:///x"), "nbd");
	assert_string_equal(image_protocol("rbd:pool/x"), "rbd");
	assert_string_equal(image_protocol("json:{}"), "json");
	assert_null(image_protocol("/srv/nbd:x"));
	assert_null(image_protocol("nbd"));
	assert_null(image_protocol("nbd+x"));
	assert_null(image_protocol("nbd+/x:"));
	assert_null(image_protocol(""));
	assert_null(image_protocol("a:b"));
}

static void expect_create(enum disk_format format, uint64_t mib, const char *base, const char *want)
{
	struct disk disk = {.path = path, .format = format, .size_mib = mib};
	struct argv argv = {0};
	AUTO_STRBUF struct strbuf sb = {0};

	image_create_argv(&disk, base, &argv);
	for (size_t i = 0; i < argv.count; i++)
		strbuf_printf(&sb, "%s%s", i ? " " : "",
			      str_eq(argv.items[i], path) ? "DISK" : argv.items[i]);
	assert_null(argv.items[argv.count]);
	assert_string_equal(sb.data, want);
	argv_done(&argv);
}

static void create_vectors(void **state)
{
	uint8_t h[512];
	struct image_info info;
	char base[96];
	AUTO_FREE char *want = NULL;

	good(h);
	assert_int_equal(probe(h, sizeof(h), &info, NULL), 0);
	(void)snprintf(base, sizeof(base), "%s", path);
	(void)snprintf(path, sizeof(path), "%s/new disk", dir);
	expect_create(FORMAT_RAW, 100, NULL, "qemu-img create -q -f raw -- DISK 100M");
	expect_create(FORMAT_AUTO, 100, NULL, "qemu-img create -q -f qcow2 -- DISK 100M");
	expect_create(FORMAT_QCOW2, 0, "/gone",
		      "qemu-img create -q -f qcow2 -b /gone -F raw -- DISK");
	want = xasprintf("qemu-img create -q -f qcow2 -b %s -F qcow2 -- DISK 9M", base);
	expect_create(FORMAT_QCOW2, 9, base, want);
	replace_str(&want, xasprintf("qemu-img convert -q -f qcow2 -O raw -- %s DISK", base));
	expect_create(FORMAT_RAW, 9, base, want);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(qcow2_is_read),
		T(damaged_headers_are_refused),
		T(every_cut_is_survived),
		T(the_rest_is_raw_or_other),
		T(what_is_no_image_is_refused),
		T(protocols_are_recognised),
		T(create_vectors),
	};

	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
