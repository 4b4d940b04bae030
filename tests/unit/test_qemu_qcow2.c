/* SPDX-License-Identifier: Apache-2.0 */
/* qcow2 images written from front to back, judged by qemu-img: sound, and of the right content. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/vm.h"
#include "qemu/image.h"
#include "qemu/qcow2.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static char dir[64], path[96], raw[96], source[96];

static int setup(void **state)
{
	(void)snprintf(dir, sizeof(dir), "/tmp/test-qcow2-XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/disk", dir);
	(void)snprintf(raw, sizeof(raw), "%s/raw", dir);
	(void)snprintf(source, sizeof(source), "%s/source", dir);
	return 0;
}

static int teardown(void **state)
{
	return dir_remove_tree(dir, NULL);
}

static void run(const char *const *argv)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		(void)execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int put(void *ctx, const void *data, size_t len, struct err *err)
{
	return fd_write_all(*(const int *)ctx, data, len);
}

static void write_image(const struct qcow2 *q)
{
	AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(qcow2_write(q, put, &fd, NULL), 0);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), qcow2_length(q));
	run((const char *const[]){"qemu-img", "check", "-q", "-f", "qcow2", path, NULL});
}

/* Byte of the source file at an offset. */
static uint8_t byte_at(uint64_t at)
{
	return (uint8_t)(at * 7 + at / 4096 + 1);
}

static void expect(uint64_t at, int value)
{
	AUTO_FD int fd = open(raw, O_RDONLY | O_CLOEXEC);
	uint8_t got;

	assert_int_equal(fd_read_full_at(fd, &got, 1, at), 1);
	assert_int_equal(got, value);
}

/* Pieces that share clusters, meet, cross tables of 512 MiB, and end at an odd place. */
static void content_is_where_it_belongs(void **state)
{
	const struct extent e[] = {
		{4096, 1000, 0, 0},          {8192, QCOW2_CLUSTER, 5000, 0},
		{10 * MIB, 2 * MIB, 100, 0}, {512 * MIB - 512, 1024, 7, 0},
		{3 * GIB + 512, 512, 9, 0},
	};
	AUTO_FD int in = open(source, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	const struct qcow2 q = {
		.size = 3 * GIB + 1024, .extents = e, .nextents = ARRAY_SIZE(e), .files = &in};
	AUTO_FREE uint8_t *data = xmalloc(3 * MIB);

	for (size_t i = 0; i < 3 * MIB; i++)
		data[i] = byte_at(i);
	assert_int_equal(fd_write_all(in, data, 3 * MIB), 0);
	write_image(&q);
	run((const char *const[]){"qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw,
				  NULL});
	for (size_t i = 0; i < ARRAY_SIZE(e); i++) {
		for (uint64_t k = 0; k < e[i].length; k += e[i].length / 8)
			expect(e[i].start + k, byte_at(e[i].offset + k));
		expect(e[i].start + e[i].length - 1, byte_at(e[i].offset + e[i].length - 1));
		expect(e[i].start - 1, 0);
	}
	expect(4096 + 1000, 0);
	expect(12 * MIB, 0);
	expect(3 * GIB + 1023, byte_at(9 + 511));
}

/* What qemu-img create would make: empty, and an overlay. */
static void disks_are_made(void **state)
{
	struct disk disk = {.path = path, .size_mib = 10240, .format = FORMAT_QCOW2};
	struct image_info info;
	struct err err = {0};

	assert_false(image_needs_tool(&disk));
	assert_int_equal(image_create(path, 10 * GIB, NULL, NULL), 0);
	run((const char *const[]){"qemu-img", "check", "-q", path, NULL});
	assert_int_equal(image_probe(path, &info, NULL), 0);
	assert_int_equal(info.virtual_size, 10 * GIB);
	assert_false(info.has_backing);
	assert_int_equal(image_create(path, MIB, NULL, &err), -EEXIST);
	assert_int_equal(rename(path, source), 0);
	assert_int_equal(image_create(path, 10 * GIB, source, NULL), 0);
	run((const char *const[]){"qemu-img", "check", "-q", path, NULL});
	run((const char *const[]){"qemu-io", "-c", "write -P 5 1M 64k", path, NULL});
	run((const char *const[]){"qemu-img", "check", "-q", path, NULL});
	assert_int_equal(image_probe(path, &info, NULL), 0);
	assert_string_equal(info.backing, source);
	disk.format = FORMAT_RAW;
	assert_true(image_needs_tool(&disk));
}

static void limits(void **state)
{
	struct qcow2 q = {.size = 1ull << 61};
	struct err err = {0};
	char name[1100];
	int fd = -1;

	assert_int_equal(qcow2_write(&q, put, &fd, &err), -E2BIG);
	memset(name, 'a', sizeof(name));
	name[0] = '/';
	name[sizeof(name) - 1] = '\0';
	q = (struct qcow2){.size = MIB, .backing = name, .backing_format = "raw"};
	assert_int_equal(qcow2_write(&q, put, &fd, &err), -E2BIG);
	q = (struct qcow2){.size = MIB};
	assert_int_equal(qcow2_write(&q, put, &fd, &err), -EBADF);
}

static void maps_are_read(void **state)
{
	static const struct {
		const char *line;
		int r;
	} lines[] = {
		{"[{ \"start\": 0, \"length\": 65536, \"depth\": 0, \"present\": false, \"zero\": "
		 "true, \"data\": false},",
		 0},
		{"{ \"start\": 65536, \"length\": 512, \"depth\": 2, \"zero\": false, \"data\": "
		 "true, \"offset\": 7},",
		 0},
		{"{ \"start\": 66048, \"length\": 512, \"depth\": 0, \"zero\": false, \"data\": "
		 "true}]",
		 -ENOTSUP},
		{"{ \"start\": 1, \"length\": 512, \"depth\": 0, \"data\": false}", -EBADMSG},
		{"qemu-img: Could not open", -EBADMSG},
		{"{ \"start\": 99999, \"length\": 9223372036854775807, \"depth\": 0}", -EBADMSG},
	};
	AUTO_EXTENTS struct extents x = {0};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		assert_int_equal(extents_add(&x, lines[i].line, NULL), lines[i].r);
	assert_int_equal(x.count, 1);
	assert_int_equal(x.items[0].start, 65536);
	assert_int_equal(x.items[0].offset, 7);
	assert_int_equal(x.deepest, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(content_is_where_it_belongs, setup, teardown),
		cmocka_unit_test_setup_teardown(disks_are_made, setup, teardown),
		cmocka_unit_test_setup_teardown(limits, setup, teardown),
		cmocka_unit_test(maps_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
