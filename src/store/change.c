/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several files changed as one. The order: old contents beside the journal, the journal, the
 * files, the journal away. Whoever finds the journal puts the old contents back, which may be
 * done any number of times.
 */
#include "store/change.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "store/write.h"

#define JOURNAL         ".undo"
#define JOURNAL_VERSION 1
#define OLD_MAX         (2u << 20)

/* metadata.json holds secrets. */
const struct meta_kind meta_kinds[META_COUNT] = {
	{"tags.json", 0644},
	{"metadata.json", 0600},
	{"routes.json", 0644},
};

static json_t *meta_of(const struct vm *vm, size_t i)
{
	json_t *customer, *internal;

	if (!vm)
		return i == 1 ? json_pack("{s:{}, s:{}}", "customer_metadata", "internal_metadata")
			      : json_object();
	if (i != 1)
		return json_deep_copy(i == 0 ? vm->tags : vm->routes) ?: json_object();
	customer = json_deep_copy(vm->customer_metadata) ?: json_object();
	internal = json_deep_copy(vm->internal_metadata) ?: json_object();
	return json_pack("{s:o, s:o}", "customer_metadata", customer, "internal_metadata",
			 internal);
}

char *meta_text(const struct vm *vm, size_t i)
{
	AUTO_JSON json_t *j = meta_of(vm, i);
	AUTO_FREE char *text = json_pretty(j);

	return xasprintf("%s\n", text);
}

bool meta_same(const struct vm *a, const struct vm *b, size_t i)
{
	AUTO_JSON json_t *ja = meta_of(a, i);
	AUTO_JSON json_t *jb = meta_of(b, i);

	return json_equal(ja, jb);
}

void change_done(struct change *c)
{
	for (size_t i = 0; i < c->count; i++) {
		free(c->files[i].path);
		free(c->files[i].text);
		free(c->files[i].old);
	}
	*c = (struct change){0};
}

static char *old_path(const char *dir, size_t i)
{
	return xasprintf("%s/%s.%zu", dir, JOURNAL, i);
}

static void remove_journal(const char *dir, size_t count)
{
	AUTO_FREE char *journal = path_join(dir, JOURNAL);

	/* The journal first: without it the rest means nothing. */
	(void)unlink(journal);
	for (size_t i = 0; i < count; i++) {
		AUTO_FREE char *old = old_path(dir, i);

		(void)unlink(old);
	}
}

static int write_journal(const struct change *c, const char *dir, enum file_sync sync,
			 struct err *err)
{
	AUTO_FREE char *journal = path_join(dir, JOURNAL);
	AUTO_JSON json_t *files = json_array();
	AUTO_JSON json_t *state = NULL;
	int r = 0;

	for (size_t i = 0; i < c->count && r == 0; i++) {
		const struct file_change *f = &c->files[i];
		AUTO_FREE char *old = old_path(dir, i);
		json_t *row = json_pack("{s:s, s:b, s:i}", "path", f->path, "existed",
					f->old != NULL, "mode", (int)f->mode);

		if (!row)
			return err_set(err, EINVAL, "the path of '%s' is not UTF-8", f->path);
		(void)json_array_append_new(files, row);
		if (f->old)
			r = file_write(old, f->old, f->old_len, 0600, sync, err);
	}
	state = json_pack("{s:O}", "files", files);
	return r < 0 ? r : state_write(journal, JOURNAL_VERSION, state, sync, err);
}

static int put_back(const char *dir, size_t i, const json_t *row, struct err *err)
{
	const char *path = json_get_str(row, "path", NULL);
	AUTO_FREE char *old = old_path(dir, i);
	AUTO_FREE char *text = NULL;
	size_t len;
	int r;

	if (!path || path[0] != '/')
		return err_set(err, EPROTO, "%s/%s: files[%zu].path is not a path", dir, JOURNAL,
			       i);
	if (!json_get_bool(row, "existed", true))
		return unlink(path) < 0 && errno != ENOENT
			       ? err_sys(err, errno, "cannot remove '%s'", path)
			       : 0;
	r = file_read(old, OLD_MAX, &text, &len, NULL, err);
	if (r < 0)
		return r;
	return file_write(path, text, len, (mode_t)json_get_int(row, "mode", 0600), FILE_SYNC, err);
}

static int undo_in(const char *dir, struct err *err)
{
	AUTO_FREE char *journal = path_join(dir, JOURNAL);
	AUTO_JSON json_t *state = NULL;
	const json_t *files;
	int r;

	if (access(journal, F_OK) < 0)
		return 0;
	r = state_read(journal, JOURNAL_VERSION, &state, err);
	if (r < 0)
		return err_wrap(err, r, "cannot undo a change that was cut short");
	files = json_object_get(state, "files");
	for (size_t i = 0; i < json_array_size(files) && r == 0; i++)
		r = put_back(dir, i, json_array_get(files, i), err);
	if (r < 0)
		return err_wrap(err, r, "cannot undo a change that was cut short");
	remove_journal(dir, json_array_size(files));
	return 0;
}

int change_undo(const struct paths *paths, const char *uuid, struct err *err)
{
	AUTO_FREE char *dir = path_of_data(paths, uuid, "config");

	return undo_in(dir, err);
}

int change_commit(const struct change *c, const char *journal_dir, enum file_sync sync,
		  struct err *err)
{
	bool journal = c->count > 1;
	int r = 0;

	if (journal) {
		r = write_journal(c, journal_dir, sync, err);
		if (r < 0) {
			remove_journal(journal_dir, c->count);
			return r;
		}
	}
	for (size_t i = 0; i < c->count && r == 0; i++) {
		const struct file_change *f = &c->files[i];

		r = file_write(f->path, f->text, f->len, f->mode, sync, err);
	}
	if (!journal)
		return r;
	/* When even undoing fails the journal stays, and the next lock tries again. */
	if (r < 0)
		(void)undo_in(journal_dir, NULL);
	else
		remove_journal(journal_dir, c->count);
	return r;
}
