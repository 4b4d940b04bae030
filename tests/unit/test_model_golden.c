/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks tests/golden/model. NAME.conf: a definition file; NAME.json: a create payload, or
 * {"conf": [lines] or "create": {...}, "state": ..., "update": {...}}. NAME.out holds what must
 * come out: VM objects, changes and the edited file (pass-*), or the findings (fail-*). A new
 * case needs no code; REWRITE_GOLDEN=1 writes the expected files anew, for review by diff.
 * Every VM is also written as a definition and as an object, read again, and must be the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/vm.h"
#include "ucl/edit.h"
#include "ucl/ucl.h"

#define HOST_UUID "00000000-1111-4222-8333-444444444444"
#define DIR_NAME  "/etc/vmstated/dir0"

static const struct ucl_options options = {.fold_keys = true};

static void put_problems(struct strbuf *out, const struct problems *p)
{
	static const char *const kinds[] = {"bad value", "bad property", "missing", "warning"};

	for (size_t i = 0; i < p->count; i++) {
		const struct problem *item = &p->items[i];

		strbuf_printf(out, "%s [%s] %s%s%s\n", kinds[item->kind],
			      item->key ? item->key : "", item->where, *item->where ? ": " : "",
			      item->text);
	}
}

static void put_json(struct strbuf *out, const json_t *j)
{
	AUTO_FREE char *text = json_pretty(j);

	strbuf_printf(out, "%s\n", text);
}

static void finish(struct vm *vm)
{
	AUTO_FREE char *data = xasprintf("/var/lib/vmstated/%s", vm->uuid);

	vm_finish(vm, data);
	vm_finish(vm, data);
}

/* The VM of a text with one section, finished. */
static struct vm *from_text(const char *name, const char *text, struct problems *p)
{
	struct ucl_doc *doc = NULL;
	struct err err = {0};
	struct vm *vm;
	const struct ucl_value *root;

	if (ucl_parse(name, text, strlen(text), &options, &doc, &err) < 0)
		fail_msg("%s\n%s", err.msg, text);
	root = ucl_root(doc);
	vm = vm_from_ucl(root->keys[0], root->items[0], HOST_UUID, DIR_NAME, p);
	finish(vm);
	ucl_free(doc);
	return vm;
}

/* As JSON without what lies in other files than the definition. */
static json_t *stored_json(const struct vm *vm)
{
	json_t *j = vm_to_json(vm, NULL, true);
	static const char *const elsewhere[] = {"tags", "customer_metadata", "internal_metadata",
						"routes"};

	for (size_t i = 0; i < ARRAY_SIZE(elsewhere); i++)
		(void)json_object_del(j, elsewhere[i]);
	return j;
}

static void same_vm(const char *what, const struct vm *vm, const struct vm *again,
		    const struct problems *p, const char *text)
{
	AUTO_JSON json_t *want = stored_json(vm);
	AUTO_JSON json_t *got = stored_json(again);
	AUTO_JSON json_t *diff = vm_diff(want, got);
	AUTO_FREE char *changes = json_text(diff);
	AUTO_FREE char *faults = problems_text(p);

	if (p->errors || json_array_size(diff) > 0)
		fail_msg("%s: %s %s\n%s", what, faults, changes, text);
}

static void check_round_trip(const struct vm *vm)
{
	AUTO_FREE char *text = vm_to_ucl(vm);
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_VM struct vm *again = from_text("again", text, &p);

	same_vm("written and read again", vm, again, &p, text);
}

/* From its object, a VM is the same. */
static void check_object(const struct vm *vm, const json_t *object)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_VM struct vm *again = vm_from_object(object, vm->data_dir, &p);
	AUTO_JSON json_t *j = NULL;

	again->mtime_ms = vm->mtime_ms;
	j = vm_to_json(again, NULL, true);
	if (!json_equal(j, object)) {
		AUTO_FREE char *got = json_pretty(j), *want = json_pretty(object);
		AUTO_FREE char *why = problems_text(&p);

		fail_msg("object read again: %s\n%s\nwant %s", why, got, want);
	}
}

static void check_vm(struct strbuf *out, struct vm *vm, const char *section, struct problems *p)
{
	AUTO_JSON json_t *j = NULL;

	finish(vm);
	vm_validate(vm, p);
	if (p->errors)
		return;
	j = vm_to_json(vm, NULL, true);
	put_json(out, j);
	check_object(vm, j);
	if (!section || str_eq(section, vm->name))
		check_round_trip(vm);
}

static void run_conf(const char *name, const char *text, struct strbuf *out, struct problems *p)
{
	struct ucl_doc *doc = NULL;
	struct err err = {0};
	const struct ucl_value *root;

	if (ucl_parse(name, text, strlen(text), &options, &doc, &err) < 0)
		fail_msg("%s", err.msg);
	root = ucl_root(doc);
	for (size_t i = 0; i < root->count; i++) {
		AUTO_VM struct vm *vm =
			vm_from_ucl(root->keys[i], root->items[i], HOST_UUID, DIR_NAME, p);

		check_vm(out, vm, root->keys[i], p);
	}
	ucl_free(doc);
}

static char *join_lines(const json_t *lines)
{
	struct strbuf sb = {0};
	size_t i;
	json_t *line;

	json_array_foreach ((json_t *)lines, i, line)
		strbuf_printf(&sb, "%s\n", json_string_value(line));
	return strbuf_steal(&sb);
}

/* The file as the edits leave it must be the new VM. */
static void check_edits(const struct vm *old, const struct vm *new, const char *text, bool show,
			struct strbuf *out)
{
	struct vm_edits edits;
	struct err err = {0};
	AUTO_FREE char *edited = NULL;
	AUTO_FREE char *folded = NULL;
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_VM struct vm *again = NULL;
	size_t len = strcspn(text, " ");

	folded = text[0] == '"' ? xstrndup(text + 1, len - 2) : xstrndup(text, len);
	vm_edits(old, new, folded, &edits);
	if (ucl_edit("conf", text, strlen(text), edits.items, edits.count, &edited, &err) < 0)
		fail_msg("edit: %s\n%s", err.msg, text);
	vm_edits_free(&edits);
	again = from_text("edited", edited, &p);
	same_vm("edited in place", new, again, &p, edited);
	if (show)
		strbuf_printf(out, "%s", edited);
}

static void put_changes(struct strbuf *out, const struct vm_changes *changes)
{
	for (size_t i = 0; i < changes->count; i++) {
		const struct vm_change *item = &changes->items[i];

		strbuf_printf(out, "%s: %s -> %s (%s%s)\n", item->path,
			      item->old_text ? item->old_text : "-",
			      item->new_text ? item->new_text : "-",
			      item->live ? "live" : "next start",
			      item->metadata ? ", metadata" : "");
	}
}

/* NICs known by their place in an array of the file, which an object does not tell. */
static bool has_places(const struct vm *vm)
{
	for (size_t i = 0; i < vm->nnics; i++) {
		const struct str_list *path = &vm->nics[i]->ucl_path;

		if (path->count > 1 && strspn(path->items[1], "0123456789") > 0)
			return true;
	}
	return false;
}

/* A tool that sees the object alone foretells the same changes. */
static void check_preview(const struct vm *old, const json_t *c, const char *want)
{
	AUTO_JSON json_t *object = vm_to_json(old, NULL, true);
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_VM struct vm *seen = vm_from_object(object, old->data_dir, &p), *new = NULL;
	AUTO_STRBUF struct strbuf got = {0};
	struct vm_changes changes;

	new = vm_update(seen, json_object_get(c, "update"), json_get_str(c, "state", "stopped"),
			&changes, &p);
	if (!new)
		fail_msg("refused when seen as an object");
	put_changes(&got, &changes);
	vm_changes_done(&changes);
	assert_string_equal(got.data ? got.data : "", want ? want : "");
}

static void run_update(const json_t *c, struct strbuf *out, struct problems *p)
{
	const json_t *conf = json_object_get(c, "conf");
	AUTO_VM struct vm *made = NULL, *old = NULL, *new = NULL;
	AUTO_FREE char *text = NULL;
	struct vm_changes changes;

	if (!conf) {
		made = vm_from_payload(json_object_get(c, "create"), p);
		finish(made);
	}
	text = conf ? join_lines(conf) : vm_to_ucl(made);
	old = from_text("conf", text, p);
	if (made) { /* the files beside the definition */
		old->tags = json_incref(made->tags);
		old->routes = json_incref(made->routes);
		old->customer_metadata = json_incref(made->customer_metadata);
	}
	assert_int_equal(p->errors, 0);
	new = vm_update(old, json_object_get(c, "update"), json_get_str(c, "state", "stopped"),
			&changes, p);
	if (!new)
		return;
	put_changes(out, &changes);
	if (!has_places(old))
		check_preview(old, c, out->data);
	vm_changes_done(&changes);
	check_edits(old, new, text, conf != NULL, out);
}

static void run_json(const char *name, const char *text, struct strbuf *out, struct problems *p)
{
	AUTO_JSON json_t *c = NULL;
	struct err err = {0};

	if (json_parse(text, strlen(text), name, &c, &err) < 0)
		fail_msg("%s", err.msg);
	if (json_object_get(c, "update")) {
		run_update(c, out, p);
	} else {
		AUTO_VM struct vm *vm = vm_from_payload(c, p);

		check_vm(out, vm, NULL, p);
	}
}

static unsigned check_case(const char *name)
{
	AUTO_FREE char *expected = xasprintf("%.*s.out", (int)strcspn(name, "."), name);
	AUTO_FREE char *text = NULL, *want = NULL;
	AUTO_STRBUF struct strbuf out = {0};
	AUTO_PROBLEMS struct problems p = {0};
	struct err err = {0};

	if (file_read(name, 1 << 20, &text, NULL, NULL, &err) < 0)
		fail_msg("%s", err.msg);
	(str_ends(name, ".conf") ? run_conf : run_json)(name, text, &out, &p);
	if ((p.errors == 0) != str_starts(name, "pass-")) {
		put_problems(&out, &p);
		print_error("%s:\n%s\n", name, out.data ? out.data : "");
		return 1;
	}
	if (p.errors)
		out.len = 0;
	put_problems(&out, &p);
	strbuf_puts(&out, "");
	if (getenv("REWRITE_GOLDEN")) {
		assert_int_equal(file_write(expected, out.data, out.len, 0644, FILE_NO_SYNC, &err),
				 0);
		return 0;
	}
	if (file_read(expected, 1 << 20, &want, NULL, NULL, &err) < 0) {
		print_error("%s\n", err.msg);
		return 1;
	}
	if (str_eq(out.data, want))
		return 0;
	print_error("%s:\ngot:\n%s\nwant:\n%s\n", name, out.data, want);
	return 1;
}

static void test_golden(void **state)
{
	struct dirent **list;
	unsigned failed = 0, cases = 0;
	int n = scandir(".", &list, NULL, alphasort);

	assert_true(n > 0);
	for (int i = 0; i < n; i++) {
		const char *name = list[i]->d_name;

		if (str_ends(name, ".conf") || str_ends(name, ".json")) {
			failed += check_case(name);
			cases++;
		}
		free(list[i]);
	}
	free(list);
	assert_int_equal(failed, 0);
	assert_true(cases > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden)};
	const char *golden = getenv("GOLDEN");
	AUTO_FREE char *dir = xasprintf("%s/model", golden ? golden : "tests/golden");

	if (chdir(dir) < 0) {
		perror(dir);
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
