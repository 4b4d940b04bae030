/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of a running machine: in, out, another medium, more room, other limits; see plug.h. Each
 * function adds commands to the plan or refuses, changing nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/argv.h"
#include "qemu/image.h"
#include "vmadmd/devices/plug_private.h"
#include "vmadmd/guest.h"

#define SHARED_GROUP "drover" /* QEMU's throttle group of disks under the VM's limits */

static char *disk_words(const char *id, const struct disk *d)
{
	return xasprintf("disk '%s' (%s, '%s')", d->name ? d->name : "", id, plug_path(d));
}

/* Changes call a disk by its path, an empty drive by its name. */
static void touch(struct plug *p, const struct disk *d)
{
	plug_touch(p, "disks", d->name, *plug_path(d) ? d->path : d->name);
}

static size_t index_of_disk(const struct vm *vm, const struct disk *d)
{
	size_t i = 0;

	while (i < vm->ndisks && vm->disks[i] != d)
		i++;
	return i;
}

static unsigned scsi_before(const struct vm *vm, size_t i)
{
	unsigned n = 0;

	for (size_t k = 0; k < i; k++)
		n += vm->disks[k]->model == DISK_SCSI ||
		     (vm->disks[k]->media == MEDIA_CDROM && vm->disks[k]->model == DISK_VIRTIO);
	return n;
}

/* Is it the one that some disk of the definition names? */
static bool is_named(const struct plug *p, const json_t *row)
{
	const char *file = json_get_str(json_object_get(row, "inserted"), "file", "");

	for (size_t i = 0; i < p->old->ndisks; i++) {
		if (str_eq(plug_path(p->old->disks[i]), file))
			return true;
	}
	return false;
}

/* QEMU has words of its own for what is behind a network: it is the one that nobody else is. With
 * several of them nobody can tell. */
static const json_t *find_remote(const struct plug *p, const struct disk *d)
{
	const json_t *row, *found = NULL;
	size_t i;

	if (!d->path || !image_protocol(d->path))
		return NULL;
	json_array_foreach (p->machine.block, i, row) {
		if (!json_object_get(row, "inserted") || is_named(p, row))
			continue;
		if (found)
			return NULL;
		found = row;
	}
	return found;
}

static const json_t *find_disk(struct plug *p, const struct disk *d, struct err *err)
{
	char id[QEMU_ID_MAX];
	const json_t *row;

	(void)qemu_disk_id(index_of_disk(p->old, d), id, sizeof(id));
	row = machine_disk(&p->machine, d->path, id);
	row = row ? row : find_remote(p, d);
	if (!row)
		err_set(err, ENOENT, "the running machine has no disk '%s' ('%s')", d->name,
			plug_path(d));
	return row;
}

/* Where the disk's argv says it is: as it was found, or at a new place. */
static int place_disk(struct plug *p, const struct disk *d, const char *id, struct qemu_place *at,
		      struct err *err)
{
	const struct vm *vm = id ? p->old : p->new;
	size_t i = index_of_disk(vm, d);
	long port = -1;

	*at = (struct qemu_place){.scsi = scsi_before(vm, i)};
	at->number = id ? strtoul(id + strlen("disk"), NULL, 10)
			: machine_free_number(&p->machine, false, i);
	if (!qemu_disk_on_port(d))
		return 0;
	port = id ? machine_port_of(&p->machine, id)
		  : machine_free_port(&p->machine, qemu_disk_port(p->new));
	if (port < 0 && !id)
		return err_set(err, ENOSPC, "no free slot in the running machine for disk '%s'",
			       d->name);
	at->port = port < 0 ? 0 : (size_t)port;
	if (!id) {
		char name[QEMU_ID_MAX];

		json_put_str(p->machine.ports, qemu_port_id(at->port, name, sizeof(name)), "?");
	}
	return 0;
}

static void limits(struct plug *p, const char *qdev, const struct disk *before,
		   const struct disk *d, const char *what)
{
	const struct disk none = {0};
	const struct disk *both[] = {d, before ? before : &none};
	json_t *args[2];

	if (!plug_limits_differ(both[0], both[1]))
		return;
	for (size_t i = 0; i < 2; i++)
		args[i] = json_pack(
			"{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "id", qdev, "group",
			both[i]->shares_limits ? SHARED_GROUP : qdev, "bps",
			(json_int_t)both[i]->bps, "bps_rd", (json_int_t)both[i]->bps_rd, "bps_wr",
			(json_int_t)both[i]->bps_wr, "iops", (json_int_t)both[i]->iops, "iops_rd",
			(json_int_t)both[i]->iops_rd, "iops_wr", (json_int_t)both[i]->iops_wr);
	plug_step(p, "block_set_io_throttle", args[0], "block_set_io_throttle", args[1], what);
}

/* Limits are of the back end, which has a path where the device has an id. */
static char *qdev_of(const struct disk *d, const char *id)
{
	return d->model == DISK_VIRTIO && d->media == MEDIA_DISK
		       ? xasprintf("/machine/peripheral/%s/virtio-backend", id)
		       : xstrdup(id);
}

int plug_disk_in_steps(struct plug *p, const struct disk *d, struct err *err)
{
	AUTO_FREE char *what = NULL, *qdev = NULL;
	struct argv argv = {0};
	struct qemu_place at;
	char id[QEMU_ID_MAX];
	int r = place_disk(p, d, NULL, &at, err);

	if (r == 0)
		r = qemu_disk_argv(p->new, index_of_disk(p->new, d), &at, &argv, err);
	if (r < 0)
		return r;
	(void)qemu_disk_id(at.number, id, sizeof(id));
	what = disk_words(id, d);
	qdev = qdev_of(d, id);
	plug_make(p, &argv, true, NULL, what);
	argv_done(&argv);
	limits(p, qdev, NULL, d, what);
	touch(p, d);
	return 0;
}

/* The format QEMU has it open with, should it have to be put back. */
static void settle_format(struct plug *p, const struct disk *d, const json_t *row)
{
	struct disk *mine = p->old->disks[index_of_disk(p->old, d)];
	const char *driver = json_get_str(json_object_get(row, "inserted"), "drv", "");

	if (mine->format == FORMAT_AUTO)
		mine->format = str_eq(driver, "qcow2") ? FORMAT_QCOW2 : FORMAT_RAW;
}

int plug_disk_out_steps(struct plug *p, const struct disk *d, struct err *err)
{
	const json_t *row = find_disk(p, d, err);
	const char *id = json_get_str(row, "device", "");
	AUTO_FREE char *what = disk_words(id, d);
	struct argv argv = {0};
	struct qemu_place at;
	int r = row ? place_disk(p, d, id, &at, err) : -ENOENT;

	settle_format(p, d, row);
	if (r == 0)
		r = qemu_disk_argv(p->old, index_of_disk(p->old, d), &at, &argv, err);
	if (r < 0)
		return r;
	plug_make(p, &argv, false, NULL, what);
	argv_done(&argv);
	touch(p, d);
	return 0;
}

/* --- media --- */

static void medium_nodes(struct plug *p, const struct vm *vm, const struct disk *d, size_t number,
			 bool in, const char *what)
{
	const struct qemu_place at = {.number = number, .scsi = 0};
	struct argv argv = {0};
	struct err err = {0};

	if (*plug_path(d) && qemu_disk_argv(vm, index_of_disk(vm, d), &at, &argv, &err) == 0)
		plug_make(p, &argv, in, "-blockdev", what);
	argv_done(&argv);
}

static json_t *tray(const char *id, bool force)
{
	return force ? json_pack("{s:s, s:b}", "id", id, "force", 1) : json_pack("{s:s}", "id", id);
}

static json_t *medium(const char *id, const char *node)
{
	return json_pack("{s:s, s:s}", "id", id, "node-name", node);
}

/* The steps QEMU's blockdev-change-medium takes as one, so that each can be taken back. */
static int change_medium(struct plug *p, const struct disk *before, const struct disk *d,
			 const json_t *row, struct err *err)
{
	const char *id = json_get_str(row, "device", ""), *qdev = json_get_str(row, "qdev", id);
	AUTO_FREE char *what = disk_words(id, d);
	size_t number = strtoul(id + strlen("disk"), NULL, 10);

	if (!p->force && json_get_bool(row, "locked", false))
		return err_set(err, EBUSY,
			       "the guest of VM %s has locked the drive '%s' (unmount it, or use "
			       "force)",
			       p->g->uuid, d->name);
	plug_step(p, "blockdev-open-tray", tray(qdev, true), "blockdev-close-tray",
		  tray(qdev, false), what);
	if (*plug_path(before)) {
		plug_step(p, "blockdev-remove-medium", tray(qdev, false), "blockdev-insert-medium",
			  medium(qdev, id), what);
		medium_nodes(p, p->old, before, number, false, what);
	}
	medium_nodes(p, p->new, d, number, true, what);
	if (*plug_path(d)) {
		plug_step(p, "blockdev-insert-medium", medium(qdev, id), "blockdev-remove-medium",
			  tray(qdev, false), what);
		plug_step(p, "blockdev-close-tray", tray(qdev, false), "blockdev-open-tray",
			  tray(qdev, true), what);
	}
	touch(p, before);
	touch(p, d);
	return 0;
}

/* Growing is not taken back: the guest may have used it by then. */
static void grow(struct plug *p, const struct disk *d, const json_t *row, const char *what)
{
	const json_t *inserted = json_object_get(row, "inserted");

	plug_step(p, "block_resize",
		  json_pack("{s:s, s:I}", "node-name", json_get_str(inserted, "node-name", ""),
			    "size", (json_int_t)d->size_mib * (json_int_t)MIB),
		  NULL, NULL, what);
	touch(p, d);
}

/* QEMU would shrink a disk without a word. */
static int check_growth(const struct disk *d, const json_t *row, struct err *err)
{
	const json_t *image = json_object_get(json_object_get(row, "inserted"), "image");
	uint64_t now = (uint64_t)json_get_int(image, "virtual-size", 0);

	if (d->size_mib * MIB >= now)
		return 0;
	return err_set(err, EINVAL,
		       "disk '%s' has %llu MiB already: a disk can only grow (asked for %llu MiB)",
		       d->name, (unsigned long long)(now / MIB), (unsigned long long)d->size_mib);
}

int plug_disk_change_steps(struct plug *p, const struct disk *before, const struct disk *d,
			   struct err *err)
{
	const json_t *row = find_disk(p, before, err);
	const char *id = json_get_str(row, "device", "");
	AUTO_FREE char *what = disk_words(id, d);
	int r = 0;

	if (!row)
		return -ENOENT;
	if (!str_eq(plug_path(before), plug_path(d)))
		return change_medium(p, before, d, row, err);
	if (d->size_mib > before->size_mib && d->media == MEDIA_DISK) {
		r = check_growth(d, row, err);
		if (r == 0)
			grow(p, d, row, what);
	}
	if (r == 0)
		limits(p, json_get_str(row, "qdev", id), before, d, what);
	return r;
}
