/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving up what reading does not need, once the sockets are there: another user, of root's powers
 * only reading files, no write and no execution anywhere (Landlock), a filter of system calls.
 * Nothing of it can be taken back. docs/decisions/0008-vminfod-confined.md.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct err;

struct confine_user {
	bool given;
	uid_t uid;
	gid_t gid;
	char *name;
};

/* By name or number; -ENOENT. The name is to be freed. */
int confine_find_user(const char *name, struct confine_user *ret, struct err *err);

/*
 * For this process and all it could start. user: whom to become, not given: stay. run: the folder
 * whose files may still be removed (our sockets). A kernel without Landlock is no error.
 */
int confine(const struct confine_user *user, const char *run, struct err *err);
