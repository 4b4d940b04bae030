/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holds for one boot only: the boot order and media that whoever starts a VM gives along. It
 * is laid over the copy of the definition the start takes, kept with it in started.json, and gone
 * with the next start, a reboot by a new process included. So "what is pending" is the definition
 * with the same laid over, compared with what was started. Source: smartos facts 6.2, start.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/props.h"
#include "qemu/image.h"
#include "store/catalog.h"
#include "vmstated/parts.h"

#define MEDIA_MAX 8
#define ONCE_NAME "once" /* of a disk that is there for one boot, with a number */

/* "cd", "order=cd", "once=d" and combinations, as vmadm start takes them. */
static char *boot_of(const char *order)
{
	return strchr(order, '=') && strchr(order, '=') < order + strcspn(order, ",")
		       ? xstrdup(order)
		       : xasprintf("order=%s", order);
}

static struct disk *disk_of(const struct vm *vm, const char *path)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		if (str_eq(vm->disks[i]->path, path))
			return vm->disks[i];
	}
	return NULL;
}

static bool within(const char *dir, const char *path)
{
	AUTO_FREE char *real = dir ? realpath(dir, NULL) : NULL;
	size_t len = real ? strlen(real) : 0;

	return len && strncmp(path, real, len) == 0 && path[len] == '/';
}

/*
 * The file of one medium: a disk of the VM, a file in its data directory (where relative paths
 * start) or among the images; for an admin any file. NULL with err: who may start a VM is not to
 * read the host through it. Caller frees.
 */
static char *file_of(const struct guest *g, const char *path, bool admin, struct err *err)
{
	AUTO_FREE char *data = path_of_data(&g->sup->paths, g->uuid, NULL);
	AUTO_FREE char *images = path_join(g->sup->paths.lib, "images");
	AUTO_FREE char *whole = *path == '/' ? xstrdup(path) : path_join(data, path);
	AUTO_FREE char *real = NULL;
	struct stat st;

	if (disk_of(g->def->vm, path))
		return xstrdup(path);
	real = realpath(whole, NULL);
	if (real && (admin || within(data, real) || within(images, real)) && stat(real, &st) == 0 &&
	    (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		return steal_ptr(real);
	(void)err_set(err, EINVAL, "Cannot find disk: %s", path);
	return NULL;
}

static int check_medium(const struct guest *g, json_t *one, bool admin, struct err *err)
{
	const char *model = json_get_str(one, "model", "");
	const char *media = json_get_str(one, "media", "disk");
	AUTO_FREE char *path = NULL;

	if (enum_value(disk_model_names, DISK_MODEL_COUNT, model) < 0)
		return err_set(err, EINVAL,
			       "\"%s\" is not a valid disk model for kvm brand. Valid are: "
			       "virtio,scsi,ide",
			       model);
	if (enum_value(disk_media_names, DISK_MEDIA_COUNT, media) < 0)
		return err_set(err, EINVAL, "media: '%s' (want disk or cdrom)", media);
	path = file_of(g, json_get_str(one, "path", ""), admin, err);
	if (!path)
		return -EINVAL;
	json_put_str(one, "path", path);
	return 0;
}

int once_take(const struct guest *g, const json_t *body, bool admin, json_t **ret, struct err *err)
{
	const char *order = json_get_str(body, "order", NULL);
	AUTO_JSON json_t *media = json_deep_copy(json_object_get(body, "media"));
	AUTO_JSON json_t *once = json_object();
	AUTO_FREE char *boot = order ? boot_of(order) : NULL;
	json_t *one;
	size_t i;
	int r;

	if (media && (!json_is_array(media) || json_array_size(media) > MEDIA_MAX))
		return err_set(err, EINVAL, "media: want an array of at most %d", MEDIA_MAX);
	if (!boot && !json_array_size(media)) {
		*ret = NULL;
		return 0;
	}
	if (!g->def)
		return err_set(err, ENOENT, "VM %s has no definition any more", g->name);
	json_array_foreach (media, i, one) {
		r = check_medium(g, one, admin, err);
		if (r < 0)
			return r;
	}
	json_put_str(once, "boot", boot);
	if (media)
		(void)json_object_set(once, "media", media);
	*ret = json_incref(once);
	return 0;
}

/* A disk the VM has takes the model for this boot; another one comes behind all. */
static int put_medium(struct vm *vm, const json_t *one, size_t i, struct err *err)
{
	const char *path = json_get_str(one, "path", "");
	struct disk *d = disk_of(vm, path);
	bool known = d != NULL;

	if (!known)
		d = vm_add_disk(vm);
	if (!d)
		return err_set(err, E2BIG, "VM %s has %d disks already", vm->name, VM_DISKS_MAX);
	d->model = (enum disk_model)enum_value(disk_model_names, DISK_MODEL_COUNT,
					       json_get_str(one, "model", ""));
	d->iothread = d->iothread && d->model == DISK_VIRTIO;
	if (known)
		return 0;
	d->media = (enum disk_media)enum_value(disk_media_names, DISK_MEDIA_COUNT,
					       json_get_str(one, "media", "disk"));
	replace_str(&d->name, xasprintf(ONCE_NAME "%zu", i));
	replace_str(&d->path, xstrdup(path));
	disk_keep_path(d);
	d->nocreate = true;
	return 0;
}

int once_apply(struct vm *vm, const json_t *once, struct err *err)
{
	const char *boot = json_get_str(once, "boot", NULL);
	const json_t *one;
	size_t i;
	int r;

	if (boot)
		replace_str(&vm->boot, xstrdup(boot));
	json_array_foreach (json_object_get(once, "media"), i, one) {
		r = put_medium(vm, one, i, err);
		if (r < 0)
			return r;
	}
	return 0;
}

char *once_definition(struct vm *vm)
{
	size_t all = vm->ndisks;
	char *text;

	while (vm->ndisks > 0 && vm->disks[vm->ndisks - 1]->nocreate &&
	       str_starts(vm->disks[vm->ndisks - 1]->name, ONCE_NAME))
		vm->ndisks--;
	text = vm_to_ucl(vm);
	vm->ndisks = all;
	return text;
}

int guest_take_definition(struct guest *g, const json_t *once, struct err *err)
{
	AUTO_VM struct vm *vm = vm_copy(g->def->vm);
	AUTO_PROBLEMS struct problems p = {0};
	int r = once_apply(vm, once, err);

	if (r == 0 && once) {
		vm_validate(vm, &p);
		r = problems_to_err(&p, err);
	}
	if (r < 0)
		return r;
	vm_free(g->started);
	g->started = steal_ptr(vm);
	json_decref(g->once);
	g->once = json_incref((json_t *)once);
	g->pending = false;
	return 0;
}

/* --- what is pending --- */

/* The definition as it is now, as the start that runs would have taken it. */
static struct vm *as_started(const struct guest *g)
{
	struct vm *now = vm_copy(g->def->vm);

	/* What the start itself settled is no difference. */
	for (size_t i = 0; i < now->ndisks; i++) {
		const struct disk *ran = disk_of(g->started, now->disks[i]->path);

		if (ran && now->disks[i]->format == FORMAT_AUTO)
			now->disks[i]->format = ran->format;
	}
	(void)once_apply(now, g->once, NULL);
	for (size_t i = 0; i < now->ndisks; i++) {
		const struct disk *ran = disk_of(g->started, now->disks[i]->path);

		if (ran && str_starts(now->disks[i]->name, ONCE_NAME))
			now->disks[i]->format = ran->format;
	}
	return now;
}

static json_t *value_of(const char *text)
{
	json_t *value = text ? json_loads(text, JSON_DECODE_ANY, NULL) : json_null();

	return value ? value : json_string(text);
}

json_t *guest_pending(const struct guest *g)
{
	json_t *list = json_array();
	AUTO_VM struct vm *now = NULL;
	struct vm_changes changes;

	if (!g->started || !g->def || g->pid <= 0)
		return list;
	now = as_started(g);
	vm_changes_of(g->started, now, &changes);
	for (size_t i = 0; i < changes.count; i++) {
		const struct vm_change *one = &changes.items[i];

		if (one->live)
			continue;
		(void)json_array_append_new(list,
					    json_pack("{s:s, s:o, s:o, s:b}", "path", one->path,
						      "old", value_of(one->old_text), "new",
						      value_of(one->new_text), "live", 0));
	}
	vm_changes_done(&changes);
	return list;
}
