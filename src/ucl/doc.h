/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a UCL document: the memory all its values live in. Private to src/ucl; the public
 * contract is ucl.h.
 */
#pragma once

#include <stddef.h>

#include "ucl/ucl.h"

/*
 * Objects grow from the low end, texts (which need no alignment) from the high end, so a block
 * has no holes. Freed whole.
 */
struct ucl_block {
	struct ucl_block *next;
	size_t low, high, size;
	max_align_t data[];
};

struct ucl_doc {
	struct ucl_block *blocks; /* the current one first */
	size_t bytes;             /* of all blocks */
	size_t block_size;        /* of the next block */
	struct ucl_value *root;
	const char **files;
	size_t nfiles;
};

/* A document whose first block suits a text of len bytes. */
struct ucl_doc *ucl_doc_new(size_t len);

/* Zeroed memory that dies with the document. */
void *ucl_alloc(struct ucl_doc *doc, size_t size);

/* Room for len bytes and a NUL, not filled but for the NUL. */
char *ucl_alloc_text(struct ucl_doc *doc, size_t len);

char *ucl_strndup(struct ucl_doc *doc, const char *text, size_t len);

/*
 * The array old[count] of pointers, with room for one more. Capacity is not stored: it is the
 * power of two at or above count, at least four, so old is moved only when that is full.
 */
void *ucl_grow(struct ucl_doc *doc, void *old, size_t count);

/* Append to a UCL_ARRAY. */
void ucl_array_add(struct ucl_doc *doc, struct ucl_value *array, struct ucl_value *v);

/* Remember a file name once; returns the document's own copy. */
const char *ucl_doc_file(struct ucl_doc *doc, const char *name);

/* The folder of a file name: "." without a slash. */
const char *ucl_doc_folder(struct ucl_doc *doc, const char *name);
