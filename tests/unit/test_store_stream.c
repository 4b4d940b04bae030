/* SPDX-License-Identifier: Apache-2.0 */
/* The stream: what is written comes back; any flip, cut, move or addition is found. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "store/stream.h"

#define BIG (STREAM_DATA_MAX + 1000)

static int memory_file(const void *data, size_t len)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, data, len), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static char *content(int fd, size_t *ret_len)
{
	off_t len = lseek(fd, 0, SEEK_END);
	char *data = xmalloc((size_t)len + 1);

	assert_int_equal(pread(fd, data, (size_t)len, 0), len);
	*ret_len = (size_t)len;
	return data;
}

/* Small: HEAD, MEMB, two DATA, DONE. */
static char *written(size_t *ret_len)
{
	AUTO_JSON json_t *head = json_pack("{s:s}", "kind", "test");
	AUTO_JSON json_t *member = json_pack("{s:s}", "name", "a");
	AUTO_JSON json_t *done = json_object();
	AUTO_STREAM struct stream s = {0};
	AUTO_FD int fd = memory_file("", 0);

	assert_int_equal(stream_begin(&s, fd, head, NULL), 0);
	assert_int_equal(stream_member(&s, member, NULL), 0);
	assert_int_equal(stream_data(&s, "hello", 5, NULL), 0);
	assert_int_equal(stream_data(&s, "world", 5, NULL), 0);
	assert_int_equal(stream_end(&s, done, NULL), 0);
	return content(fd, ret_len);
}

/* Read all: 0 with the data joined, or the error. */
static int read_all(const void *data, size_t len, struct strbuf *ret, struct err *err)
{
	AUTO_FD int fd = memory_file(data, len);
	AUTO_STREAM struct stream s = {0};
	AUTO_JSON json_t *head = NULL;
	struct stream_item item = {0};
	int r = stream_open(&s, fd, &head, err);

	while (r == 0 && item.type != STREAM_DONE) {
		r = stream_next(&s, &item, err);
		if (r == 0 && item.type == STREAM_DATA)
			strbuf_add(ret, item.data, item.len);
		json_decref(item.json);
		item.json = NULL;
	}
	return r;
}

static void test_round(void **state)
{
	AUTO_STRBUF struct strbuf got = {0};
	size_t len;
	AUTO_FREE char *data = written(&len);

	assert_int_equal(read_all(data, len, &got, NULL), 0);
	assert_int_equal(got.len, 10);
	assert_memory_equal(got.data, "helloworld", 10);
}

static void test_every_flip_and_cut_is_found(void **state)
{
	size_t len;
	AUTO_FREE char *data = written(&len);

	for (size_t i = 0; i < len; i++) {
		AUTO_STRBUF struct strbuf got = {0};
		struct err err = {0};

		data[i] ^= 1;
		assert_true(read_all(data, len, &got, &err) < 0);
		assert_true(err.msg[0] != '\0');
		data[i] ^= 1;
		assert_int_equal(read_all(data, i, &got, &err), -EBADMSG);
	}
}

static void test_additions_and_moves_are_found(void **state)
{
	AUTO_STRBUF struct strbuf got = {0};
	size_t len, record = 4 + 8 + 5 + STREAM_SUM;
	AUTO_FREE char *data = written(&len), *more = xmalloc(len + 1), *held = xmalloc(record);
	char *at;
	struct err err = {0};

	memcpy(more, data, len);
	more[len] = '\n';
	assert_int_equal(read_all(more, len + 1, &got, &err), -EBADMSG);
	at = memmem(data, len, "hello", 5);
	assert_non_null(at);
	at -= 12;
	memcpy(held, at, record);
	memmove(at, at + record, record);
	memcpy(at + record, held, record);
	assert_int_equal(read_all(data, len, &got, &err), -EBADMSG);
}

static void test_lengths_are_judged_first(void **state)
{
	AUTO_STRBUF struct strbuf got = {0};
	size_t len;
	AUTO_FREE char *data = written(&len);
	struct err err = {0};

	memset(data + 16 + 4, 0xff, 8); /* of HEAD */
	assert_int_equal(read_all(data, len, &got, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "too long"));
}

static void test_later_version(void **state)
{
	AUTO_STRBUF struct strbuf got = {0};
	size_t len;
	AUTO_FREE char *data = written(&len);

	data[14] = '2';
	assert_int_equal(read_all(data, len, &got, NULL), -ENOTSUP);
}

static void test_copied_in_and_taken_up(void **state)
{
	AUTO_JSON json_t *head = json_object(), *done = json_object();
	AUTO_FREE char *big = xcalloc(1, BIG), *data = NULL;
	AUTO_STRBUF struct strbuf got = {0};
	AUTO_STREAM struct stream s = {0};
	AUTO_FD int in = -1, fd = memory_file("", 0);
	uint64_t bytes = 0;
	size_t len;

	memset(big, 'x', BIG);
	in = memory_file(big, BIG);
	assert_int_equal(stream_begin(&s, fd, head, NULL), 0);
	assert_int_equal(stream_copy_in(&s, in, &bytes, NULL), 0);
	assert_int_equal(bytes, BIG);
	stream_done(&s);
	data = content(fd, &len);
	assert_int_equal(read_all(data, len, &got, NULL), -EBADMSG);
	assert_int_equal(stream_append(&s, fd, NULL), 0);
	assert_int_equal(stream_end(&s, done, NULL), 0);
	replace_str(&data, content(fd, &len));
	strbuf_done(&got);
	got = (struct strbuf){0};
	assert_int_equal(read_all(data, len, &got, NULL), 0);
	assert_int_equal(got.len, BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round),
		cmocka_unit_test(test_every_flip_and_cut_is_found),
		cmocka_unit_test(test_additions_and_moves_are_found),
		cmocka_unit_test(test_lengths_are_judged_first),
		cmocka_unit_test(test_later_version),
		cmocka_unit_test(test_copied_in_and_taken_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
