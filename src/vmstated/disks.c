/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks before a start: those a definition asks for that are not there yet are made, others must
 * exist. The format of a file given without one is settled at its first sight and kept: a guest
 * that writes a qcow2 header into its raw disk must not have it believed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/props.h"
#include "qemu/image.h"
#include "qemu/imagestore.h"
#include "qemu/source.h"
#include "store/write.h"
#include "vmstated/parts.h"

#define IMAGE_MS 600000u
#define FORMATS  "formats" /* in the data directory: path to format */

static json_t *load_formats(const struct guest *g)
{
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, FORMATS);
	json_t *j;

	return state_read(path, 1, &j, NULL) < 0 ? json_object() : j;
}

static int keep_format(struct guest *g, const struct disk *d, struct err *err)
{
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, FORMATS);
	AUTO_FREE char *dir = path_of_data(&g->sup->paths, g->uuid, NULL);
	AUTO_JSON json_t *j = load_formats(g);
	int r = dir_make(dir, 0700, err);

	json_put_str(j, d->path, enum_name(disk_format_names, DISK_FORMAT_COUNT, (int)d->format));
	return r < 0 ? r : state_write(path, 1, j, FILE_NO_SYNC, err);
}

static void next_disk(struct guest *g, size_t from);

/* Made under another name first: a half-made disk is never taken for one. */
static char *temp_of(const char *path)
{
	return xasprintf("%s.making", path);
}

struct making {
	struct guest *guest;
	size_t disk;
};

static void image_made(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct making *m = ctx;
	struct guest *g = m->guest;
	size_t at = m->disk;
	struct err err = {0};

	AUTO_FREE char *temp = temp_of(g->started->disks[at]->path);

	free(m);
	if (how->known && how->code == CLD_EXITED && how->status == 0 &&
	    rename(temp, g->started->disks[at]->path) == 0) {
		next_disk(g, at); /* now it is there, and its format known */
		return;
	}
	(void)unlink(temp);
	(void)err_set(&err, EIO, "disks[%zu]: cannot make '%s': %.300s", at,
		      g->started->disks[at]->path, errors);
	launch_failed(g, &err);
}

/* A disk with a size in our data directory is made at the first start; others must be there. */
static int make_disk(struct guest *g, size_t i, struct err *err)
{
	const struct disk *d = g->started->disks[i];
	AUTO_FREE char *temp = d->path ? temp_of(d->path) : NULL;
	const char *image = d->image ? d->image : d->image_uuid;
	AUTO_FREE char *base = image ? image_find(g->sup->paths.lib, image) : NULL;
	struct disk under;
	struct argv argv = {0};
	struct making *m;
	struct child_spec spec = {
		.in = -1, .out = -1, .errfd = -1, .timeout_ms = IMAGE_MS, .session = true};
	struct child *child;
	int r;

	if (!temp || (d->size_mib == 0 && !image))
		return err_set(err, ENOENT, "disks[%zu].path: '%s' does not exist", i,
			       d->path ? d->path : "");
	if (g->started->made_by_us)
		return err_set(err, ENOENT, "disks[%zu].path: '%s' is missing", i, d->path);
	if (image && !base)
		return err_set(err, ENOENT,
			       "disks[%zu].image: no image '%s' (want a file in %s/images or an "
			       "absolute path)",
			       i, image, g->sup->paths.lib);
	m = xcalloc(1, sizeof(*m));
	*m = (struct making){.guest = g, .disk = i};
	under = *d;
	under.path = temp;
	if (!d->image && d->image_uuid)
		under.size_mib = d->image_size_mib;
	(void)unlink(temp); /* of an attempt that was cut short */
	image_create_argv(&under, base, &argv);
	spec.argv = (const char *const *)argv.items;
	guestlog_printf(g, "vmstated", "making disk '%s'", d->path);
	r = child_run(g->sup->event, &spec, 4096, image_made, m, &child, err);
	argv_done(&argv);
	if (r < 0)
		free(m);
	return r;
}

static int settle_format(struct guest *g, struct disk *d, const struct image_info *info,
			 struct err *err)
{
	AUTO_JSON json_t *known = NULL;
	int format;

	if (d->format != FORMAT_AUTO)
		return 0;
	if (d->media == MEDIA_CDROM) {
		d->format = FORMAT_RAW;
		return 0;
	}
	known = load_formats(g);
	format = enum_value(disk_format_names, DISK_FORMAT_COUNT, json_get_str(known, d->path, ""));
	if (format > FORMAT_AUTO) {
		d->format = (enum disk_format)format;
		return 0;
	}
	d->format = info->format == IMAGE_QCOW2 ? FORMAT_QCOW2 : FORMAT_RAW;
	return keep_format(g, d, err);
}

static int check_disk(struct guest *g, size_t i, bool *ret_missing, struct err *err)
{
	struct disk *d = g->started->disks[i];
	struct image_info info;
	int r;

	*ret_missing = false;
	if (!d->path)
		return 0;
	if (image_protocol(d->path)) {
		r = source_driver_check(d->path, err);
		return r < 0 ? err_wrap(err, r, "disks[%zu].path", i) : 0;
	}
	r = image_probe(d->path, &info, err);
	if (r == -ENOENT) {
		*ret_missing = true;
		return 0;
	}
	if (r < 0)
		return err_wrap(err, r, "disks[%zu].path", i);
	return settle_format(g, d, &info, err);
}

static void next_disk(struct guest *g, size_t from)
{
	struct err err = {0};
	bool missing;

	for (size_t i = from; i < g->started->ndisks; i++) {
		int r = check_disk(g, i, &missing, &err);

		if (r == 0 && missing) {
			AUTO_FREE char *dir = path_of_data(&g->sup->paths, g->uuid, NULL);

			r = dir_make(dir, 0700, &err);
			if (r == 0)
				r = make_disk(g, i, &err);
			if (r == 0)
				return;
		}
		if (r < 0) {
			launch_failed(g, &err);
			return;
		}
	}
	launch_process(g);
}

void disks_prepare(struct guest *g)
{
	next_disk(g, 0);
}
