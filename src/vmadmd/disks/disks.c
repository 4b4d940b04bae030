/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of a VM being made or changed: what must exist is looked for before anything is changed,
 * images are made one after the other, qcow2 by a worker, what is laid out or copied by qemu-img as
 * a child of ours, and removed again when the change fails. An image in the store is cloned (qcow2)
 * or copied (raw).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "api/names.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/child.h"
#include "daemon/daemon.h"
#include "model/props.h"
#include "model/rows.h"
#include "qemu/argv.h"
#include "qemu/image.h"
#include "qemu/imagestore.h"
#include "qemu/source.h"
#include "vmadmd/change/change.h"
#include "vmadmd/disks/disks.h"
#include "vmadmd/disks/images.h"
#include "vmadmd/disks/zfs_dataset.h"
#include "vmadmd/guest.h"
#include "vmadmd/jobs.h"
#include "vmadmd/worker.h"

#define MIB          UINT64_C(1048576)
#define GIB          (1ull << 30)
#define IMAGE_MS     600000u /* qemu-img copying a raw image takes its time */
#define IMAGE_OUTPUT 4096u
#define IMAGE_MODE   0600
#define WHERE_LEN    32
#define PROGRESS_MS  500u

bool disks_known(const struct vm *vm, const char *path)
{
	for (size_t i = 0; vm && i < vm->ndisks; i++) {
		if (str_eq(vm->disks[i]->path, path))
			return true;
	}
	return false;
}

/* --- looking --- */

static void bad(struct change *c, const char *where, const char *fmt, const char *value)
{
	AUTO_FREE char *text = xasprintf("%s '%s'", fmt, value);

	problems_add(&c->problems, PROBLEM_BAD_VALUE, where, where, "%s", text);
}

void disk_set_given(struct disk *disk, const char *key, bool given)
{
	const struct prop *row = prop_find(&disk_props, key, false);
	size_t bit = row ? (size_t)(row - disk_props.rows) : 0;
	uint64_t mask = row ? UINT64_C(1) << bit % 64 : 0;

	if (given)
		disk->given.bits[bit / 64] |= mask;
	else
		disk->given.bits[bit / 64] &= ~mask;
}

void disk_job_done(struct disk_job *job)
{
	free(job->base);
	free(job->temp);
}

/* Where it is made. */
static const char *job_path(const struct disk_job *job)
{
	return job->temp ? job->temp : job->disk->path;
}

uint64_t disks_room_at(const char *path)
{
	AUTO_FREE char *at = xstrdup(path);
	struct statvfs fs;
	char *slash;

	while ((slash = strrchr(at, '/')) && slash > at) {
		*slash = '\0';
		if (statvfs(at, &fs) == 0)
			return (uint64_t)fs.f_bavail * fs.f_frsize;
	}
	return UINT64_MAX;
}

/* A disk of a dataset that is to be made has the room of its pool. */
static uint64_t room_for(const struct change *c, const char *path)
{
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, DATASET_DISKS);
	uint64_t room = c->room ? c->room : UINT64_MAX;
	const struct vm *vm = c->new;
	uint64_t quota = VM_GIVEN(vm, quota_gib) ? vm->quota_gib * GIB : 0;

	if (!c->dataset || !str_starts(path, data))
		return disks_room_at(path);
	return quota && quota < room ? quota : room;
}

/* A whole copy takes what its image takes, what is laid out its size; others begin with little. */
static int plan_room(struct change *c, const struct disk *disk, const char *where, uint64_t need)
{
	bool whole = disk->format == FORMAT_RAW || disk->preallocation >= PREALLOCATION_FALLOC;
	uint64_t room = whole ? room_for(c, disk->path) : UINT64_MAX;

	if (need <= room)
		return 0;
	problems_add(&c->problems, PROBLEM_BAD_VALUE, where, where,
		     "no space for '%s': it takes %" PRIu64 " MiB, %" PRIu64 " MiB are free",
		     disk->path, need / MIB, room / MIB);
	return -ENOSPC;
}

/* The image must be readable and fit into the disk; a disk without size gets the image's. */
static int plan_clone(struct change *c, struct disk *disk, const char *where, const char *base)
{
	struct image_info info;
	struct err err = {0};
	uint64_t size_mib;

	if (image_probe(base, &info, &err) < 0) {
		problems_add(&c->problems, PROBLEM_BAD_VALUE, where, where, "%s", err.msg);
		return -EINVAL;
	}
	size_mib = (info.virtual_size + MIB - 1) / MIB;
	if (disk->image_uuid && !disk->image) {
		disk->size_mib = disk->image_size_mib;
	} else if (disk->size_mib == 0) {
		disk->size_mib = size_mib;
		disk_set_given(disk, "size", true);
	}
	if (disk->size_mib >= size_mib)
		return plan_room(c, disk, where, info.allocated_size);
	problems_add(&c->problems, PROBLEM_BAD_VALUE, where, where,
		     "%" PRIu64 " MiB is less than the %" PRIu64 " MiB of image '%s'",
		     disk->size_mib, size_mib, base);
	return -EINVAL;
}

void disks_give(const struct guest *g, const char *path)
{
	AUTO_FREE char *proc =
		xasprintf("/proc/%lld", (long long)json_get_int(g->facts, FACT_PID, 0));
	struct stat st;

	if (geteuid() != 0 || stat(proc, &st) < 0 || st.st_uid == 0)
		return;
	if (lchown(path, st.st_uid, st.st_gid) < 0)
		log_warn("vm=%s owner of '%s' not set: %s", g->uuid, path, strerror(errno));
}

/* What qemu-img cannot lay out is refused here, and so is what there is no room for. */
static int plan_layout(struct change *c, const struct disk *disk, const char *where,
		       const char *base)
{
	const char *why = NULL;

	if (disk->preallocation == PREALLOCATION_OFF)
		return 0;
	if (base && disk->format != FORMAT_RAW)
		why = "a disk on an image is not laid out ahead (want format raw)";
	else if (disk->format == FORMAT_RAW && disk->preallocation == PREALLOCATION_METADATA)
		why = "a raw disk has no metadata (want falloc or full)";
	if (!why && disk->preallocation >= PREALLOCATION_FALLOC)
		return plan_room(c, disk, where, disk->size_mib * MIB);
	if (why)
		problems_add(&c->problems, PROBLEM_BAD_VALUE, where, "disks.*.preallocation", "%s",
			     why);
	return why ? -EINVAL : 0;
}

static void plan_new_image(struct change *c, struct disk *disk, const char *where)
{
	const char *image = disk->image ? disk->image : disk->image_uuid;
	AUTO_FREE char *base = NULL;
	struct err err = {0};

	if (file_exists(disk->path)) {
		bad(c, where, "a file is there already (set nocreate to use it):", disk->path);
		return;
	}
	if (image) {
		base = image_find(c->d->paths->lib, image);
		if (!base) {
			problems_add(&c->problems, PROBLEM_BAD_VALUE, where, where,
				     "no image '%s' (want a file in %s/images or an absolute path)",
				     image, c->d->paths->lib);
			return;
		}
		if (image_usable(c->d, base, &err) < 0) {
			problems_add(&c->problems, PROBLEM_BAD_VALUE, where, where, "%s", err.msg);
			return;
		}
		if (plan_clone(c, disk, where, base) < 0)
			return;
	}
	if (plan_layout(c, disk, where, base) < 0)
		return;
	c->jobs[c->njobs++] = (struct disk_job){.disk = disk, .base = steal_ptr(base)};
}

static void plan_source(struct change *c, const struct disk *disk, const char *where)
{
	AUTO_JSON json_t *source = NULL;
	struct err err = {0};

	if (source_parse(disk->path, &source, &err) < 0 ||
	    source_driver_check(disk->path, &err) < 0)
		problems_add(&c->problems, PROBLEM_BAD_VALUE, where, where, "%s", err.msg);
}

void disks_plan_one(struct change *c, size_t i)
{
	struct disk *disk = c->new->disks[i];
	char where[WHERE_LEN];
	bool make = disk->media == MEDIA_DISK && !disk->nocreate &&
		    (disk->size_mib > 0 || disk->image || disk->image_uuid);

	(void)snprintf(where, sizeof(where), "disks[%zu]", i);
	if (!disk->path)
		return;
	if (image_protocol(disk->path)) {
		plan_source(c, disk, where);
		return;
	}
	if (make)
		plan_new_image(c, disk, where);
	else if (!file_exists(disk->path))
		bad(c, where, "no such file (give size to have one made):", disk->path);
}

/* Files a definition names beside disks; only what the change brings in is looked at. */
static void plan_files(struct change *c)
{
	const struct {
		const char *what, *path, *old;
	} files[] = {
		{"kernel", c->new->kernel, c->old ? c->old->kernel : NULL},
		{"initrd", c->new->initrd, c->old ? c->old->initrd : NULL},
		{"bootrom", c->new->bootrom, c->old ? c->old->bootrom : NULL},
		{"configfile", c->new->configfile, c->old ? c->old->configfile : NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (files[i].path && *files[i].path && !str_eq(files[i].path, files[i].old) &&
		    !file_exists(files[i].path))
			bad(c, files[i].what, "no such file:", files[i].path);
	}
}

void disks_fill(const struct vmadmd *d, struct vm *vm)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		struct disk *disk = vm->disks[i];
		AUTO_FREE char *base = disk->image_uuid && disk->image_size_mib == 0
					       ? image_find(d->paths->lib, disk->image_uuid)
					       : NULL;
		struct image_info info;

		if (!base || image_probe(base, &info, NULL) < 0)
			continue;
		disk->image_size_mib = (info.virtual_size + MIB - 1) / MIB;
		disk_set_given(disk, "image_size", true);
	}
}

/*
 * A running machine must be told; once told, the definition says it too, so that what the guest
 * writes into the disk is never taken for a format.
 */
void disks_settle_formats(struct change *c)
{
	for (size_t i = 0; i < c->new->ndisks; i++) {
		struct disk *disk = c->new->disks[i];
		struct image_info info;

		if (disk->format != FORMAT_AUTO || disk->media != MEDIA_DISK ||
		    disks_known(c->old, disk->path) || image_probe(disk->path, &info, NULL) < 0)
			continue;
		disk->format = info.format == IMAGE_QCOW2 ? FORMAT_QCOW2 : FORMAT_RAW;
		disk_set_given(disk, "format", true);
	}
}

int disks_plan(struct change *c, struct err *err)
{
	plan_files(c);
	for (size_t i = 0; i < c->new->ndisks; i++) {
		if (!disks_known(c->old, c->new->disks[i]->path))
			disks_plan_one(c, i);
	}
	return change_problems(c, err);
}

json_t *disks_paths(const struct change *c)
{
	json_t *list = json_array();

	for (size_t i = 0; i < c->njobs; i++)
		json_array_append_new(list, json_string(job_path(&c->jobs[i])));
	return list;
}

/* --- making --- */

/* A raw copy has its image's size; what is wanted may be more. */
static int image_enlarge(int fd, const struct disk *disk)
{
	off_t want = (off_t)(disk->size_mib * MIB);
	struct stat st;

	if (disk->format != FORMAT_RAW)
		return 0;
	if (fstat(fd, &st) < 0)
		return -1;
	return S_ISREG(st.st_mode) && st.st_size < want ? ftruncate(fd, want) : 0;
}

static bool in_data(const struct change *c, const char *path)
{
	AUTO_FREE char *inside = path_of_data(c->d->paths, c->uuid, "");

	return str_starts(path, inside) && !strchr(path + strlen(inside), '/');
}

static int image_settle(const struct change *c, const struct disk_job *job, struct err *err)
{
	const char *path = job_path(job);
	AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 || fchmod(fd, IMAGE_MODE) < 0)
		return err_sys(err, errno, "cannot open the new disk '%s'", path);
	if (image_enlarge(fd, job->disk) < 0 || (c->d->sync == FILE_SYNC && fsync(fd) < 0))
		return err_sys(err, errno, "cannot write the new disk '%s'", path);
	/* The folder of a VM that is new is synced when it is installed; without that it goes. */
	return c->data_made && in_data(c, path) ? 0 : parent_sync(c->d, path, err);
}

/* How far qemu-img has come, by the room the image takes. */
static int on_progress(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct change *c = ctx;
	const struct disk_job *job = &c->jobs[c->jobs_done];
	struct stat now, whole;
	const char *name;
	size_t part = 0;

	if (!c->job_begun)
		return 0; /* made meanwhile; the next one begins anew */
	name = strrchr(job->disk->path, '/');
	if (job->base && stat(job_path(job), &now) == 0 && stat(job->base, &whole) == 0 &&
	    whole.st_blocks > 0)
		part = (size_t)(now.st_blocks * 100 / whole.st_blocks);
	if (part > 99)
		part = 99;
	if (c->job)
		job_progress(c->job, (unsigned)((c->jobs_done * 100 + part) / c->njobs),
			     name ? name + 1 : job->disk->path);
	if (c->child)
		(void)timer_set(c->d->event, &c->progress, PROGRESS_MS, on_progress, c);
	return 0;
}

void disks_stop(struct change *c)
{
	if (c->child)
		(void)child_kill(c->child, SIGKILL, false);
}

static int settle_work(void *arg, struct err *err)
{
	const struct change *c = arg;

	return image_settle(c, &c->jobs[c->jobs_done], err);
}

static void on_settled(void *ctx, int r, const struct err *err)
{
	struct change *c = ctx;

	c->worker = NULL;
	if (r < 0) {
		change_fail(c, r, err);
		return;
	}
	log_info("vm=%s disk made path=%s", c->uuid, c->jobs[c->jobs_done].disk->path);
	c->job_begun = false;
	c->jobs_done++;
	change_again(c);
}

static void on_made(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct change *c = ctx;
	const struct disk *disk = c->jobs[c->jobs_done].disk;
	struct err err = {0};
	char text[64];
	int r = 0;

	c->child = NULL;
	if (c->ended) {
		change_fail(c, c->ended, &c->end_why);
		return;
	}
	if (!how->known || how->code != CLD_EXITED || how->status != 0)
		r = err_set(&err, EIO, "cannot make disk '%s': qemu-img %s: %.*s", disk->path,
			    child_exit_text(how, text, sizeof(text)), (int)strcspn(errors, "\n"),
			    errors);
	else
		r = worker_run(c->d, settle_work, c, on_settled, c, &c->worker, &err);
	if (r < 0)
		change_fail(c, r, &err);
}

/* What is to be made, as qemu-img or image_create is told. */
static struct disk disk_of_job(const struct disk_job *job)
{
	struct disk disk = *job->disk;

	disk.path = (char *)(uintptr_t)job_path(job);
	if (!disk.image && disk.image_uuid)
		disk.size_mib = disk.image_size_mib;
	return disk;
}

static int run_qemu_img(struct change *c, struct err *err)
{
	const struct disk_job *job = &c->jobs[c->jobs_done];
	const struct disk disk = disk_of_job(job);
	struct argv argv = {0};
	AUTO_FD int lock = worker_lock(c->d, err);
	/* An orphan would go on writing while our next start tidies up. */
	struct child_spec spec = {.in = -1,
				  .out = -1,
				  .errfd = -1,
				  .timeout_ms = IMAGE_MS,
				  .keep = &lock,
				  .nkeep = 1,
				  .dies_with_us = true};
	int r;

	if (lock < 0)
		return lock;
	image_create_argv(&disk, job->base, &argv);
	spec.argv = (const char *const *)argv.items;
	r = child_run(c->d->event, &spec, IMAGE_OUTPUT, on_made, c, &c->child, err);
	argv_done(&argv);
	(void)on_progress(NULL, 0, c);
	return r;
}

static int create_work(void *arg, struct err *err)
{
	const struct change *c = arg;
	const struct disk_job *job = &c->jobs[c->jobs_done];
	const struct disk disk = disk_of_job(job);
	int r = image_create(disk.path, disk.size_mib * MIB, job->base, err);

	return r == 0 ? image_settle(c, job, err) : r;
}

static void on_created(void *ctx, int r, const struct err *err)
{
	struct change *c = ctx;

	if (r == -EEXIST)
		c->job_begun = false; /* it is somebody else's */
	on_settled(ctx, r, err);
}

int disks_make(struct change *c, struct err *err)
{
	const struct disk disk = disk_of_job(&c->jobs[c->jobs_done]);

	c->job_begun = true;
	if (image_needs_tool(&disk))
		return run_qemu_img(c, err);
	return worker_run(c->d, create_work, c, on_created, c, &c->worker, err);
}

void disks_undo(struct change *c)
{
	size_t count = c->jobs_done + (c->job_begun ? 1 : 0);

	for (size_t i = 0; i < count && i < c->njobs; i++) {
		const char *path = job_path(&c->jobs[i]);

		if (unlink(path) < 0 && errno != ENOENT)
			log_error("vm=%s disk of the failed change not removed path=%s: %s",
				  c->uuid, path, strerror(errno));
	}
	c->jobs_done = 0;
	c->job_begun = false;
}

int disks_undo_update(struct change *c, struct err *err)
{
	disks_undo(c);
	if (c->marked)
		mark_remove(c->d, c->uuid, MARK_UPDATE);
	return 0;
}

void disks_drop_removed(const struct vmadmd *d, const char *uuid, const struct vm *old,
			const struct vm *new)
{
	AUTO_FREE char *inside = path_of_data(d->paths, uuid, "");

	for (size_t i = 0; i < old->ndisks; i++) {
		const char *path = old->disks[i]->path;

		const char *name = path && str_starts(path, inside) ? path + strlen(inside) : NULL;

		if (name && str_starts(name, DATASET_DISKS "/"))
			name += strlen(DATASET_DISKS "/");
		if (!name || strchr(name, '/') || disks_known(new, path) ||
		    old->disks[i]->media != MEDIA_DISK)
			continue;
		if (unlink(path) == 0)
			log_info("vm=%s disk removed path=%s", uuid, path);
		else if (errno != ENOENT)
			log_error("vm=%s removed disk's file stays path=%s: %s", uuid, path,
				  strerror(errno));
	}
}
