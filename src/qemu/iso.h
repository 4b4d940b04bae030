/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small CD image in memory: one directory with a few files, as ISO 9660 with Rock Ridge and
 * Joliet names, so that every guest reads the names as given. The same input gives the same bytes.
 * Source: ECMA-119; IEEE P1282 (Rock Ridge); the Joliet specification.
 */
#pragma once

#include <stddef.h>

struct err;

#define ISO_FILES_MAX 8
#define ISO_FILE_MAX  (4u << 20) /* bytes of one file */

struct iso_file {
	const char *name; /* ASCII; the first eight characters differ; in their order */
	const char *data;
	size_t len;
};

/*
 * label: at most 16 characters A-Z, 0-9, _. *ret is the caller's, a multiple of 2048 bytes.
 * -E2BIG for too many or too large files.
 */
int iso_build(const char *label, const struct iso_file *files, size_t count, char **ret,
	      size_t *ret_len, struct err *err);
