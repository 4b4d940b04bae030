/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and removing VMs on disk. A definition appears and disappears by one rename; what is
 * being made or taken away has a dot name meanwhile, which the catalog does not look at and
 * store_recover removes.
 */
#include "store/write.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/model.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "store/change.h"
#include "ucl/edit.h"
#include "ucl/ucl.h"

#define MAKING   ".new"
#define REMOVING ".gone"

int store_lock(const struct paths *paths, const char *uuid, int *ret_fd, struct err *err)
{
	AUTO_FREE char *path = xasprintf("%s/%s.change", paths->run, uuid);
	AUTO_FD int fd = -1;
	int r;

	if (!uuid_valid(uuid))
		return err_set(err, EINVAL, "'%s' is not a UUID", uuid);
	r = dir_make(paths->run, 0755, err);
	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(err, errno, "cannot open lock '%s'", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK
			       ? err_set(err, EBUSY, "VM %s is being changed by another command",
					 uuid)
			       : err_sys(err, errno, "cannot lock '%s'", path);
	r = change_undo(paths, uuid, err);
	if (r < 0)
		return r;
	*ret_fd = steal_fd(&fd);
	return 0;
}

static char *dotted(const char *dir, const char *uuid, const char *tail)
{
	return xasprintf("%s/.%s%s", dir, uuid, tail);
}

static int sync_dir(const char *path, struct err *err)
{
	AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return err_sys(err, errno, "cannot sync directory '%s'", path);
	return 0;
}

/* --- create --- */

static int write_metadata(const char *dir, const struct vm *vm, enum file_sync sync,
			  struct err *err)
{
	for (size_t i = 0; i < META_COUNT; i++) {
		AUTO_FREE char *path = path_join(dir, meta_kinds[i].file);
		AUTO_FREE char *text = meta_text(vm, i);
		int r;

		if (meta_same(vm, NULL, i))
			continue;
		r = file_write(path, text, strlen(text), meta_kinds[i].mode, sync, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int make_definition(const char *temp, const char *dir, const struct vm *vm,
			   enum file_sync sync, struct err *err)
{
	AUTO_FREE char *config = path_join(temp, "config");
	AUTO_FREE char *text = vm_to_ucl(vm);
	int r = dir_make(temp, 0755, err);

	if (r == 0)
		r = file_write(config, text, strlen(text), 0600, sync, err);
	if (r < 0)
		return r;
	if (renameat2(AT_FDCWD, temp, AT_FDCWD, dir, RENAME_NOREPLACE) < 0) {
		if (errno == EEXIST)
			return err_set(err, EEXIST, "VM with UUID %s already exists", vm->uuid);
		return err_sys(err, errno, "cannot put the definition at '%s'", dir);
	}
	return 0;
}

int store_create(const struct paths *paths, const struct vm *vm, enum file_sync sync,
		 struct err *err)
{
	AUTO_FREE char *dir = path_join(paths->etc, vm->uuid);
	AUTO_FREE char *temp = dotted(paths->etc, vm->uuid, MAKING);
	AUTO_FREE char *data = path_of_data(paths, vm->uuid, NULL);
	AUTO_FREE char *config = path_of_data(paths, vm->uuid, "config");
	bool had_data = file_exists(data), had_config = file_exists(config);
	int r;

	if (!uuid_valid(vm->uuid))
		return err_set(err, EINVAL, "'%s' is not a UUID", vm->uuid);
	if (file_exists(dir))
		return err_set(err, EEXIST, "VM with UUID %s already exists", vm->uuid);
	r = dir_remove_tree(temp, err);
	if (r == 0)
		r = dir_make(data, 0700, err);
	if (r == 0)
		r = dir_make(config, 0700, err);
	if (r == 0)
		r = write_metadata(config, vm, sync, err);
	if (r == 0)
		r = make_definition(temp, dir, vm, sync, err);
	if (r == 0)
		return sync == FILE_SYNC ? sync_dir(paths->etc, err) : 0;
	(void)dir_remove_tree(temp, NULL);
	if (!had_config)
		(void)dir_remove_tree(config, NULL);
	if (!had_data)
		(void)rmdir(data);
	return r;
}

/* --- delete --- */

/* Out of sight in one step, then gone at leisure. */
static int remove_out_of_sight(const char *dir, const char *name, struct err *err)
{
	AUTO_FREE char *path = path_join(dir, name);
	AUTO_FREE char *away = dotted(dir, name, REMOVING);
	AUTO_FREE char *target = NULL;
	int r = dir_remove_tree(away, err);

	if (r < 0)
		return r;
	if (rename(path, away) < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "cannot remove '%s'", path);
	/* The directory may lie on other storage behind a link. */
	target = realpath(away, NULL);
	if (target && !str_eq(target, away))
		r = dir_remove_tree(target, err);
	return r < 0 ? r : dir_remove_tree(away, err);
}

static int refuse_others(const struct vm *vm, const struct ucl_value *root, struct err *err)
{
	AUTO_STRBUF struct strbuf others = {0};

	for (size_t i = 0; i < root->count; i++) {
		if (root->items[i]->key.line == vm->line || str_eq(root->keys[i], CATALOG_IGNORED))
			continue;
		strbuf_printf(&others, "%s%s", others.len ? ", " : "", root->keys[i]);
	}
	if (others.len == 0)
		return 0;
	return err_set(err, ENOTSUP,
		       "%s:%d: the file defines other VMs too (%s); remove the section by hand",
		       vm->file, vm->line, others.data);
}

static int drop_section(const struct vm *vm, const char *section, const char *text, size_t len,
			struct err *err)
{
	const char *const path[] = {section, NULL};
	const struct ucl_edit edit = {.op = UCL_EDIT_REMOVE, .path = path};
	AUTO_FREE char *after = NULL;
	int r = ucl_edit(vm->file, text, len, &edit, 1, &after, err);

	return r < 0 ? r : file_write(vm->file, after, strlen(after), 0644, FILE_SYNC, err);
}

static int delete_by_hand(const struct vm *vm, struct err *err)
{
	AUTO_FREE char *text = NULL, *section = NULL;
	struct ucl_doc *doc = NULL;
	const struct ucl_value *root;
	size_t len;
	int r = change_read(vm, &text, &len, NULL, &doc, &section, err);

	if (r < 0)
		return r;
	root = ucl_root(doc);
	r = refuse_others(vm, root, err);
	if (r == 0 && root->count > 1)
		r = drop_section(vm, section, text, len, err);
	else if (r == 0 && unlink(vm->file) < 0)
		r = err_sys(err, errno, "cannot remove '%s'", vm->file);
	ucl_free(doc);
	if (r == 0)
		(void)rmdir(vm->dir); /* hooks may be left in it */
	return r;
}

int store_delete(const struct paths *paths, const struct vm *vm, struct err *err)
{
	int r;

	if (!uuid_valid(vm->uuid))
		return err_set(err, EINVAL, "'%s' is not a UUID", vm->uuid);
	/* Without a file it comes from a payload: what store_create may have made. */
	r = vm->made_by_us || !vm->file ? remove_out_of_sight(paths->etc, vm->uuid, err)
					: delete_by_hand(vm, err);
	return r < 0 ? r : remove_out_of_sight(paths->lib, vm->uuid, err);
}

/* --- after a crash --- */

/* ".<uuid>.new" and ".<uuid>.gone", nothing else with a dot. */
static bool is_leftover(const char *name)
{
	AUTO_FREE char *uuid = name[0] == '.' ? xstrndup(name + 1, UUID_LEN) : NULL;

	return uuid && uuid_valid(uuid) &&
	       (str_eq(name + 1 + UUID_LEN, MAKING) || str_eq(name + 1 + UUID_LEN, REMOVING));
}

static int recover_dir(const struct paths *paths, const char *dir, struct err *err)
{
	DIR *d = opendir(dir);
	const struct dirent *de;
	int r = 0;

	if (!d)
		return errno == ENOENT ? 0 : err_sys(err, errno, "cannot read '%s'", dir);
	while (r == 0 && (de = readdir(d)) != NULL) {
		AUTO_FREE char *path = path_join(dir, de->d_name);

		if (is_leftover(de->d_name))
			r = dir_remove_tree(path, err);
		else if (str_eq(dir, paths->lib) && uuid_valid(de->d_name))
			r = change_undo(paths, de->d_name, err);
	}
	(void)closedir(d);
	return r;
}

int store_recover(const struct paths *paths, struct err *err)
{
	int r = recover_dir(paths, paths->etc, err);

	return r < 0 ? r : recover_dir(paths, paths->lib, err);
}
