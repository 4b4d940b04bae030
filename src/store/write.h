/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of definitions and metadata on disk. Each is wholly there or wholly not, at any moment
 * of a crash. Only vmadmd calls these; callers hold the VM's change lock.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>

#include "base/file.h"

struct err;
struct paths;
struct vm;

/*
 * One change of a VM at a time: *ret_fd keeps the lock; -EBUSY when it is held. A change that was
 * cut short is undone here before anything else.
 */
int store_lock(const struct paths *paths, const char *uuid, int *ret_fd, struct err *err);

/*
 * Undo changes cut short and remove what deletions and creations left behind; vmadmd calls it
 * once, at its start, before it takes commands.
 */
int store_recover(const struct paths *paths, struct err *err);

/*
 * A new VM: data directory (0700) with config/{tags,metadata,routes}.json as far as given, then
 * <etc>/<uuid>/config, written under a dot name and renamed, so that it appears whole. The data
 * directory may be there already (with disks). -EEXIST when the definition is.
 */
int store_create(const struct paths *paths, const struct vm *vm, enum file_sync sync,
		 struct err *err);

/*
 * Turn old into new on disk: the definition file edited in place (comments, order and layout
 * survive), metadata files rewritten where they differ; the definition last. On any error all is
 * as before. -ENOTSUP with FILE:LINE where a hand-written file cannot be edited in place; -EBUSY
 * when the file is not as old was read from it.
 */
int store_update(const struct paths *paths, const struct vm *old, const struct vm *new,
		 enum file_sync sync, struct err *err);

/*
 * Remove the definition (a directory made by us as a whole; of a file written by hand only the
 * VM's section, refused with -ENOTSUP when it holds other VMs) and the data directory with the
 * disks that lie in it. Files outside are left. vm may also be what store_create was given.
 */
int store_delete(const struct paths *paths, const struct vm *vm, struct err *err);

/*
 * Small JSON state files of the daemons, written whole, mode 0600. The object on disk starts with
 * "format_version", which is not to be among the members of state (borrowed).
 */
int state_write(const char *path, int version, const json_t *state, enum file_sync sync,
		struct err *err);
/*
 * *ret (the caller's) still has "format_version", at most version. -ENOENT; -EPROTO for a version
 * from the future or a broken file.
 */
int state_read(const char *path, int version, json_t **ret, struct err *err);
