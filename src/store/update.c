/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A changed VM onto disk: the edits of its definition, in the words of its file, and its metadata
 * files. What will stand there is read back in memory and must be the VM that was asked for.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/props.h"
#include "model/vm.h"
#include "store/change.h"
#include "store/write.h"
#include "ucl/edit.h"
#include "ucl/ucl.h"

static const struct ucl_options folded = {.fold_keys = true};

/* The key of vm's section: on the line it was read from, or of the same name. */
static const char *section_of(const struct vm *vm, const struct ucl_value *root)
{
	const char *by_name = NULL;

	for (size_t i = 0; root->type == UCL_OBJECT && i < root->count; i++) {
		const struct ucl_value *name = ucl_get(root->items[i], "name");
		const char *text = name && name->type == UCL_STRING ? name->string : root->keys[i];

		if (strcasecmp(text, vm->name) != 0)
			continue;
		if (root->items[i]->key.line == vm->line)
			return root->keys[i];
		by_name = root->keys[i];
	}
	return by_name;
}

int change_read(const struct vm *vm, char **ret_text, size_t *ret_len, struct stat *ret_st,
		struct ucl_doc **ret_doc, char **ret_section, struct err *err)
{
	AUTO_FREE char *text = NULL;
	struct ucl_doc *doc = NULL;
	const char *section;
	size_t len;
	int r = file_read(vm->file, UCL_TEXT_MAX, &text, &len, ret_st, err);

	if (r == 0)
		r = ucl_parse(vm->file, text, len, &folded, &doc, err);
	if (r < 0)
		return r;
	section = section_of(vm, ucl_root(doc));
	if (!section) {
		ucl_free(doc);
		return err_set(err, EBUSY, "%s: the section of VM %s is not there any more",
			       vm->file, vm->name);
	}
	*ret_section = xstrdup(section);
	*ret_text = steal_ptr(text);
	*ret_len = len;
	*ret_doc = doc;
	return 0;
}

/* --- the words of the file --- */

void fitted_done(struct fitted *f)
{
	for (size_t i = 0; i < f->count; i++)
		free((void *)(uintptr_t)f->edits[i].path);
	for (size_t i = 0; i < f->nwords; i++)
		free(f->words[i]);
	free(f->edits);
	free(f->words);
	*f = (struct fitted){0};
}

static const char *keep_word(struct fitted *f, char *word)
{
	f->words = xrealloc(f->words, (f->nwords + 1) * sizeof(char *));
	f->words[f->nwords++] = word;
	return word;
}

static const struct prop_table *table_of(const struct prop *row)
{
	switch (row ? row->type : PROP_STR) {
	case PROP_DISKS:
		return &disk_props;
	case PROP_NICS:
		return &nic_props;
	case PROP_CONSOLES:
		return &console_props;
	default:
		return NULL;
	}
}

/* The key in v that stands for the same property as key; key itself when none does. */
static const char *key_in_file(const struct ucl_value *v, const struct prop_table *t,
			       const char *key)
{
	const struct prop *row = t ? prop_find(t, key, true) : NULL;

	if (!row || !v || v->type != UCL_OBJECT || ucl_get(v, key))
		return key;
	for (size_t i = 0; i < v->count; i++) {
		if (prop_find(t, v->keys[i], true) == row)
			return v->keys[i];
	}
	return key;
}

static size_t element_index(const struct vm *vm, const struct prop_table *t, const char *name)
{
	for (size_t i = 0; t == &disk_props && i < vm->ndisks; i++) {
		if (str_eq(vm->disks[i]->name, name))
			return i;
	}
	for (size_t i = 0; t == &nic_props && i < vm->nnics; i++) {
		if (str_eq(vm->nics[i]->name, name))
			return i;
	}
	for (size_t i = 0; t == &console_props && i < vm->nconsoles; i++) {
		if (str_eq(vm->consoles[i]->name, name))
			return i;
	}
	return SIZE_MAX;
}

/* One of several sections under a key: the one that has the element. */
static const struct ucl_value *element_of(const struct ucl_value *v, const char *name)
{
	if (!v || v->type != UCL_ARRAY)
		return v ? ucl_get(v, name) : NULL;
	for (size_t i = 0; i < v->count; i++) {
		const struct ucl_value *e = ucl_get(v->items[i], name);

		if (e)
			return e;
	}
	return NULL;
}

static void fit_element(struct fitted *f, const struct vm *vm, const struct prop_table *t,
			const struct ucl_value *list, const char **path)
{
	const struct ucl_value *element = element_of(list, path[2]);
	size_t i = element_index(vm, t, path[2]);

	if (!element && list && list->type == UCL_ARRAY && !list->implicit && i < list->count) {
		element = list->items[i];
		path[2] = keep_word(f, xasprintf("%zu", i));
	}
	if (path[3])
		path[3] = key_in_file(element, t, path[3]);
}

static void fit_path(struct fitted *f, const struct ucl_value *root, const struct vm *vm,
		     const char **path)
{
	const struct ucl_value *section = ucl_get(root, path[0]);
	const struct prop *row;

	if (!section || !path[1])
		return;
	row = prop_find(&vm_props, path[1], true);
	path[1] = key_in_file(section, &vm_props, path[1]);
	if (path[2] && table_of(row))
		fit_element(f, vm, table_of(row), ucl_get(section, path[1]), path);
}

void fit_edits(const struct ucl_value *root, const struct vm *vm, const struct vm_edits *edits,
	       struct fitted *ret)
{
	*ret = (struct fitted){.edits = xcalloc(edits->count + 1, sizeof(struct ucl_edit))};
	for (size_t i = 0; i < edits->count; i++) {
		const char *const *from = edits->items[i].path;
		const char **path;
		size_t n = 0;

		while (from[n])
			n++;
		path = xcalloc(n + 1, sizeof(char *));
		for (size_t k = 0; k < n; k++)
			path[k] = keep_word(ret, xstrdup(from[k]));
		fit_path(ret, root, vm, path);
		ret->edits[i] = edits->items[i];
		ret->edits[i].path = path;
		ret->count++;
	}
}

/* --- update --- */

static void take_place(struct str_list *to, const struct str_list *from)
{
	str_list_done(to);
	*to = (struct str_list){0};
	for (size_t i = 0; i < from->count; i++)
		str_list_add(to, from->items[i]);
}

/* Give want's elements the places of the same ones in vm, which was read from the new text. */
static void take_places(struct vm *want, const struct vm *vm)
{
	for (size_t i = 0; i < want->ndisks; i++)
		for (size_t k = 0; k < vm->ndisks; k++)
			if (str_eq(want->disks[i]->path, vm->disks[k]->path))
				take_place(&want->disks[i]->ucl_path, &vm->disks[k]->ucl_path);
	for (size_t i = 0; i < want->nnics; i++)
		for (size_t k = 0; k < vm->nnics; k++)
			if (str_eq(want->nics[i]->mac, vm->nics[k]->mac))
				take_place(&want->nics[i]->ucl_path, &vm->nics[k]->ucl_path);
	for (size_t i = 0; i < want->nconsoles; i++)
		for (size_t k = 0; k < vm->nconsoles; k++)
			if (str_eq(want->consoles[i]->name, vm->consoles[k]->name))
				take_place(&want->consoles[i]->ucl_path,
					   &vm->consoles[k]->ucl_path);
}

/* Read the new text back: it must say exactly what new is. */
static int check_result(const struct vm *new, const char *section, const char *text,
			struct err *err)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_VM struct vm *vm = NULL, *want = vm_copy(new);
	struct vm_edits left = {0};
	struct ucl_doc *doc;
	const struct ucl_value *v;
	int r = ucl_parse(new->file, text, strlen(text), &folded, &doc, err);

	if (r < 0)
		return r;
	v = ucl_get(ucl_root(doc), section);
	vm = vm_from_ucl(section, v, "00000000-0000-0000-0000-000000000000", "", &p);
	r = problems_to_err(&p, err);
	if (r == 0) {
		replace_str(&vm->uuid, xstrdup(new->uuid)); /* perhaps derived */
		replace_str(&vm->dir, xstrdup(new->dir));
		vm_finish(vm, new->data_dir);
		take_places(want, vm);
		vm_edits(vm, want, section, &left);
		if (left.count > 0)
			r = err_set(err, ENOTSUP,
				    "%s:%d: '%s' cannot be changed in place; edit the file by hand",
				    new->file, new->line,
				    left.items[0].path[1] ? left.items[0].path[1] : section);
		vm_edits_free(&left);
	}
	ucl_free(doc);
	return r;
}

/* Through a symbolic link: the link stays, its target is replaced. */
static char *real_file(const char *path)
{
	char *real = realpath(path, NULL);

	return real ? real : xstrdup(path);
}

static int plan_definition(const struct vm *old, const struct vm *new, struct change *change,
			   struct err *err)
{
	AUTO_FREE char *text = NULL, *after = NULL, *section = NULL;
	struct ucl_doc *doc = NULL;
	struct vm_edits edits = {0};
	struct fitted fitted = {0};
	struct stat st;
	size_t len;
	int r = change_read(old, &text, &len, &st, &doc, &section, err);

	if (r < 0)
		return r;
	vm_edits(old, new, section, &edits);
	fit_edits(ucl_root(doc), old, &edits, &fitted);
	if (edits.count > 0) {
		r = ucl_edit(old->file, text, len, fitted.edits, fitted.count, &after, err);
		if (r == 0)
			r = check_result(new, section, after, err);
	}
	if (r == 0 && after) {
		size_t after_len = strlen(after);

		change->files[change->count++] = (struct file_change){.path = real_file(old->file),
								      .text = steal_ptr(after),
								      .len = after_len,
								      .old = steal_ptr(text),
								      .old_len = len,
								      .mode = st.st_mode & 07777};
	}
	fitted_done(&fitted);
	vm_edits_free(&edits);
	ucl_free(doc);
	return r;
}

static int plan_metadata(const char *dir, const struct vm *old, const struct vm *new,
			 struct change *change, struct err *err)
{
	for (size_t i = 0; i < META_COUNT; i++) {
		struct file_change *f = &change->files[change->count];
		int r;

		if (meta_same(old, new, i))
			continue;
		*f = (struct file_change){.path = path_join(dir, meta_kinds[i].file),
					  .text = meta_text(new, i),
					  .mode = meta_kinds[i].mode};
		f->len = strlen(f->text);
		change->count++;
		r = file_read(f->path, 1u << 20, &f->old, &f->old_len, NULL, err);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

/* Nobody wrote the definition while we planned. */
static int check_unchanged(const struct change *change, const struct vm *old, struct err *err)
{
	const struct file_change *f = &change->files[change->count - 1];
	AUTO_FREE char *now = NULL;
	size_t len;
	int r = file_read(f->path, UCL_TEXT_MAX, &now, &len, NULL, err);

	if (r < 0)
		return r;
	if (len != f->old_len || memcmp(now, f->old, len) != 0)
		return err_set(err, EBUSY, "'%s' was changed by somebody else; try again",
			       old->file);
	return 0;
}

int store_update(const struct paths *paths, const struct vm *old, const struct vm *new,
		 enum file_sync sync, struct err *err)
{
	AUTO_FREE char *data = path_of_data(paths, old->uuid, NULL);
	AUTO_FREE char *config = path_of_data(paths, old->uuid, "config");
	__attribute__((cleanup(change_done))) struct change change = {0};
	size_t metadata;
	int r;

	if (!old->file)
		return err_set(err, EINVAL, "VM %s has no definition file", old->uuid);
	r = plan_metadata(config, old, new, &change, err);
	metadata = change.count;
	if (r == 0)
		r = plan_definition(old, new, &change, err);
	if (r < 0 || change.count == 0)
		return r;
	if (metadata > 0) {
		r = dir_make(data, 0700, err);
		if (r == 0)
			r = dir_make(config, 0700, err);
	}
	if (r == 0 && change.count > metadata)
		r = check_unchanged(&change, old, err);
	return r < 0 ? r : change_commit(&change, config, sync, err);
}
