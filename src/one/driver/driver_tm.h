/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfer commands: lines such as "LN.ssh ssh frontend:/... host:/... 0 1", whose first word is
 * the script and whose second is the driver. Source: fact sheet, 4.5.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct err;

struct tm_script {
	const char *prefix; /* in: "pre", "post", "fail" or NULL */
	bool live;          /* in: "_live" behind the command */
	char *name;         /* "snap_create_live", without the driver's suffix */
	char *path;         /* of the script below remotes */
	char **argv;        /* the words behind the driver, NULL at the end */
	size_t argc;
};

/*
 * Read one line. Words are cut as a shell would, quotes off and nothing expanded. When there is
 * no script for a suffix ("ln.ssh"), the one without is taken. Out members are the caller's.
 */
int tm_read(const char *line, const char *remotes, struct tm_script *script, struct err *err);
void tm_done(struct tm_script *script);

/* -EINVAL unless name can be a directory's or file's below the remotes. what: "network driver". */
int tm_check_name(const char *name, const char *what, struct err *err);
