/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inotify descriptor of a catalog and who uses which watch. A folder may serve many: one
 * watch per inode, counted by users. Private to src/store.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/inotify.h>

struct err;
struct unit;

/* Names of a folder only: where disks lie, each write of a guest would be an IN_MODIFY. */
#define WATCH_NAMES                                                                                \
	(IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF |     \
	 IN_ONLYDIR)
#define WATCH_FOLDER (WATCH_NAMES | IN_CLOSE_WRITE | IN_ATTRIB | IN_EXCL_UNLINK)
/* A forked editor may hold a file open long after its write: IN_MODIFY tells of it. */
#define WATCH_CONFIG (WATCH_FOLDER | IN_MODIFY)
#define WATCH_FILE   (IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)

struct watch {
	int wd;
	struct unit **users; /* NULL among them: the catalog itself */
	size_t nusers;
};

struct watches {
	int fd;
	struct watch *items; /* sorted by wd */
	size_t count;
};

int watches_init(struct watches *w, struct err *err);
void watches_done(struct watches *w);

/*
 * Watch path for user, following symbolic links. A watch that is there already takes on the
 * bits of mask as well. Returns the watch descriptor or a negative errno.
 */
int watch_add(struct watches *w, const char *path, uint32_t mask, struct unit *user);
/* Replace the mask of what is at path, taking bits away. */
void watch_narrow(struct watches *w, const char *path, uint32_t mask);
/* The last user's going removes the watch. */
void watch_drop(struct watches *w, int wd, const struct unit *user);
/* The kernel removed it (IN_IGNORED). */
void watch_forget(struct watches *w, int wd);
/* Borrowed until the next call that changes the table; NULL when unknown. */
const struct watch *watch_find(const struct watches *w, int wd);
bool watch_used_by(const struct watches *w, int wd, const struct unit *user);
