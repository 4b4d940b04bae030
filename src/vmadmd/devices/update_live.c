/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of an update that touch what is there already: the running machine follows its
 * definition (plug.h), the disks of a stopped VM grow by qemu-img, vmstated learns what the
 * machine has by now.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/names.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/child.h"
#include "model/model.h"
#include "model/props.h"
#include "qemu/image.h"
#include "vmadmd/change/change.h"
#include "vmadmd/change/update.h"
#include "vmadmd/devices/plug.h"
#include "vmadmd/disks/disks.h"
#include "vmadmd/guest.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"

#define MIB     (UINT64_C(1) << 20)
#define GROW_MS 60000u

void update_how_free(struct update_how *how)
{
	if (!how)
		return;
	free(how->drive);
	free(how->medium);
	free(how);
}

bool update_is_live(const struct change *c)
{
	return guest_runs(guest_find(c->d, c->uuid)) && plug_wanted(c->old, c->new);
}

/* --- another medium --- */

static struct disk *drive_of(struct vm *vm, const char *name, struct err *err)
{
	struct disk *first = NULL;

	for (size_t i = 0; i < vm->ndisks; i++) {
		struct disk *d = vm->disks[i];

		if (d->media != MEDIA_CDROM)
			continue;
		if (str_eq(d->name, name) || str_eq(d->path, name))
			return d;
		first = first ? first : d;
	}
	if (first && !*name)
		return first;
	err_set(err, EINVAL, "VM %s has no CD drive '%s' (want the name of one)", vm->uuid, name);
	return NULL;
}

/* In place of vm_update: the path is what elements are known by, and here it changes. */
int update_medium(struct change *c, struct err *err)
{
	struct disk *d;

	c->new = vm_copy(c->old);
	d = drive_of(c->new, c->how->drive, err);
	if (!d)
		return -EINVAL;
	if (c->how->medium && !file_exists(c->how->medium))
		return err_set(err, EINVAL, "no such file: '%s'", c->how->medium);
	replace_str(&d->path, c->how->medium ? xstrdup(c->how->medium) : NULL);
	disk_set_given(d, "path", d->path != NULL);
	vm_validate(c->new, &c->problems);
	vm_changes_of(c->old, c->new, &c->changes);
	return 0;
}

/* --- the running machine --- */

static bool is_whole(const struct vm_change *one)
{
	return (str_starts(one->path, "disks[") || str_starts(one->path, "nics[")) &&
	       str_ends(one->path, "]") && (!one->old_text || !one->new_text);
}

/* What it took says so in the answer; what it was to take and did not is a refusal. */
static int take_stock(struct change *c, struct err *err)
{
	for (size_t i = 0; i < c->changes.count; i++) {
		struct vm_change *one = &c->changes.items[i];

		if (!is_whole(one) && !str_eq(one->path, "vcpus"))
			continue;
		one->live = c->plug && plug_covers(c->plug, one->path);
		if (!one->live && c->how)
			return err_set(
				err, ENOTSUP,
				"%s cannot be plugged into the running machine (vmadm update "
				"takes it for the next start)",
				one->path);
	}
	return 0;
}

static void on_planned(void *ctx, int r, const struct err *err)
{
	struct change *c = ctx;
	struct err text = *err;

	if (r == 0)
		r = take_stock(c, &text);
	if (r < 0)
		change_fail(c, r, &text);
	else
		change_next(c);
}

int step_plug_plan(struct change *c, struct err *err)
{
	struct guest *g = guest_find(c->d, c->uuid);

	if (!guest_runs(g))
		return 0;
	if (!plug_wanted(c->old, c->new))
		return take_stock(c, err);
	disks_settle_formats(c);
	for (size_t i = 0; i < c->njobs; i++)
		disks_give(g, c->jobs[i].disk->path);
	c->plug = plug_plan(g, c->old, c->new, c->how && c->how->force, on_planned, c);
	return STEP_WAIT;
}

static void on_plugged(void *ctx, int r, const struct err *err)
{
	if (r < 0) /* it has taken back what it did, as far as that went */
		change_fail(ctx, r, err);
	else
		change_next(ctx);
}

int step_plug(struct change *c, struct err *err)
{
	if (!c->plug || plug_empty(c->plug))
		return 0;
	job_progress(c->job, 99, "the running machine");
	plug_run(c->plug, on_plugged, c);
	return STEP_WAIT;
}

static void on_told(void *ctx, int r, int status, const char *body, const struct err *err)
{
	struct change *c = ctx;
	struct err text = *err;

	if (r == 0 && status >= 300)
		r = ask_error(status, body, &text);
	if (r < 0)
		log_warn("vm=%s vmstated takes the change for one of the next start: %s", c->uuid,
			 err_text(&text, r));
	change_next(c);
}

int update_tell(struct change *c, const json_t *names)
{
	const struct ask_spec spec = {.uuid = c->uuid,
				      .verb = "applied",
				      .body = json_deep_copy(names),
				      .uid = c->uid,
				      .command = c->command,
				      .timeout_ms = QMP_ANSWER_MS};

	if (json_object_size(names) == 0) {
		json_decref(spec.body);
		return 0;
	}
	ask_start(c->d, &spec, on_told, c);
	return STEP_WAIT;
}

/* After the definition is written: to vmstated the machine was started like that. */
int step_tell(struct change *c, struct err *err)
{
	return c->plug ? update_tell(c, plug_names(c->plug)) : 0;
}

int step_unmark(struct change *c, struct err *err)
{
	live_point("plug-told");
	return c->live ? live_step_unmark(c, err) : 0;
}

/* --- disks of a stopped VM --- */

static const struct disk *next_to_grow(struct change *c)
{
	for (; c->grown < c->new->ndisks; c->grown++) {
		const struct disk *d = c->new->disks[c->grown];

		for (size_t i = 0; i < c->old->ndisks; i++) {
			const struct disk *before = c->old->disks[i];

			if (str_eq(before->path, d->path) && d->size_mib > before->size_mib &&
			    d->media == MEDIA_DISK && file_exists(d->path))
				return d;
		}
	}
	return NULL;
}

static void on_grown(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct change *c = ctx;
	const struct disk *d = c->new->disks[c->grown];
	struct err err = {0};
	char text[64];

	c->child = NULL;
	if (c->ended) {
		change_fail(c, c->ended, &c->end_why);
		return;
	}
	if (!how->known || how->code != CLD_EXITED || how->status != 0) {
		err_set(&err, EIO, "cannot enlarge disk '%s': qemu-img %s: %.*s", d->path,
			child_exit_text(how, text, sizeof(text)), (int)strcspn(errors, "\n"),
			errors);
		change_fail(c, -EIO, &err);
		return;
	}
	log_info("vm=%s disk enlarged path=%s", c->uuid, d->path);
	c->grown++;
	change_again(c);
}

int step_grow(struct change *c, struct err *err)
{
	const struct disk *d = guest_runs(guest_find(c->d, c->uuid)) ? NULL : next_to_grow(c);
	AUTO_FREE char *size = NULL;
	struct image_info info;
	int r;

	if (!d)
		return 0;
	r = image_probe(d->path, &info, err);
	if (r < 0)
		return r;
	if (info.virtual_size > d->size_mib * MIB)
		return err_set(err, EINVAL,
			       "disk '%s' has %llu MiB already: a disk can only grow (asked for "
			       "%llu MiB)",
			       d->path, (unsigned long long)(info.virtual_size / MIB),
			       (unsigned long long)d->size_mib);
	size = xasprintf("%lluM", (unsigned long long)d->size_mib);
	{
		const char *format = d->format == FORMAT_RAW || (d->format == FORMAT_AUTO &&
								 info.format == IMAGE_RAW)
					     ? "raw"
					     : "qcow2";
		const char *const argv[] = {"qemu-img", "resize", "-q", "-f", format,
					    "--",       d->path,  size, NULL};
		const struct child_spec spec = {
			.argv = argv, .in = -1, .out = -1, .errfd = -1, .timeout_ms = GROW_MS};

		r = child_run(c->d->event, &spec, 4096, on_grown, c, &c->child, err);
	}
	return r < 0 ? r : STEP_WAIT;
}
