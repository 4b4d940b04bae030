/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marks of changes under way. They are durable and written before anything else is, so that after
 * SIGKILL or a power cut our next start makes every VM wholly there or wholly gone: a creation is
 * undone, images of an update nobody names are removed, a deletion whose definition is gone is
 * finished. Nothing is touched while something that runs holds the VM's lock.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/change/change.h"
#include "vmadmd/disks/zfs_dataset.h"
#include "vmadmd/live/live.h"
#include "vmadmd/vmadmd.h"

#define MARK_VERSION  1
#define UPDATE_MARK   "changing"
#define CREATE_MARK   "provisioning"
#define DELETE_PREFIX ".deleting-"
#define LOCK_SUFFIX   ".change" /* of store_lock; we are its only user */

static char *mark_path(const struct vmadmd *d, const char *uuid, enum mark mark)
{
	switch (mark) {
	case MARK_CREATE:
		return path_of_data(d->paths, uuid, CREATE_MARK);
	case MARK_UPDATE:
		return path_of_data(d->paths, uuid, UPDATE_MARK);
	case MARK_DELETE: /* beside the directory that goes */
		break;
	}
	return xasprintf("%s/" DELETE_PREFIX "%s", d->paths->lib, uuid);
}

int parent_sync(const struct vmadmd *d, const char *path, struct err *err)
{
	AUTO_FREE char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');
	AUTO_FD int fd = -1;

	if (d->sync == FILE_NO_SYNC || !slash || slash == dir)
		return 0;
	*slash = '\0';
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return err_sys(err, errno, "cannot write directory '%s'", dir);
	return 0;
}

int mark_new(struct vmadmd *d, const char *uuid, const json_t *content, struct err *err)
{
	AUTO_FREE char *data = path_of_data(d->paths, uuid, NULL);
	AUTO_FREE char *temp = xasprintf("%s/.%s.new", d->paths->lib, uuid);
	AUTO_FREE char *mark = path_join(temp, CREATE_MARK);
	int r = dir_remove_tree(temp, err);

	if (r == 0)
		r = dir_make(temp, 0700, err);
	if (r == 0)
		r = state_write(mark, MARK_VERSION, content, d->sync, err);
	if (r == 0 && renameat2(AT_FDCWD, temp, AT_FDCWD, data, RENAME_NOREPLACE) < 0)
		r = err_sys(err, errno, "cannot make the data directory '%s'", data);
	if (r == 0)
		return parent_sync(d, data, err);
	(void)dir_remove_tree(temp, NULL);
	return r;
}

int mark_write(struct vmadmd *d, const char *uuid, enum mark mark, const json_t *content,
	       struct err *err)
{
	AUTO_FREE char *path = mark_path(d, uuid, mark);

	return state_write(path, MARK_VERSION, content, d->sync, err);
}

void mark_remove(struct vmadmd *d, const char *uuid, enum mark mark)
{
	AUTO_FREE char *path = mark_path(d, uuid, mark);
	struct err err = {0};

	if (unlink(path) < 0 && errno != ENOENT)
		log_error("vm=%s mark '%s' not removed: %s", uuid, path, strerror(errno));
	if (parent_sync(d, path, &err) < 0)
		log_error("vm=%s %s", uuid, err.msg);
}

int guest_lock_take(struct vmadmd *d, const char *uuid, int *ret_fd, struct err *err)
{
	AUTO_FREE char *path = path_of_data(d->paths, uuid, "lock");
	AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	*ret_fd = -1;
	if (fd < 0 && errno == ENOENT)
		return 0; /* no data directory: never started */
	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? 1 : err_sys(err, errno, "cannot lock '%s'", path);
	*ret_fd = steal_fd(&fd);
	return 0;
}

static bool in_use(const struct vm *vm, const char *path)
{
	for (size_t i = 0; vm && i < vm->ndisks; i++) {
		if (str_eq(vm->disks[i]->path, path))
			return true;
	}
	return false;
}

static void remove_images(const char *uuid, const json_t *mark, const struct vm *keep)
{
	const json_t *images = json_object_get(mark, "images");
	json_t *image;
	size_t i;

	json_array_foreach (images, i, image) {
		const char *path = json_string_value(image);

		if (!path || path[0] != '/' || in_use(keep, path))
			continue;
		if (unlink(path) == 0)
			log_info("vm=%s disk of a change cut short removed path=%s", uuid, path);
		else if (errno != ENOENT)
			log_error("vm=%s disk of a change cut short not removed path=%s: %s", uuid,
				  path, strerror(errno));
	}
}

void data_remove(struct vmadmd *d, const char *uuid)
{
	AUTO_FREE char *data = path_of_data(d->paths, uuid, NULL);
	AUTO_JSON json_t *content = json_object();
	struct err err = {0};

	/* The mark within may go before the rest: this one does not. */
	if (mark_write(d, uuid, MARK_DELETE, content, &err) < 0)
		log_error("vm=%s %s", uuid, err.msg);
	if (dir_remove_tree(data, &err) < 0)
		log_error("vm=%s leftover not removed: %s", uuid, err.msg);
	else
		mark_remove(d, uuid, MARK_DELETE);
}

/* --- at the start --- */

int mark_dataset(struct vmadmd *d, const char *uuid, enum mark mark,
		 int (*fn)(const char *name, const char *uuid, struct err *err), struct err *err)
{
	AUTO_FREE char *path = mark_path(d, uuid, mark);
	AUTO_JSON json_t *content = NULL;
	const char *name;

	if (state_read(path, MARK_VERSION, &content, NULL) < 0)
		return 0;
	name = json_get_str(content, MARK_DATASET, NULL);
	return name ? fn(name, uuid, err) : 0;
}

/* False: it stays, with the mark, and our next start tries again. */
static bool clean_dataset(struct vmadmd *d, const char *uuid, enum mark mark,
			  int (*fn)(const char *name, const char *uuid, struct err *err))
{
	struct err err = {0};
	int r = mark_dataset(d, uuid, mark, fn, &err);

	if (r < 0)
		log_error("vm=%s dataset of a change cut short: %s", uuid, err_text(&err, r));
	return r == 0;
}

static void clean_create(struct vmadmd *d, const char *uuid, const json_t *mark)
{
	AUTO_FREE char *definition = path_join(d->paths->etc, uuid);
	struct err err = {0};

	if (!clean_dataset(d, uuid, MARK_CREATE, dataset_destroy))
		return;
	log_warn("vm=%s creation was cut short: removed what it had made", uuid);
	remove_images(uuid, mark, NULL);
	if (dir_remove_tree(definition, &err) < 0)
		log_error("vm=%s leftover not removed: %s", uuid, err.msg);
	else
		data_remove(d, uuid);
}

static void clean_update(struct vmadmd *d, const char *uuid, const json_t *mark)
{
	const struct catalog_entry *e = catalog_by_uuid(d->catalog, uuid);

	if (reprovision_recover(d, uuid, mark, false))
		return;
	if (e && !e->error)
		remove_images(uuid, mark, e->vm);
	else
		log_warn("vm=%s an update was cut short; disks it may have made stay, since the "
			 "definition cannot be read",
			 uuid);
	mark_remove(d, uuid, MARK_UPDATE);
}

/* A definition that is there, or that cannot be judged, keeps its data. */
static bool definition_left(struct vmadmd *d, const char *uuid, const json_t *mark)
{
	const char *file = json_get_str(mark, "file", NULL);
	const struct catalog_problem *problems;
	size_t count = catalog_problems(d->catalog, &problems);

	if (catalog_by_uuid(d->catalog, uuid))
		return true;
	for (size_t i = 0; i < count; i++) {
		if (file && str_eq(problems[i].file, file))
			return true;
	}
	return false;
}

static void clean_delete(struct vmadmd *d, const char *uuid, const json_t *mark)
{
	bool left = definition_left(d, uuid, mark);

	if (!clean_dataset(d, uuid, MARK_DELETE, left ? dataset_mount : dataset_destroy))
		return;
	if (left) {
		log_warn("vm=%s a deletion was cut short before it began: the VM stays", uuid);
		mark_remove(d, uuid, MARK_DELETE);
	} else {
		log_warn("vm=%s a deletion was cut short: finished it", uuid);
		data_remove(d, uuid);
	}
}

static void (*const clean[MARK_COUNT])(struct vmadmd *d, const char *uuid, const json_t *mark) = {
	[MARK_CREATE] = clean_create,
	[MARK_UPDATE] = clean_update,
	[MARK_DELETE] = clean_delete,
};

void mark_clean_update(struct vmadmd *d, const char *uuid)
{
	AUTO_FREE char *path = mark_path(d, uuid, MARK_UPDATE);
	AUTO_JSON json_t *content = NULL;

	if (state_read(path, MARK_VERSION, &content, NULL) == 0)
		clean_update(d, uuid, content);
}

/* The machine may have the images of an update until its journal is worked off (plug_back.c); of
 * one without a journal it has none yet. */
static bool waits_for_journal(struct vmadmd *d, const char *uuid)
{
	AUTO_JSON json_t *journal = live_journal(d, uuid);

	return str_eq(json_get_str(journal, "op", ""), "plug");
}

static void clean_running(struct vmadmd *d, const char *uuid, enum mark mark, const json_t *content)
{
	if (mark != MARK_UPDATE) {
		log_warn("vm=%s a change was cut short, but the VM runs: left as it is", uuid);
		mark_remove(d, uuid, mark);
	} else if (reprovision_recover(d, uuid, content, true)) {
		mark_remove(d, uuid, mark);
	} else if (!waits_for_journal(d, uuid)) {
		clean_update(d, uuid, content);
	}
}

static void clean_one(struct vmadmd *d, const char *uuid, enum mark mark)
{
	AUTO_FREE char *path = mark_path(d, uuid, mark);
	AUTO_JSON json_t *content = NULL;
	struct err err = {0};
	AUTO_FD int lock = -1;
	int r = state_read(path, MARK_VERSION, &content, &err);

	if (r == -ENOENT)
		return;
	if (r < 0) {
		log_error("vm=%s a change was cut short, but its mark cannot be read, so nothing "
			  "was tidied up: %s",
			  uuid, err.msg);
		return;
	}
	r = guest_lock_take(d, uuid, &lock, &err);
	if (r == 0)
		clean[mark](d, uuid, content);
	else if (r > 0)
		clean_running(d, uuid, mark, content);
	else
		log_error("vm=%s %s", uuid, err.msg);
}

/* What file_write had begun: ".NAME.XXXXXX" beside NAME, a mark's name or its beginning. */
static void remove_temporaries(const char *folder, const char *name)
{
	DIR *dir = opendir(folder);
	AUTO_FREE char *begin = xasprintf(".%s", name);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)) != NULL) {
		AUTO_FREE char *path = path_join(folder, entry->d_name);

		if (str_starts(entry->d_name, begin))
			(void)unlink(path);
	}
	if (dir)
		(void)closedir(dir);
}

void lock_forget(const struct vmadmd *d, const char *uuid)
{
	AUTO_FREE char *path = xasprintf("%s/%s" LOCK_SUFFIX, d->paths->run, uuid);

	if (!catalog_by_uuid(d->catalog, uuid))
		(void)unlink(path);
}

/* Locks of VMs that are not there; of changes under way there are none yet. */
static void clean_locks(struct vmadmd *d)
{
	DIR *dir = opendir(d->paths->run);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)) != NULL) {
		AUTO_FREE char *uuid = xstrndup(entry->d_name, UUID_LEN);

		if (uuid_valid(uuid) && str_eq(entry->d_name + UUID_LEN, LOCK_SUFFIX))
			lock_forget(d, uuid);
	}
	if (dir)
		(void)closedir(dir);
}

void marks_clean(struct vmadmd *d)
{
	DIR *dir = opendir(d->paths->lib);
	const struct dirent *entry;
	size_t skip = strlen(DELETE_PREFIX);

	remove_temporaries(d->paths->lib, DELETE_PREFIX);
	while (dir && (entry = readdir(dir)) != NULL) {
		if (uuid_valid(entry->d_name)) {
			AUTO_FREE char *data = path_of_data(d->paths, entry->d_name, NULL);

			clean_one(d, entry->d_name, MARK_CREATE);
			clean_one(d, entry->d_name, MARK_UPDATE);
			remove_temporaries(data, UPDATE_MARK);
		} else if (str_starts(entry->d_name, DELETE_PREFIX) &&
			   uuid_valid(entry->d_name + skip)) {
			clean_one(d, entry->d_name + skip, MARK_DELETE);
		}
	}
	if (dir)
		(void)closedir(dir);
	catalog_sync(d->catalog);
	clean_locks(d);
}
