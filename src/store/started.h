/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of a VM as it was started, which may differ from its file by now. */
#pragma once

#include <jansson.h>

struct err;
struct paths;
struct vm;

/*
 * *ret is the caller's, finished, with file, dir, owner_uid and group_gid of that time; *ret_facts
 * (may be NULL) is the file's content, with "argv". -ENOENT: it was not started in this boot.
 */
int started_read(const struct paths *paths, const char *uuid, struct vm **ret, json_t **ret_facts,
		 struct err *err);
