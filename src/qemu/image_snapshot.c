/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot table of a qcow2 image, read without spawning anything. Every number in it is
 * somebody else's: offsets and lengths are bounded before they are used.
 * Source: QEMU's docs/interop/qcow2.txt, "Snapshots".
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "qemu/image.h"

#define HEADER_LEN    72
#define ENTRY_LEN     40
#define SNAPSHOTS_MAX 65536u
#define EXTRA_MAX     1024u
#define NAME_MAX_LEN  1024u

static uint32_t be32_at(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return be32toh(v);
}

static uint64_t be64_at(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return be64toh(v);
}

static uint16_t be16_at(const uint8_t *at)
{
	uint16_t v;

	memcpy(&v, at, sizeof(v));
	return be16toh(v);
}

static int damaged(const char *path, struct err *err)
{
	return err_set(err, EINVAL, "'%s' is a damaged qcow2 image: its snapshot table", path);
}

/* Is the entry at *at of this name? *at becomes the next one's place. */
static int entry_is(int fd, const char *path, uint64_t *at, const char *name, struct err *err)
{
	uint8_t head[ENTRY_LEN];
	char found[NAME_MAX_LEN];
	uint32_t extra, id_len, name_len;
	uint64_t end;

	if (pread(fd, head, sizeof(head), (off_t)*at) != ENTRY_LEN)
		return damaged(path, err);
	id_len = be16_at(head + 12);
	name_len = be16_at(head + 14);
	extra = be32_at(head + 36);
	if (extra > EXTRA_MAX || id_len > NAME_MAX_LEN || name_len > NAME_MAX_LEN)
		return damaged(path, err);
	end = *at + ENTRY_LEN + extra + id_len;
	if (pread(fd, found, name_len, (off_t)end) != (ssize_t)name_len)
		return damaged(path, err);
	*at = (end + name_len + 7) & ~7ull;
	return name_len == strlen(name) && memcmp(found, name, name_len) == 0;
}

int image_has_snapshot(const char *path, const char *name, struct err *err)
{
	uint8_t header[HEADER_LEN];
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t at;
	uint32_t count;
	int r = 0;

	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	if (pread(fd, header, sizeof(header), 0) != HEADER_LEN || memcmp(header, "QFI\xfb", 4) != 0)
		return err_set(err, EINVAL, "'%s' is no qcow2 image", path);
	count = be32_at(header + 60);
	at = be64_at(header + 64);
	if (count > SNAPSHOTS_MAX || at > (1ull << 62))
		return damaged(path, err);
	while (count-- > 0 && r == 0)
		r = entry_is(fd, path, &at, name, err);
	return r;
}
