/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datasets we make; see zfs_dataset.h. In the order of a creation: the pool is asked for by a child
 * of the loop, before anything is checked; the dataset is made in a worker once the mark that names
 * it is on the disk. A deletion unmounts it (which can be taken back), removes the definition, and
 * only then destroys it.
 */
#include "vmadmd/disks/zfs_dataset.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/child.h"
#include "model/rows.h"
#include "vmadmd/change/change.h"
#include "vmadmd/disks/zfs.h"
#include "vmadmd/live/live.h"

#define OURS         "drover:vm" /* user property, the VM's uuid */
#define POOL_MAX     64
#define USUAL_POOL   "zones" /* the default of zpool: payloads from elsewhere name it */
#define TOOL_S       120
#define BUSY_MS      10000u
#define BUSY_STEP_MS 100
#define NOT_THERE    "does not exist"
#define NOT_MOUNTED  "not currently mounted"

static bool is_pool_name(const char *name)
{
	if (!name || !isalpha((unsigned char)*name) || strlen(name) > POOL_MAX)
		return false;
	for (const char *p = name; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("-_.:/", *p))
			return false;
	}
	return true;
}

/* --- is there such a pool? --- */

static int no_pool(const struct change *c, const char *why, struct err *err)
{
	const char *pool = json_get_str(c->payload, "zpool", "");

	if (str_eq(pool, USUAL_POOL))
		return 0; /* no ZFS here: the disks are files in the data directory */
	return err_set(err, EINVAL,
		       "zpool: there is no pool '%s' here (see zpool list; receive has -z): %.*s",
		       pool, (int)strcspn(why, "\n"), why);
}

/* NAME<tab>AVAILABLE of the pool, and of the VM's dataset when somebody made it before us. */
static void read_pool(struct change *c, const char *out)
{
	const char *pool = json_get_str(c->payload, "zpool", "");
	AUTO_FREE char *name = xasprintf("%s/%s", pool, c->uuid);
	const char *tab = strchr(out, '\t');

	c->room = tab ? strtoull(tab + 1, NULL, 10) : 0;
	if (strstr(out, name))
		log_info("vm=%s dataset '%s' is there and is not ours: used as it is", c->uuid,
			 name);
	else
		c->dataset = steal_ptr(name);
}

static void on_pool(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	struct change *c = ctx;
	struct err err = {0};
	char text[64];
	bool ended = how->known && how->code == CLD_EXITED && !how->timed_out;
	int r = 0;

	c->child = NULL;
	if (*out && ended)
		read_pool(c, out);
	else
		r = no_pool(c, *errors ? errors : child_exit_text(how, text, sizeof(text)), &err);
	if (r < 0)
		change_fail(c, r, &err);
	else
		change_next(c);
}

int dataset_step_pool(struct change *c, struct err *err)
{
	const char *pool = json_get_str(c->payload, "zpool", NULL);
	AUTO_FREE char *own = NULL;
	struct err why = {0};
	int r;

	for (char *p = c->uuid; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	if (!is_pool_name(pool))
		return 0; /* not given, or refused by the check that follows */
	own = xasprintf("%s/%s", pool, c->uuid);
	r = zfs_run(c->d,
		    (const char *const[]){"zfs", "get", "-Hp", "-o", "name,value", "available",
					  pool, own, NULL},
		    on_pool, c, &c->child, &why);
	return r < 0 ? no_pool(c, why.msg, err) : STEP_WAIT;
}

bool dataset_place(struct change *c)
{
	const struct vm *vm = c->new;
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, "");
	AUTO_FREE char *disks = path_of_data(c->d->paths, c->uuid, DATASET_DISKS);
	bool placed = false;

	if (!c->dataset && !(c->old && VM_GIVEN(vm, zpool) && file_exists(disks)))
		return false;
	for (size_t i = 0; i < vm->ndisks; i++) {
		struct disk *disk = vm->disks[i];
		const char *name = disk->path && str_starts(disk->path, data)
					   ? disk->path + strlen(data)
					   : NULL;

		if (!name || DISK_GIVEN(disk, path) || disks_known(c->old, disk->path))
			continue;
		replace_str(&disk->path, xasprintf("%s/%s", disks, name));
		disk_set_given(disk, "path", true);
		placed = true;
	}
	return placed;
}

/* --- blocking --- */

/* `zfs` wherever it lies; what it says, also when it fails. */
static int tool(const char *const *argv, struct strbuf *out, struct err *err)
{
	const char *path = getenv("PATH");
	AUTO_FREE char *with = NULL;

	if (!path || !strstr(path, "/sbin")) {
		with = xasprintf("%s:/usr/sbin:/sbin", path ? path : "/usr/bin");
		(void)setenv("PATH", with, 1);
	}
	return live_tool_text(argv, TOOL_S, out, err);
}

/* tool for one word and the dataset, where `fine` in a refusal is as good as done. */
static int tell(const char *word, const char *name, const char *fine, struct err *err)
{
	const char *const argv[] = {"zfs", word, name, NULL};
	AUTO_STRBUF struct strbuf out = {0};
	int r = tool(argv, &out, err);

	return r < 0 && out.data && strstr(out.data, fine) ? 0 : r;
}

int dataset_make(const struct vmadmd *d, const char *name, const char *uuid, uint32_t quota_gib,
		 const char *compression, struct err *err)
{
	AUTO_FREE char *data = path_of_data(d->paths, uuid, DATASET_DISKS);
	AUTO_FREE char *at = xasprintf("mountpoint=%s", data);
	AUTO_FREE char *ours = xasprintf(OURS "=%s", uuid);
	AUTO_FREE char *quota = NULL, *compressed = NULL;
	const char *argv[13] = {"zfs", "create", "-o", at, "-o", ours};
	AUTO_STRBUF struct strbuf out = {0};
	size_t n = 6;
	int r = dir_make(data, 0711, err);

	if (quota_gib) {
		quota = xasprintf("quota=%" PRIu32 "G", quota_gib);
		argv[n++] = "-o";
		argv[n++] = quota;
	}
	if (compression) {
		compressed = xasprintf("compression=%s", compression);
		argv[n++] = "-o";
		argv[n++] = compressed;
	}
	argv[n] = name;
	return r < 0 ? r : tool(argv, &out, err);
}

static int make_files(struct change *c, struct err *err)
{
	const struct vm *vm = c->new;

	return dataset_make(c->d, c->dataset, c->uuid, VM_GIVEN(vm, quota_gib) ? vm->quota_gib : 0,
			    vm->zfs_root_compression, err);
}

static int made(struct change *c, struct err *err)
{
	log_info("vm=%s dataset made name=%s", c->uuid, c->dataset);
	live_point("dataset");
	return 0;
}

int dataset_step_make(struct change *c, struct err *err)
{
	return c->dataset ? change_work(c, make_files, made, err) : 0;
}

/* 1: there and ours, 0: not there, -EEXIST: of others. */
static int is_ours(const char *name, const char *uuid, struct err *err)
{
	const char *const argv[] = {"zfs", "get", "-H", "-o", "value", OURS, name, NULL};
	AUTO_STRBUF struct strbuf out = {0};
	int r = tool(argv, &out, err);

	if (r < 0)
		return out.data && strstr(out.data, NOT_THERE) ? 0 : r;
	if (out.data && str_starts(out.data, uuid))
		return 1;
	return err_set(err, EEXIST, "dataset '%s' was not made by us", name);
}

int dataset_of(const struct vmadmd *d, const struct vm *vm, char **ret, struct err *err)
{
	AUTO_FREE char *disks = path_of_data(d->paths, vm->uuid, DATASET_DISKS);
	AUTO_FREE char *name = NULL;
	int r;

	*ret = NULL;
	if (!VM_GIVEN(vm, zpool) || !is_pool_name(vm->zpool) || !file_exists(disks))
		return 0;
	name = xasprintf("%s/%s", vm->zpool, vm->uuid);
	r = is_ours(name, vm->uuid, err);
	if (r == 1)
		*ret = steal_ptr(name);
	return r < 0 && r != -EEXIST ? r : 0;
}

int dataset_unmount(const char *name, struct err *err)
{
	return tell("unmount", name, NOT_MOUNTED, err);
}

int dataset_mount(const char *name, const char *uuid, struct err *err)
{
	return tell("mount", name, "already mounted", err);
}

/* -EBUSY: an unmount is not over when umount(8) returns, and nothing tells when it is. */
static int destroy(const char *name, struct err *err)
{
	const char *const argv[] = {"zfs", "destroy", "-r", name, NULL};
	AUTO_STRBUF struct strbuf out = {0};
	int r = tool(argv, &out, err);

	return r < 0 && out.data && strstr(out.data, "busy") ? -EBUSY : r;
}

int dataset_destroy(const char *name, const char *uuid, struct err *err)
{
	const uint64_t deadline = clock_ms() + BUSY_MS;
	int r = is_ours(name, uuid, err);

	if (r != 1)
		return r;
	while ((r = destroy(name, err)) == -EBUSY && clock_ms() < deadline)
		(void)poll(NULL, 0, BUSY_STEP_MS);
	return r;
}
