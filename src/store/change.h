/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several files changed as one, with a journal in the VM's data directory that undoes what a
 * crash cut short; and the parts of a definition file's edit. Private to src/store.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "base/file.h"

struct err;
struct paths;
struct ucl_doc;
struct ucl_value;
struct vm;
struct vm_edits;

#define META_COUNT 3

struct meta_kind {
	const char *file;
	mode_t mode;
};
extern const struct meta_kind meta_kinds[META_COUNT];

/* The text of metadata file i for vm; caller frees. */
char *meta_text(const struct vm *vm, size_t i);
/* Do both have the same in file i? b NULL: one without metadata. */
bool meta_same(const struct vm *a, const struct vm *b, size_t i);

struct file_change {
	char *path;
	char *text; /* to be written */
	size_t len;
	char *old; /* what is there; NULL: no file */
	size_t old_len;
	mode_t mode;
};

struct change {
	struct file_change files[META_COUNT + 1];
	size_t count;
};

void change_done(struct change *c);
/* Write all or nothing; journal: the data directory's config folder. */
int change_commit(const struct change *c, const char *journal_dir, enum file_sync sync,
		  struct err *err);
/* Undo a change of this VM that was cut short; 0 when there was none. */
int change_undo(const struct paths *paths, const char *uuid, struct err *err);

/*
 * Read and parse vm's definition file and find vm's section. text[len] is the file's, ret_st
 * (may be NULL) its stat. All results are the caller's.
 */
int change_read(const struct vm *vm, char **ret_text, size_t *ret_len, struct stat *ret_st,
		struct ucl_doc **ret_doc, char **ret_section, struct err *err);

/*
 * Rewrite the paths of edits to the words that the file uses: an alias where it stands, a
 * position where elements are listed without names.
 */
struct fitted {
	struct ucl_edit *edits;
	size_t count;
	char **words; /* owned parts of paths */
	size_t nwords;
};
void fit_edits(const struct ucl_value *root, const struct vm *vm, const struct vm_edits *edits,
	       struct fitted *ret);
void fitted_done(struct fitted *f);
