/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk images; see image.h. A guest owns every byte of its raw disk, a header included: what
 * image_probe() says of a raw disk that a guest has written to is the guest's word. So the format
 * is settled when a disk is made or first seen, and kept.
 * Source: QEMU's docs/interop/qcow2.txt.
 */
#include "qemu/image.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/argv.h"
#include "qemu/qcow2.h"

#define HEADER_V2        72
#define HEADER_V3        104
#define CLUSTER_BITS_MIN 9
#define CLUSTER_BITS_MAX 21
#define INCOMPAT_DATA    4ull /* the guest's data lies in another file */
#define SIZE_MAX_BYTES   (1ull << 62)

/* Formats that are told apart from raw only to be refused by name. */
static const struct magic {
	size_t at, len;
	const char *bytes;
} magics[] = {
	{0, 4, "QED\0"},
	{0, 4, "KDMV"},
	{0, 4, "COWD"},
	{0, 8, "conectix"},
	{0, 8, "vhdxfile"},
	{0, 6, "LUKS\xba\xbe"},
	{0, 16, "WithoutFreeSpace"},
	{0, 16, "WithouFreSpacExt"},
	{0x40, 4, "\x7f\x10\xda\xbe"}, /* VDI */
};

static uint32_t be32_at(const uint8_t *h, size_t at)
{
	uint32_t v;

	memcpy(&v, h + at, sizeof(v));
	return be32toh(v);
}

static uint64_t be64_at(const uint8_t *h, size_t at)
{
	uint64_t v;

	memcpy(&v, h + at, sizeof(v));
	return be64toh(v);
}

static int bad_header(struct err *err, const char *path, const char *why)
{
	return err_set(err, EINVAL, "'%s' is a damaged qcow2 image: %s", path, why);
}

static int read_backing(int fd, const char *path, const uint8_t *h, struct image_info *info,
			struct err *err)
{
	uint64_t at = be64_at(h, 8), cluster = 1ull << be32_at(h, 20);
	uint32_t len = be32_at(h, 16);

	if (at == 0)
		return 0;
	if (len == 0 || len >= sizeof(info->backing))
		return bad_header(err, path, "the backing name is empty or over 1023 bytes");
	if (at >= cluster || len > cluster - at)
		return bad_header(err, path, "the backing name lies outside the first cluster");
	if (fd_read_full_at(fd, info->backing, len, at) != (ssize_t)len)
		return bad_header(err, path, "the backing name is cut off");
	if (memchr(info->backing, '\0', len))
		return bad_header(err, path, "the backing name holds a NUL byte");
	info->backing[len] = '\0';
	info->has_backing = true;
	return 0;
}

static int read_qcow2(int fd, const char *path, const uint8_t *h, size_t len,
		      struct image_info *info, struct err *err)
{
	uint32_t version = be32_at(h, 4), bits;

	if (version == 1) {
		info->format = IMAGE_OTHER;
		return 0;
	}
	if (version != 2 && version != 3)
		return err_set(err, EINVAL, "'%s': qcow2 version %u is not known (want 2 or 3)",
			       path, version);
	if (len < (version == 2 ? HEADER_V2 : HEADER_V3))
		return bad_header(err, path, "the header is cut off");
	bits = be32_at(h, 20);
	if (bits < CLUSTER_BITS_MIN || bits > CLUSTER_BITS_MAX)
		return bad_header(err, path, "the cluster size is not 512 bytes to 2 MiB");
	info->format = IMAGE_QCOW2;
	info->virtual_size = be64_at(h, 24);
	if (info->virtual_size > SIZE_MAX_BYTES)
		return bad_header(err, path, "the disk's size cannot be");
	if (version == 3) {
		if (be32_at(h, 100) < HEADER_V3 || be32_at(h, 100) > 1u << bits)
			return bad_header(err, path, "the header's length cannot be");
		info->has_data_file = be64_at(h, 72) & INCOMPAT_DATA;
	}
	return read_backing(fd, path, h, info, err);
}

static enum image_format other_or_raw(const uint8_t *h, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
		const struct magic *m = &magics[i];

		if (len >= m->at + m->len && memcmp(h + m->at, m->bytes, m->len) == 0)
			return IMAGE_OTHER;
	}
	return IMAGE_RAW;
}

static int read_sizes(int fd, const char *path, struct image_info *info, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "cannot look at '%s'", path);
	info->block_device = S_ISBLK(st.st_mode);
	if (!info->block_device && !S_ISREG(st.st_mode))
		return err_set(err, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
			       "'%s' is neither a file nor a block device", path);
	info->virtual_size = (uint64_t)st.st_size;
	info->allocated_size = (uint64_t)st.st_blocks * 512;
	if (info->block_device) {
		if (ioctl(fd, BLKGETSIZE64, &info->virtual_size) < 0)
			return err_sys(err, errno, "cannot ask for the size of '%s'", path);
		info->allocated_size = info->virtual_size;
	}
	return 0;
}

int image_probe(const char *path, struct image_info *ret, struct err *err)
{
	/* O_NONBLOCK: a FIFO in the place of an image must not hang us. */
	AUTO_FD int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct image_info info = {0};
	uint8_t h[HEADER_V3] = {0};
	ssize_t len;
	int r;

	if (fd < 0)
		return err_sys(err, errno, "cannot open image '%s'", path);
	r = read_sizes(fd, path, &info, err);
	if (r < 0)
		return r;
	len = fd_read_full_at(fd, h, sizeof(h), 0);
	if (len < 0)
		return err_sys(err, (int)-len, "cannot read image '%s'", path);
	if (len >= 8 && memcmp(h, "QFI\xfb", 4) == 0)
		r = read_qcow2(fd, path, h, (size_t)len, &info, err);
	else
		info.format = other_or_raw(h, (size_t)len);
	if (r == 0)
		*ret = info;
	return r;
}

/* A relative name starts at the image that names it. */
char *image_backing_path(const char *path, const struct image_info *info)
{
	const char *slash = strrchr(path, '/');

	if (info->backing[0] == '/' || !slash)
		return xstrdup(info->backing);
	return xasprintf("%.*s/%s", (int)(slash - path), path, info->backing);
}

/* --- qemu-img --- */

static const char *format_of(const char *path)
{
	struct image_info info;

	if (image_probe(path, &info, NULL) == 0 && info.format == IMAGE_QCOW2)
		return "qcow2";
	return "raw";
}

static void preallocation(const struct disk *disk, struct argv *ret)
{
	static const char *const words[DISK_PREALLOCATION_COUNT] = {
		[PREALLOCATION_METADATA] = "metadata",
		[PREALLOCATION_FALLOC] = "falloc",
		[PREALLOCATION_FULL] = "full",
	};

	if (!words[disk->preallocation])
		return;
	argv_add(ret, "-o");
	argv_add(ret, "preallocation=%s", words[disk->preallocation]);
}

void image_create_argv(const struct disk *disk, const char *base, struct argv *ret)
{
	const char *format = disk->format == FORMAT_RAW ? "raw" : "qcow2";

	argv_add(ret, "qemu-img");
	if (base && disk->format == FORMAT_RAW) { /* raw has no backing: a whole copy */
		argv_add(ret, "convert");
		argv_add(ret, "-q");
		argv_add(ret, "-f");
		argv_add(ret, "%s", format_of(base));
		argv_add(ret, "-O");
		argv_add(ret, "raw");
		preallocation(disk, ret);
		argv_add(ret, "--");
		argv_add(ret, "%s", base);
		argv_add(ret, "%s", disk->path);
		return;
	}
	argv_add(ret, "create");
	argv_add(ret, "-q");
	argv_add(ret, "-f");
	argv_add(ret, "%s", format);
	if (base) {
		argv_add(ret, "-b");
		argv_add(ret, "%s", base);
		argv_add(ret, "-F");
		argv_add(ret, "%s", format_of(base));
	}
	preallocation(disk, ret);
	argv_add(ret, "--");
	argv_add(ret, "%s", disk->path);
	if (disk->size_mib > 0)
		argv_add(ret, "%lluM", (unsigned long long)disk->size_mib);
}

static int put_file(void *ctx, const void *data, size_t len, struct err *err)
{
	int r = fd_write_all(*(const int *)ctx, data, len);

	return r < 0 ? err_sys(err, -r, "cannot write it") : 0;
}

bool image_needs_tool(const struct disk *disk)
{
	return disk->format == FORMAT_RAW || disk->preallocation != PREALLOCATION_OFF ||
	       disk->size_mib == 0;
}

int image_create(const char *path, uint64_t size, const char *base, struct err *err)
{
	const struct qcow2 q = {
		.size = size,
		.backing = base,
		.backing_format = base ? format_of(base) : NULL,
	};
	AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return err_sys(err, errno, "cannot make disk '%s'", path);
	r = qcow2_write(&q, put_file, &fd, err);
	return r < 0 ? err_wrap(err, r, "cannot make disk '%s'", path) : 0;
}

/* Drivers of QEMU that a file name can select with "NAME:" or "NAME+TRANSPORT:". */
static const char *const protocols[] = {
	"blkdebug", "blklogwrites", "blkverify",  "dav",         "davs",     "fat",     "ftp",
	"ftps",     "gluster",      "host_cdrom", "host_device", "http",     "https",   "iscsi",
	"iser",     "json",         "nbd",        "nfs",         "null-aio", "null-co", "nvme",
	"rbd",      "sheepdog",     "ssh",        "tftp",        "vvfat",    "vxhs",    "file",
};

const char *image_protocol(const char *path)
{
	size_t len = strcspn(path, ":/+");

	if (path[len] != ':' && path[len] != '+')
		return NULL;
	if (path[len] == '+' && path[len + strcspn(path + len, ":/")] != ':')
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++)
		if (strlen(protocols[i]) == len && memcmp(protocols[i], path, len) == 0)
			return protocols[i];
	return NULL;
}
