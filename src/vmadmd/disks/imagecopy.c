/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An import's work, see images.h: one pass over the bytes that copies, leaves holes where there
 * are only zeros, and sums. The order at the end makes it whole or not at all: the file is on disk
 * under a dot name, then its record, then its name.
 */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/image.h"
#include "qemu/imagestore.h"
#include "store/write.h"
#include "vmadmd/disks/images.h"
#include "vmadmd/worker.h"

#define IMAGE_MODE   0444 /* whoever runs a guest reads it, nobody changes it */
#define DIR_MODE     0755
#define HOLE         65536u
#define INFO_VERSION 1

struct copy {
	const struct image_copy *c;
	int fd;
	uint64_t len;
	struct sha256_ctx sum;
	uint8_t *buf;
};

static int no_room(const struct copy *w, int r, struct err *err)
{
	if (r == -ENOSPC || r == -EDQUOT)
		return err_set(err, ENOSPC,
			       "no space left on device for image '%s': '%s/" IMAGES_DIR
			       "' is full after %" PRIu64 " MiB",
			       w->c->name, w->c->lib, w->len >> 20);
	return err_sys(err, -r, "cannot write image '%s'", w->c->name);
}

static bool all_zero(const uint8_t *data, size_t len)
{
	return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

static int put(struct copy *w, const uint8_t *data, size_t len, struct err *err)
{
	sha256_update(&w->sum, len, data);
	while (len > 0) {
		size_t piece = HOLE - w->len % HOLE < len ? HOLE - w->len % HOLE : len;
		ssize_t n = (ssize_t)piece;

		if (!all_zero(data, piece))
			n = pwrite(w->fd, data, piece, (off_t)w->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return no_room(w, -errno, err);
		data += n;
		len -= (size_t)n;
		w->len += (uint64_t)n;
	}
	return 0;
}

static int copy_plain(struct copy *w, struct err *err)
{
	for (;;) {
		ssize_t n = fd_read_full(WORKER_FD, w->buf, IMAGE_FRAME_MAX);
		int r = n > 0 ? put(w, w->buf, (size_t)n, err) : 0;

		if (n < 0)
			return err_sys(err, (int)-n, "cannot read what is to be image '%s'",
				       w->c->name);
		if (n == 0 || r < 0)
			return r;
	}
}

static int copy_frames(struct copy *w, struct err *err)
{
	for (;;) {
		uint32_t len = 0;
		int r;

		if (fd_read_full(WORKER_FD, &len, sizeof(len)) != (ssize_t)sizeof(len))
			break;
		len = be32toh(len);
		if (len == 0)
			return 0;
		if (len > IMAGE_FRAME_MAX || fd_read_full(WORKER_FD, w->buf, len) != (ssize_t)len)
			break;
		r = put(w, w->buf, len, err);
		if (r < 0)
			return r;
	}
	return err_set(err, EPROTO, "the stream was cut short after %" PRIu64 " bytes", w->len);
}

/* A copy that cannot fit is refused before it begins. */
static int check_room(const struct copy *w, struct err *err)
{
	struct statvfs fs;
	struct stat st;
	uint64_t need, room;

	if (fstat(WORKER_FD, &st) < 0 || !S_ISREG(st.st_mode) || fstatvfs(w->fd, &fs) < 0)
		return 0;
	need = (uint64_t)st.st_blocks * 512;
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (need <= room)
		return 0;
	return err_set(err, ENOSPC,
		       "no space for image '%s' in '%s/" IMAGES_DIR "': it takes %" PRIu64
		       " MiB, %" PRIu64 " MiB are free",
		       w->c->name, w->c->lib, need >> 20, room >> 20);
}

static int check_sum(struct copy *w, char hex[SHA256_HEX + 1], struct err *err)
{
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_digest(&w->sum, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	if (!*w->c->want || strcasecmp(w->c->want, hex) == 0)
		return 0;
	return err_set(err, EPROTO, "image '%s' has the SHA-256 %s, not %s", w->c->name, hex,
		       w->c->want);
}

static int check_image(const struct copy *w, enum image_format *ret, struct err *err)
{
	struct image_info info;
	int r = image_probe(w->c->temp, &info, err);

	if (r < 0)
		return err_set(err, EINVAL, "image '%s' cannot be used: %.300s", w->c->name,
			       err->msg);
	*ret = info.format;
	if (w->len == 0)
		return err_set(err, EINVAL, "image '%s' is empty", w->c->name);
	if (info.format == IMAGE_OTHER)
		return err_set(err, EINVAL,
			       "image '%s' is neither raw nor qcow2 (convert it: qemu-img convert "
			       "-O qcow2 FROM TO)",
			       w->c->name);
	if (info.has_backing)
		return err_set(err, EINVAL,
			       "image '%s' reads from another file, '%.200s' (make it whole: "
			       "qemu-img convert -O qcow2 FROM TO)",
			       w->c->name, info.backing);
	if (info.has_data_file)
		return err_set(err, EINVAL, "image '%s' keeps its data in another file",
			       w->c->name);
	return 0;
}

/* The record, then the name. */
static int publish(const struct copy *w, enum image_format format, const char *hex, struct err *err)
{
	AUTO_FREE char *file =
		xasprintf("%s.%s", w->c->name, format == IMAGE_QCOW2 ? "qcow2" : "raw");
	AUTO_FREE char *path = images_path(w->c->lib, file);
	AUTO_FREE char *info = images_info_path(w->c->lib, file);
	AUTO_FREE char *dir = images_path(w->c->lib, NULL);
	AUTO_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char now[ISO_TIME_LEN];
	AUTO_JSON json_t *record = json_object();
	int r;

	if (file_exists(path))
		return err_set(err, EEXIST, "there is an image '%s' already", w->c->name);
	json_put_str(record, "uuid", w->c->uuid);
	json_put_str(record, "sha256", hex);
	json_put_str(record, "imported", clock_iso(clock_wall_ms(), now, sizeof(now)));
	r = state_write(info, INFO_VERSION, record, w->c->sync, err);
	if (r < 0)
		return r;
	if (renameat2(AT_FDCWD, w->c->temp, AT_FDCWD, path, RENAME_NOREPLACE) < 0)
		return err_sys(err, errno, "cannot name image '%s'", w->c->name);
	if (w->c->sync == FILE_SYNC && (fd < 0 || fsync(fd) < 0))
		return err_sys(err, errno, "cannot write directory '%s'", dir);
	return 0;
}

static int make_dirs(const char *lib, struct err *err)
{
	AUTO_FREE char *dir = images_path(lib, IMAGES_INFO);

	return dir_make(dir, DIR_MODE, err);
}

static int finish(struct copy *w, struct err *err)
{
	char hex[SHA256_HEX + 1];
	enum image_format format = IMAGE_OTHER;
	int r = check_sum(w, hex, err);

	if (r == 0 && (ftruncate(w->fd, (off_t)w->len) < 0 || fchmod(w->fd, IMAGE_MODE) < 0))
		r = no_room(w, -errno, err);
	if (r == 0)
		r = check_image(w, &format, err);
	if (r == 0 && w->c->sync == FILE_SYNC && fsync(w->fd) < 0)
		r = no_room(w, -errno, err);
	return r == 0 ? publish(w, format, hex, err) : r;
}

int image_copy(const struct image_copy *c, struct err *err)
{
	AUTO_FREE uint8_t *buf = xmalloc(IMAGE_FRAME_MAX);
	AUTO_FD int fd = -1;
	struct copy w = {.c = c, .buf = buf};
	int r = make_dirs(c->lib, err);

	if (r < 0)
		return r;
	fd = open(c->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, errno, "cannot make '%s'", c->temp);
	w.fd = fd;
	sha256_init(&w.sum);
	r = check_room(&w, err);
	if (r == 0)
		r = c->framed ? copy_frames(&w, err) : copy_plain(&w, err);
	if (r == 0)
		r = finish(&w, err);
	if (r < 0)
		(void)unlink(c->temp);
	return r;
}

/* --- at the start --- */

static void clean_dir(const char *path, bool (*stale)(const char *lib, const char *name),
		      const char *lib)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)) != NULL) {
		AUTO_FREE char *file = path_join(path, entry->d_name);

		if (stale(lib, entry->d_name))
			(void)unlink(file);
	}
	if (dir)
		(void)closedir(dir);
}

static bool is_partial(const char *lib, const char *name)
{
	return str_starts(name, IMAGES_PARTIAL);
}

/* A record whose image never got its name, or lost it; or half a record. */
static bool is_orphan(const char *lib, const char *name)
{
	AUTO_FREE char *file = NULL, *path = NULL;

	if (name[0] == '.')
		return name[1] && name[1] != '.';
	if (!str_ends(name, ".json"))
		return false;
	file = xstrndup(name, strlen(name) - strlen(".json"));
	path = images_path(lib, file);
	return !file_exists(path);
}

void images_clean(const char *lib)
{
	AUTO_FREE char *dir = images_path(lib, NULL);
	AUTO_FREE char *info = images_path(lib, IMAGES_INFO);

	clean_dir(dir, is_partial, lib);
	clean_dir(info, is_orphan, lib);
}
