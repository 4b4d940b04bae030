/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reprovisioning: the boot disk of a VM is made anew from an image, the others stay. The new disk
 * is made beside the old one while the VM may still run; then the VM is stopped by force, the mark
 * says that all is made, and from there it is finished, by us or by our next start: definition,
 * then rename over the old disk. Before that mark it is undone. A VM that ran is started again.
 * Installing: disks a definition asks for that are not there are made, without a start.
 * Source: smartos facts 6.2, 8.37.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/props.h"
#include "net/feed.h"
#include "qemu/image.h"
#include "qemu/imagestore.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/change/change.h"
#include "vmadmd/disks/images.h"
#include "vmadmd/guest.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/snapshot.h"

#define MIB  (1u << 20)
#define MARK "reprovision" /* member of the update mark */
#define TEMP ".provision"  /* behind the disk's path while it is made */

/* --- what is to be --- */

/* The disk the guest boots from. */
static struct disk *boot_disk(const struct vm *vm)
{
	struct disk *first = NULL;

	for (size_t i = 0; i < vm->ndisks; i++) {
		struct disk *d = vm->disks[i];

		if (d->media != MEDIA_DISK)
			continue;
		if (d->boot)
			return d;
		if (!first)
			first = d;
	}
	return first;
}

static struct disk *disk_at(const struct vm *vm, const char *path)
{
	for (size_t i = 0; path && i < vm->ndisks; i++) {
		if (str_eq(vm->disks[i]->path, path))
			return vm->disks[i];
	}
	return NULL;
}

/* The disk is from this image now; by its uuid the size is called image_size. */
static void set_image(struct disk *disk, const char *image, bool by_uuid, uint64_t size_mib)
{
	replace_str(&disk->image, by_uuid ? NULL : xstrdup(image));
	replace_str(&disk->image_uuid, by_uuid ? xstrdup(image) : NULL);
	replace_str(&disk->image_name, NULL);
	disk->size_mib = by_uuid ? 0 : size_mib;
	disk->image_size_mib = by_uuid ? size_mib : 0;
	disk_set_given(disk, "image", !by_uuid);
	disk_set_given(disk, "image_uuid", by_uuid);
	disk_set_given(disk, "image_name", false);
	disk_set_given(disk, "size", !by_uuid);
	disk_set_given(disk, "image_size", by_uuid);
}

/* A disk whose format was settled at its first sight keeps it: vmstated goes by that. */
static void settle_format(const struct change *c, struct disk *disk)
{
	AUTO_FREE char *path = path_of_data(c->d->paths, c->uuid, "formats");
	AUTO_JSON json_t *known = NULL;

	if (disk->format != FORMAT_AUTO)
		return;
	disk->format = FORMAT_QCOW2;
	if (state_read(path, 1, &known, NULL) == 0 &&
	    str_eq(json_get_str(known, disk->path, ""), "raw"))
		disk->format = FORMAT_RAW;
}

static int take_image(struct change *c, const char **ret_image, bool *ret_by_uuid, struct err *err)
{
	const char *name = json_get_str(c->payload, "image", NULL);
	const char *uuid = json_get_str(c->payload, "image_uuid", NULL), *key;
	json_t *value;

	json_object_foreach (c->payload, key, value) {
		if (!str_eq(key, "image") && !str_eq(key, "image_uuid") && !str_eq(key, "uuid"))
			return err_set(err, EINVAL,
				       "%.80s: is not known here (want image or image_uuid)", key);
	}
	if (!name == !uuid)
		return err_set(err, EINVAL, "want one of image and image_uuid");
	if (uuid && !uuid_valid(uuid))
		return err_set(err, EINVAL, "image_uuid: '%.80s' is not a uuid", uuid);
	*ret_image = name ? name : uuid;
	*ret_by_uuid = uuid != NULL;
	return 0;
}

static int check_vm(struct change *c, struct err *err)
{
	const struct catalog_entry *e = change_entry(c, err);

	if (!e)
		return -ENOENT;
	if (e->error)
		return err_set(err, EBUSY,
			       "the definition of VM %s is broken, repair it first: %.300s",
			       c->uuid, e->error);
	c->old = vm_copy(e->vm);
	c->new = vm_copy(e->vm);
	return 0;
}

static int check_snapshots(struct change *c, struct err *err)
{
	AUTO_JSON json_t *index = snap_index(c->d, c->uuid, err);
	AUTO_JSON json_t *told = index ? snap_told(index, false) : NULL;

	if (!index)
		return -EIO;
	if (json_array_size(told) > 0)
		return err_set(err, EBUSY,
			       "VM %s has %zu snapshots, which its boot disk is part of (delete "
			       "them first)",
			       c->uuid, json_array_size(told));
	return 0;
}

static int plan(struct change *c, struct disk *disk, struct err *err)
{
	AUTO_FREE char *base = NULL;
	struct image_info now, image;
	const char *name = NULL;
	bool by_uuid = false;
	int r = take_image(c, &name, &by_uuid, err);

	if (r < 0)
		return r;
	base = image_find(c->d->paths->lib, name);
	if (!base)
		return err_set(err, EINVAL, "no image '%.80s' (vmadm image list)", name);
	r = image_usable(c->d, base, err);
	if (r == 0)
		r = image_probe(base, &image, err);
	if (r == 0)
		r = image_probe(disk->path, &now, err);
	if (r < 0)
		return r;
	if (now.block_device)
		return err_set(err, ENOTSUP, "disk '%s' is a block device", disk->path);
	set_image(disk, name, by_uuid,
		  ((now.virtual_size > image.virtual_size ? now.virtual_size : image.virtual_size) +
		   MIB - 1) /
			  MIB);
	settle_format(c, disk);
	c->jobs[c->njobs++] = (struct disk_job){
		.disk = disk, .base = steal_ptr(base), .temp = xasprintf("%s" TEMP, disk->path)};
	return 0;
}

static int check(struct change *c, struct err *err)
{
	int r = check_vm(c, err);
	struct disk *disk;

	if (r < 0)
		return r;
	if (c->old->indestructible_zoneroot)
		return err_set(err, EBUSY, "indestructible_zoneroot is set, cannot reprovision");
	c->ran = guest_runs(guest_find(c->d, c->uuid));
	r = check_snapshots(c, err);
	disk = boot_disk(c->new);
	if (r == 0 && (!disk || !disk->path || image_protocol(disk->path)))
		r = err_set(err, EINVAL, "VM %s has no disk of its own to boot from", c->uuid);
	return r < 0 ? r : plan(c, disk, err);
}

/* --- marks --- */

static int mark_as(struct change *c, bool made, struct err *err)
{
	const struct disk *disk = c->jobs[0].disk;
	AUTO_JSON json_t *content = json_object();
	json_t *own = json_object();

	json_object_set_new(content, "images", disks_paths(c));
	json_put_bool(own, "made", made);
	json_put_str(own, "path", disk->path);
	json_put_str(own, "temp", c->jobs[0].temp);
	json_put_str(own, "image", disk->image ? disk->image : disk->image_uuid);
	json_put_bool(own, "by_uuid", disk->image_uuid != NULL);
	json_put_int(own, "size", (json_int_t)disk->size_mib + (json_int_t)disk->image_size_mib);
	json_object_set_new(content, MARK, own);
	return mark_write(c->d, c->uuid, MARK_UPDATE, content, err);
}

static int mark_making(struct change *c, struct err *err)
{
	return mark_as(c, false, err);
}

static int mark(struct change *c, struct err *err)
{
	c->touched = c->marked = true;
	return change_work(c, mark_making, NULL, err);
}

static int mark_made(struct change *c, struct err *err)
{
	return mark_as(c, true, err);
}

/* Nobody starts it from here, and what is made is put in place. */
static int made(struct change *c, struct err *err)
{
	return change_work(c, mark_made, NULL, err);
}

/* --- doing it --- */

static int swap(struct vmadmd *d, const char *temp, const char *path, struct err *err)
{
	if (rename(temp, path) < 0)
		return err_sys(err, errno, "cannot put the new disk in place of '%s'", path);
	return parent_sync(d, path, err);
}

static int store_files(struct change *c, struct err *err)
{
	int r = store_update(c->d->paths, c->old, c->new, c->d->sync, err);

	if (r < 0)
		return r;
	r = swap(c->d, c->jobs[0].temp, c->jobs[0].disk->path, err);
	if (r < 0)
		(void)store_update(c->d->paths, c->new, c->old, c->d->sync, NULL);
	else
		mark_remove(c->d, c->uuid, MARK_UPDATE);
	return r;
}

static int stored(struct change *c, struct err *err)
{
	const struct disk *disk = c->jobs[0].disk;

	c->stored = true;
	c->marked = c->touched = false;
	catalog_sync(c->d->catalog);
	log_info("vm=%s reprovisioned path=%s image=%s uid=%u", c->uuid, disk->path,
		 disk->image ? disk->image : disk->image_uuid, c->uid);
	return 0;
}

static int store(struct change *c, struct err *err)
{
	return change_work(c, store_files, stored, err);
}

static int start(struct change *c, struct err *err)
{
	(void)close(c->guest_lock);
	c->guest_lock = -1;
	c->seq = feed_seq(c->d->feed);
	return c->ran ? live_vm_start(c) : 0;
}

static int answer(struct change *c, struct err *err)
{
	AUTO_JSON json_t *out = json_object();

	feed_client_drain(c->d->states);
	json_put_str(out, "uuid", c->uuid);
	json_put_str(out, "state", guest_state(c->d, c->uuid));
	return change_answer(c, out, "reprovisioned");
}

static const change_step steps[] = {
	step_lock, check,      step_job, mark,        step_images, step_stop, step_guest_lock,
	made,      step_begin, store,    step_commit, start,       step_seen, answer,
};

const struct change_kind change_reprovision = {"reprovision", steps, ARRAY_SIZE(steps),
					       disks_undo_update, NULL};

/* --- after our sudden end --- */

static int finish_definition(struct vmadmd *d, const struct vm *vm, const json_t *own,
			     struct err *err)
{
	struct vm *new = vm_copy(vm);
	struct disk *disk = disk_at(new, json_get_str(own, "path", NULL));
	int r = 0;

	if (disk) {
		set_image(disk, json_get_str(own, "image", ""),
			  json_get_bool(own, "by_uuid", false),
			  (uint64_t)json_get_int(own, "size", 0));
		r = store_update(d->paths, vm, new, d->sync, err);
	}
	vm_free(new);
	return r;
}

bool reprovision_recover(struct vmadmd *d, const char *uuid, const json_t *mark, bool runs)
{
	const json_t *own = json_object_get(mark, MARK);
	const char *temp = json_get_str(own, "temp", NULL), *path = json_get_str(own, "path", NULL);
	const struct catalog_entry *e = catalog_by_uuid(d->catalog, uuid);
	bool forward = json_get_bool(own, "made", false) && e && !e->error && !runs;
	struct err err = {0};
	int r = 0;

	if (!own || !temp || !path)
		return false;
	if (forward)
		r = finish_definition(d, e->vm, own, &err);
	if (forward && r == 0 && file_exists(temp))
		r = swap(d, temp, path, &err);
	if (r < 0) {
		log_error("vm=%s a reprovisioning cut short is not finished yet: %s", uuid,
			  err.msg);
		return true;
	}
	if (!forward)
		(void)unlink(temp);
	log_warn("vm=%s a reprovisioning was cut short: %s", uuid,
		 forward ? "finished it" : "the VM is as it was");
	mark_remove(d, uuid, MARK_UPDATE);
	return true;
}

/* --- install --- */

static int check_missing(struct change *c, struct err *err)
{
	int r = check_vm(c, err);

	for (size_t i = 0; r == 0 && i < c->new->ndisks; i++) {
		const struct disk *disk = c->new->disks[i];

		if (disk->path && !image_protocol(disk->path) && !file_exists(disk->path))
			disks_plan_one(c, i);
	}
	for (size_t i = 0; i < c->njobs; i++)
		c->jobs[i].temp = xasprintf("%s" TEMP, c->jobs[i].disk->path);
	if (r == 0)
		r = change_problems(c, err);
	if (r == 0 && c->njobs == 0)
		r = err_set(err, EALREADY, "VM %s is installed already", c->uuid);
	return r;
}

static int mark_missing_files(struct change *c, struct err *err)
{
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, NULL);
	AUTO_JSON json_t *content = json_object();
	int r = dir_make(data, 0700, err);

	json_object_set_new(content, "images", disks_paths(c));
	return r < 0 ? r : mark_write(c->d, c->uuid, MARK_UPDATE, content, err);
}

static int mark_missing(struct change *c, struct err *err)
{
	c->touched = c->marked = true;
	return change_work(c, mark_missing_files, NULL, err);
}

static int place_files(struct change *c, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < c->njobs && r == 0; i++) {
		const struct disk_job *job = &c->jobs[i];

		if (renameat2(AT_FDCWD, job->temp, AT_FDCWD, job->disk->path, RENAME_NOREPLACE) < 0)
			r = err_sys(err, errno, "cannot put disk '%s' in place", job->disk->path);
		if (r == 0)
			r = parent_sync(c->d, job->disk->path, err);
	}
	if (r == 0)
		mark_remove(c->d, c->uuid, MARK_UPDATE);
	return r;
}

static int placed(struct change *c, struct err *err)
{
	c->stored = true;
	c->marked = c->touched = false;
	c->seq = feed_seq(c->d->feed);
	log_info("vm=%s installed disks=%zu uid=%u", c->uuid, c->njobs, c->uid);
	return 0;
}

static int place(struct change *c, struct err *err)
{
	return change_work(c, place_files, placed, err);
}

static const change_step install_steps[] = {
	step_lock, check_missing, step_job, mark_missing, step_images, place, step_seen, answer,
};

const struct change_kind change_install = {"install", install_steps, ARRAY_SIZE(install_steps),
					   disks_undo_update, NULL};
