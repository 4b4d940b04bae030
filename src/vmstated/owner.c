/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A user of its own for each VM's QEMU, from a range that the administrator gives, when we are
 * root. The number is kept with the VM; files we made for it belong to that user, and a given path
 * that it cannot open is said before QEMU stumbles over it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/image.h"
#include "qemu/recorder.h"
#include "qemu/seed.h"
#include "store/write.h"
#include "vmstated/parts.h"

#define UIDS "uids" /* below lib: uuid to number */

int owner_set_range(struct supervisor *sup, const char *text, struct err *err)
{
	char *end;
	unsigned long first = strtoul(text, &end, 10), last = 0;

	if (end != text && *end == '-')
		last = strtoul(end + 1, &end, 10);
	if (*end || first == 0 || last < first || last >= UINT32_MAX)
		return err_set(err, EINVAL,
			       "guest-uids: '%s' is not a range of users (want FIRST-LAST, such as "
			       "200000-265535)",
			       text);
	if (geteuid() != 0)
		return err_set(err, EPERM,
			       "guest-uids: only root may give guests users of their own");
	sup->first_uid = (uid_t)first;
	sup->last_uid = (uid_t)last;
	return 0;
}

static bool taken(const json_t *uids, uid_t uid)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)uids, key, value) {
		if (json_integer_value(value) == (json_int_t)uid)
			return true;
	}
	return false;
}

/* VMs that are gone give their numbers back. */
static void drop_gone(struct supervisor *sup, json_t *uids)
{
	const char *key;
	json_t *value;
	void *next;

	json_object_foreach_safe (uids, next, key, value) {
		if (!str_eq(key, "format_version") && !guest_by_uuid(sup, key))
			(void)json_object_del(uids, key);
	}
}

static int assign(struct guest *g, uid_t *ret, struct err *err)
{
	struct supervisor *sup = g->sup;
	AUTO_FREE char *path = path_join(sup->paths.lib, UIDS);
	AUTO_JSON json_t *uids = NULL;
	uid_t uid;
	int r;

	if (state_read(path, 1, &uids, NULL) < 0)
		uids = json_object();
	uid = (uid_t)json_get_int(uids, g->uuid, 0);
	if (uid >= sup->first_uid && uid <= sup->last_uid) {
		*ret = uid;
		return 0;
	}
	(void)json_object_del(uids, g->uuid);
	drop_gone(sup, uids);
	for (uid = sup->first_uid; uid <= sup->last_uid && taken(uids, uid); uid++)
		;
	if (uid > sup->last_uid)
		return err_set(err, ENOSPC, "no user is left for %s in guest-uids %u-%u", g->name,
			       sup->first_uid, sup->last_uid);
	json_put_int(uids, g->uuid, uid);
	r = state_write(path, 1, uids, FILE_NO_SYNC, err);
	if (r < 0)
		return r;
	sync_later(sup, path);
	*ret = uid;
	return 0;
}

/* Can the user open what the definition names? Asked with its file-system identity. */
static int try_open(const char *path, bool write, uid_t uid, gid_t gid, const char *what,
		    struct err *err)
{
	AUTO_FD int fd = -1;
	int failed;

	(void)setfsgid(gid);
	(void)setfsuid(uid);
	fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	failed = errno;
	(void)setfsuid(geteuid());
	(void)setfsgid(getegid());
	if (fd >= 0 || failed == ENOENT)
		return 0;
	return err_sys(err, failed, "%s: user %u, whom the guest runs as, cannot open '%s'", what,
		       uid, path);
}

static bool is_ours(const struct guest *g, const char *path)
{
	AUTO_FREE char *dir = path_of_data(&g->sup->paths, g->uuid, "");

	return str_starts(path, dir);
}

static int give(const char *path, uid_t uid, gid_t gid, struct err *err)
{
	if (lchown(path, uid, gid) < 0 && errno != ENOENT)
		return err_sys(err, errno, "cannot give '%s' to user %u", path, uid);
	return 0;
}

/*
 * Its directories stay ours: a guest that breaks out of QEMU must not replace our state files. It
 * may make files in the run directory (its VNC socket), and reach its disks in the other.
 */
static int open_dirs(struct guest *g, struct err *err)
{
	AUTO_FREE char *run = path_of_run(&g->sup->paths, g->uuid, NULL);
	AUTO_FREE char *data = path_of_data(&g->sup->paths, g->uuid, NULL);

	if (chown(run, 0, g->gid) < 0 || chmod(run, 01771) < 0 || chmod(data, 0711) < 0)
		return err_sys(err, errno, "cannot open '%s' to user %u", run, g->uid);
	return 0;
}

static int give_files(struct guest *g, struct err *err)
{
	AUTO_FREE char *in = path_of_run(&g->sup->paths, g->uuid, RECORDER_IN);
	AUTO_FREE char *out = path_of_run(&g->sup->paths, g->uuid, RECORDER_OUT);
	AUTO_FREE char *variables = path_of_data(&g->sup->paths, g->uuid, "nvram.fd");
	AUTO_FREE char *seed = path_of_data(&g->sup->paths, g->uuid, SEED_FILE);
	int r = open_dirs(g, err);

	if (r == 0)
		r = give(in, g->uid, g->gid, err);
	if (r == 0)
		r = give(out, g->uid, g->gid, err);
	if (r == 0)
		r = give(seed, g->uid, g->gid, err);
	return r == 0 ? give(variables, g->uid, g->gid, err) : r;
}

static int give_disks(struct guest *g, struct err *err)
{
	const struct vm *vm = g->started;
	int r = 0;

	for (size_t i = 0; i < vm->ndisks && r == 0; i++) {
		const struct disk *d = vm->disks[i];
		AUTO_FREE char *what = xasprintf("disks[%zu].path", i);

		if (!d->path || image_protocol(d->path))
			continue;
		if (is_ours(g, d->path))
			r = give(d->path, g->uid, g->gid, err);
		else
			r = try_open(d->path, !d->readonly && d->media == MEDIA_DISK, g->uid,
				     g->gid, what, err);
	}
	return r;
}

static int try_boot_files(struct guest *g, struct err *err)
{
	const struct vm *vm = g->started;
	const struct {
		const char *what, *path;
		bool write;
	} files[] = {{"kernel", vm->kernel, false},
		     {"initrd", vm->initrd, false},
		     {"bootrom", vm->bootrom, false},
		     {"nvram", vm->nvram, true}};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(files) && r == 0; i++) {
		if (files[i].path)
			r = try_open(files[i].path, files[i].write, g->uid, g->gid, files[i].what,
				     err);
	}
	return r;
}

/* KVM is open to a group on most hosts. */
static gid_t group_for(uid_t uid, bool kvm)
{
	struct stat st;

	return kvm && stat("/dev/kvm", &st) == 0 ? st.st_gid : (gid_t)uid;
}

int owner_prepare(struct guest *g, bool kvm, struct err *err)
{
	int r;

	g->uid = 0;
	if (g->sup->first_uid == 0)
		return 0;
	r = assign(g, &g->uid, err);
	if (r < 0)
		return r;
	g->gid = group_for(g->uid, kvm);
	r = give_files(g, err);
	if (r == 0)
		r = give_disks(g, err);
	return r == 0 ? try_boot_files(g, err) : r;
}

void owner_apply(const struct guest *g, struct child_spec *spec)
{
	if (g->uid == 0)
		return;
	spec->drop = true;
	spec->uid = g->uid;
	spec->gid = g->gid;
}
