/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes into the stream of a backup, in a worker. A disk is sent as a qcow2 image of its own,
 * without backing file and snapshots, that is written on the way: a map says where its content
 * lies, so that nothing is copied before. Only what the map cannot tell (compressed data, a backing
 * file that is no file) is flattened by qemu-img first, for which there must be room.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/image.h"
#include "qemu/qcow2.h"
#include "store/stream.h"
#include "vmadmd/backup/backup.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/save.h"

#define CHAIN_MAX 64

/* --- where its content lies --- */

struct chain {
	int files[CHAIN_MAX];
	size_t count;
};

static void chain_done(struct chain *chain)
{
	while (chain->count > 0)
		(void)close(chain->files[--chain->count]);
}
#define AUTO_CHAIN __attribute__((cleanup(chain_done)))

/* The image and what it is on, as deep as there is data. */
static int open_chain(struct chain *chain, const char *path, uint32_t deepest, struct err *err)
{
	AUTO_FREE char *at = xstrdup(path);

	for (;;) {
		struct image_info info;
		int r = image_probe(at, &info, err);
		int fd = r < 0 ? r : open(at, O_RDONLY | O_CLOEXEC | O_NOCTTY);

		if (r < 0)
			return r;
		if (fd < 0)
			return err_sys(err, errno, "cannot open '%s'", at);
		chain->files[chain->count++] = fd;
		if (info.has_data_file && info.format == IMAGE_QCOW2)
			return err_set(err, ENOTSUP, "'%s' keeps its data elsewhere", at);
		if (chain->count > deepest)
			return 0;
		if (chain->count == CHAIN_MAX || !info.has_backing || image_protocol(info.backing))
			return err_set(err, ENOTSUP, "what '%s' is on is no file", at);
		replace_str(&at, image_backing_path(at, &info));
	}
}

static int take_line(void *ctx, const char *line, struct err *err)
{
	return extents_add(ctx, line, err);
}

static int map_disk(const char *path, const char *format, struct extents *x, struct chain *chain,
		    struct err *err)
{
	const char *const argv[] = {"qemu-img", "map", "-f", format, "--output=json", path, NULL};
	int r = live_tool_lines(argv, take_line, x, err);

	return r == 0 ? open_chain(chain, path, x->deepest, err) : r;
}

/* --- out --- */

static int put_stream(void *ctx, const void *data, size_t len, struct err *err)
{
	return stream_data(ctx, data, len, err);
}

static int send_image(struct stream *out, const struct qcow2 *q, const char *name, const char *path,
		      struct err *err)
{
	AUTO_JSON json_t *member =
		json_pack("{s:s, s:s, s:s, s:I}", "name", name, "path", path, "format", "qcow2",
			  "bytes", (json_int_t)qcow2_length(q));
	int r = stream_member(out, member, err);

	return r == 0 ? qcow2_write(q, put_stream, out, err) : r;
}

static int send_mapped(struct stream *out, const char *from, const char *format, const char *name,
		       const char *path, struct err *err)
{
	AUTO_EXTENTS struct extents x = {0};
	AUTO_CHAIN struct chain chain = {0};
	int r = map_disk(from, format, &x, &chain, err);
	const struct qcow2 q = {
		.size = x.size, .extents = x.items, .nextents = x.count, .files = chain.files};

	return r == 0 ? send_image(out, &q, name, path, err) : r;
}

/* An image of its own first. */
static int send_flattened(const struct change *c, struct stream *out, size_t i, const char *name,
			  struct err *err)
{
	const struct live_disk *disk = &c->live->disks[i];
	AUTO_FREE char *part = path_of_data(c->d->paths, c->uuid, BACKUP_PART);
	const char *const argv[] = {"qemu-img", "convert", "-q",       "-f", disk->format,
				    "-O",       "qcow2",   disk->path, part, NULL};
	struct image_info info = {0};
	int r = image_probe(disk->path, &info, err);

	(void)unlink(part);
	if (r == 0)
		r = backup_room(c, backup_bytes(&info), err);
	if (r == 0)
		r = live_tool(argv, err);
	if (r == 0)
		r = send_mapped(out, part, "qcow2", name, disk->path, err);
	(void)unlink(part);
	return r;
}

static int send_disk(const struct change *c, struct stream *out, size_t i, struct err *err)
{
	const struct live_disk *disk = &c->live->disks[i];
	AUTO_FREE char *name = xasprintf("disk%zu", i), *copy = backup_copy_path(c, i);
	int r;

	if (c->live->running) {
		r = send_mapped(out, copy, "qcow2", name, disk->path, err);
		(void)unlink(copy);
		return r;
	}
	r = send_mapped(out, disk->path, disk->format, name, disk->path, err);
	return r == -ENOTSUP ? send_flattened(c, out, i, name, err) : r;
}

static int send_vars(struct stream *out, const char *path, struct err *err)
{
	AUTO_JSON json_t *member = json_pack("{s:s}", "name", "nvram");
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	json_put_int(member, "bytes", st.st_size);
	r = stream_member(out, member, err);
	return r == 0 ? stream_copy_in(out, fd, NULL, err) : r;
}

int backup_send_all(void *arg, struct err *err)
{
	const struct change *c = arg;
	const struct live *l = c->live;
	AUTO_JSON json_t *done = json_object();
	AUTO_STREAM struct stream out = {0};
	AUTO_FD int fd = backup_connect(l->saving, err);
	int r;

	if (fd < 0)
		return fd;
	r = stream_begin(&out, fd, l->saving->head, err);
	if (r == 0 && l->vars)
		r = send_vars(&out, l->vars, err);
	for (size_t i = 0; r == 0 && i < l->ndisks; i++)
		r = send_disk(c, &out, i, err);
	json_put_int(done, "disks", (json_int_t)l->ndisks);
	return r == 0 ? stream_end(&out, done, err) : r;
}
