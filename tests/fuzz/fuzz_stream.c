/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of saved states and backups as the reader meets them. First byte 0: the rest as it is.
 * Else a whole stream is written of the rest, then the byte at the place the next two name is
 * changed, or (first byte even) all from there is cut off: such a stream is never read to its end.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "store/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PIECE_MAX 4096u

static void require(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "broken: %s\n", what);
	abort();
}

/* Read to the end; true when it is whole. */
static bool read_all(int fd)
{
	AUTO_STREAM struct stream s = {0};
	AUTO_JSON json_t *head = NULL;
	struct stream_item item = {0};
	struct err err = {0};
	int r;

	require(lseek(fd, 0, SEEK_SET) == 0, "lseek");
	r = stream_open(&s, fd, &head, &err);
	require(r == 0 || err.msg[0], "a refusal without a reason");
	while (r == 0) {
		item = (struct stream_item){0};
		r = stream_next(&s, &item, &err);
		require(r == 0 || err.msg[0], "a refusal without a reason");
		if (r == 0 && item.type != STREAM_DATA)
			json_decref(item.json);
		if (r == 0 && item.type == STREAM_DONE)
			return true;
	}
	return false;
}

static void write_whole(int fd, const uint8_t *data, size_t size)
{
	AUTO_STREAM struct stream s = {0};
	AUTO_JSON json_t *json = json_pack("{s:s}", "name", "x");
	int r = stream_begin(&s, fd, json, NULL);

	if (r == 0)
		r = stream_member(&s, json, NULL);
	for (size_t at = 0; r == 0 && at < size; at += PIECE_MAX)
		r = stream_data(&s, data + at, size - at < PIECE_MAX ? size - at : PIECE_MAX, NULL);
	if (r == 0)
		r = stream_end(&s, json, NULL);
	require(r == 0, "cannot write");
}

static void damage(int fd, bool cut, size_t at)
{
	off_t size = lseek(fd, 0, SEEK_END);
	uint8_t byte = 0;

	at %= (size_t)size;
	if (cut) {
		require(ftruncate(fd, (off_t)at) == 0, "ftruncate");
		return;
	}
	require(pread(fd, &byte, 1, (off_t)at) == 1, "pread");
	byte ^= 0x20;
	require(pwrite(fd, &byte, 1, (off_t)at) == 1, "pwrite");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd;

	if (size < 3)
		return 0;
	fd = memfd_create("stream", MFD_CLOEXEC);
	require(fd >= 0, "memfd_create");
	if (data[0] == 0) {
		require(write(fd, data + 1, size - 1) == (ssize_t)size - 1, "write");
		(void)read_all(fd);
	} else {
		write_whole(fd, data + 3, size - 3);
		require(read_all(fd), "a whole stream is refused");
		damage(fd, data[0] % 2 == 0, (size_t)data[1] << 8 | data[2]);
		require(!read_all(fd), "a damaged stream is taken");
	}
	(void)close(fd);
	return 0;
}
