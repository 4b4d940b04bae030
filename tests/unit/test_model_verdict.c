/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 10 000 payloads made from the property tables with a fixed seed: whatever is asked (validate,
 * a dry run from vminfod's object, the daemon's own check, the definition file read again) the
 * verdict is the same, and a refusal changes nothing. $VERDICTS is another number, $SEED another
 * seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/props.h"
#include "ucl/ucl.h"

#define UUID  "54f1cc77-68f1-42ab-acac-5c4f64f5d6e0"
#define DATA  "/data"
#define DIR   "/etc/vmstated/web0"
#define COUNT 10000

static uint64_t dice_state;

/* xorshift64: the same everywhere. */
static unsigned dice(unsigned sides)
{
	dice_state ^= dice_state << 13;
	dice_state ^= dice_state >> 7;
	dice_state ^= dice_state << 17;
	return (unsigned)((dice_state >> 20) % sides);
}

static long number_of(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text ? strtol(text, NULL, 10) : otherwise;
}

/* --- values --- */

static json_t *any_text(void)
{
	static const char *const texts[] = {
		"a",          "",       "x y",        "1.2.3.4",  "10.0.0.1/24",
		"order=cd",   "virtio", "\"quoted\"", "${HOME}",  "a;b",
		"# no",       "ends\\", "two\nlines", "\xc3\xa4", "52:54:00:00:00:07",
		"/srv/d.raw", "user",   "br0",        "64",       "1G",
		"1min",       "kvm",    "\t",         "{"};

	return json_string(texts[dice(ARRAY_SIZE(texts))]);
}

static json_t *any_number(const struct prop *row)
{
	const json_int_t numbers[] = {
		row->min, row->max, row->min - 1, row->max + 1, row->def, row->min + 1, 0, 1,
		64,       -1};
	json_int_t n = numbers[dice(ARRAY_SIZE(numbers))];

	if (dice(4) == 0) {
		AUTO_FREE char *text = xasprintf("%lld", (long long)n);

		return json_string(text);
	}
	return json_integer(n);
}

static json_t *any_list(void)
{
	json_t *list = json_array();

	for (unsigned i = dice(3); i > 0; i--)
		json_array_append_new(list, any_text());
	return list;
}

static json_t *any_map(void)
{
	static const char *const keys[] = {"a", "b.c", "10.0.0.0/8", "x y", "\"", "k"};
	json_t *map = json_object();

	for (unsigned i = dice(3); i > 0; i--)
		json_object_set_new(map, keys[dice(ARRAY_SIZE(keys))],
				    dice(2) ? any_text() : json_integer(dice(9)));
	return map;
}

static json_t *any_elements(const struct prop_table *t);

static json_t *any_value(const struct prop *row)
{
	if (dice(12) == 0)
		return dice(2) ? json_null() : json_array();
	switch (row->type) {
	case PROP_BOOL:
		return dice(4) ? json_boolean(dice(2)) : any_text();
	case PROP_U32:
	case PROP_I32:
	case PROP_U64:
	case PROP_MS:
		return any_number(row);
	case PROP_ENUM:
		return dice(4) ? json_string(row->names[dice((unsigned)row->nnames)]) : any_text();
	case PROP_LIST:
		return dice(3) ? any_list() : any_text();
	case PROP_MAP:
		return any_map();
	case PROP_DISKS:
	case PROP_NICS:
	case PROP_CONSOLES:
		return any_elements(row_elements(row));
	case PROP_STR:
	case PROP_RUNTIME:
		return any_text();
	}
	return json_null();
}

/* Mostly members that may be there, so that more than refusals is met. */
static void put_members(json_t *object, const struct prop_table *t, unsigned count)
{
	while (count-- > 0) {
		const struct prop *row = &t->rows[dice((unsigned)t->count)];

		if ((row->set & (ON_CREATE | ON_UPDATE)) || dice(8) == 0)
			json_object_set_new(object, row->name, any_value(row));
	}
}

static json_t *any_elements(const struct prop_table *t)
{
	json_t *list = json_array();

	for (unsigned i = dice(3); i > 0; i--) {
		json_t *one = json_object();

		json_put_str(one, "model", "virtio");
		if (t == &disk_props)
			json_put_int(one, "size", 64);
		else
			json_put_str(one, "nic_tag", "user");
		put_members(one, t, dice(3));
		json_array_append_new(list, one);
	}
	return list;
}

/* --- verdicts --- */

static struct vm *create(const json_t *payload, struct problems *p)
{
	struct vm *vm = vm_from_payload(payload, p);

	vm_finish(vm, DATA);
	vm_validate(vm, p);
	return vm;
}

/* What is good is the same when its file is read again. */
static void read_again(const struct vm *vm, const char *what)
{
	AUTO_FREE char *text = vm_to_ucl(vm), *said = NULL;
	AUTO_PROBLEMS struct problems p = {0};
	struct vm_changes changes;
	struct ucl_doc *doc = NULL;
	struct err err = {0};

	if (ucl_parse("config", text, strlen(text), NULL, &doc, &err) < 0)
		fail_msg("%s\n%s\n%s", what, text, err.msg);
	AUTO_VM struct vm *again =
		vm_from_ucl(ucl_root(doc)->keys[0], ucl_root(doc)->items[0], UUID, DIR, &p);

	vm_finish(again, DATA);
	vm_validate(again, &p);
	said = problems_text(&p);
	if (p.errors)
		fail_msg("%s\n%s\n%s", what, text, said);
	vm_changes_of(vm, again, &changes);
	for (size_t i = 0; i < changes.count; i++) {
		if (!changes.items[i].metadata)
			fail_msg("%s\n%s\n%s: %s -> %s", what, text, changes.items[i].path,
				 changes.items[i].old_text, changes.items[i].new_text);
	}
	vm_changes_done(&changes);
	ucl_free(doc);
}

static json_t *create_payload(void)
{
	json_t *payload = json_object();

	json_put_str(payload, "uuid", UUID);
	json_put_str(payload, "name", "web0");
	put_members(payload, &vm_props, 1 + dice(6));
	return payload;
}

static void test_create(void **state)
{
	long count = number_of("VERDICTS", COUNT), good = 0;

	dice_state = (uint64_t)number_of("SEED", 1) * 0x9e3779b97f4a7c15u;
	for (long i = 0; i < count; i++) {
		AUTO_JSON json_t *payload = create_payload(), *a = NULL, *b = NULL;
		AUTO_FREE char *what = json_text(payload);
		AUTO_PROBLEMS struct problems p = {0}, ignored = {0};
		AUTO_VM struct vm *vm = create(payload, &p), *seen = NULL;

		if (p.errors)
			continue;
		good++;
		if (str_eq(vm->uuid, UUID))
			read_again(vm, what);
		a = vm_to_json(vm, NULL, true);
		seen = vm_from_object(a, DATA, &ignored);
		b = vm_to_json(seen, NULL, true);
		if (!json_equal(a, b))
			fail_msg("%s\n%s\n%s", what, json_text(a), json_text(b));
	}
	assert_in_range(good, count / 20, count - count / 20); /* neither is all there is */
}

/* --- updates --- */

static struct vm *base(void)
{
	AUTO_JSON json_t *payload = json_pack(
		"{s:s, s:s, s:i, s:[{s:s, s:i}, {s:s, s:i}], s:[{s:s, s:s, s:s}], s:{s:s}}", "uuid",
		UUID, "name", "web0", "ram", 512, "disks", "model", "virtio", "size", 64, "model",
		"scsi", "size", 32, "nics", "nic_tag", "user", "model", "virtio", "mac",
		"52:54:00:00:00:07", "tags", "a", "b");
	AUTO_PROBLEMS struct problems p = {0};
	struct vm *vm = create(payload, &p);

	assert_int_equal(p.errors, 0);
	return vm;
}

static json_t *keyed(const struct prop_table *t, const char *key, bool partial)
{
	json_t *list = json_array(), *one = partial ? json_object() : json_string(key);

	if (partial) {
		json_put_str(one, t->key, dice(6) ? key : "52:54:00:00:00:08");
		put_members(one, t, 1 + dice(2));
	}
	json_array_append_new(list, one);
	return list;
}

static json_t *update_payload(const struct vm *vm)
{
	json_t *payload = json_object();

	put_members(payload, &vm_props, dice(4));
	if (dice(4) == 0)
		json_object_set_new(payload, "add_disks", any_elements(&disk_props));
	if (dice(4) == 0)
		json_object_set_new(payload, "add_nics", any_elements(&nic_props));
	if (dice(4) == 0)
		json_object_set_new(payload, "update_disks",
				    keyed(&disk_props, vm->disks[dice(2)]->path, true));
	if (dice(4) == 0)
		json_object_set_new(payload, "update_nics",
				    keyed(&nic_props, vm->nics[0]->mac, true));
	if (dice(6) == 0)
		json_object_set_new(payload, "remove_disks",
				    keyed(&disk_props, vm->disks[dice(2)]->path, false));
	if (dice(4) == 0)
		json_object_set_new(payload, "set_tags", any_map());
	if (dice(4) == 0)
		json_object_set_new(payload, "remove_tags", any_list());
	return payload;
}

/* The same list of changes, but for MACs and names that are made anew each time. */
static void same_changes(const struct vm_changes *a, const struct vm_changes *b, const char *what)
{
	if (a->count != b->count)
		fail_msg("%s: %zu changes and %zu", what, a->count, b->count);
	for (size_t i = 0; i < a->count; i++) {
		if (a->items[i].live != b->items[i].live || a->items[i].row != b->items[i].row)
			fail_msg("%s: %s and %s", what, a->items[i].path, b->items[i].path);
	}
}

static void test_update(void **state)
{
	static const char *const states[] = {"stopped", "running"};
	long count = number_of("VERDICTS", COUNT), good = 0;
	AUTO_VM struct vm *vm = base(), *shown = NULL;
	AUTO_JSON json_t *before = vm_to_json(vm, NULL, true);
	AUTO_PROBLEMS struct problems ignored = {0};

	replace_str(&vm->dir, xstrdup(DIR)); /* as the daemon has it, and the tools do not */
	shown = vm_from_object(before, DATA, &ignored);
	dice_state = (uint64_t)number_of("SEED", 2) * 0x9e3779b97f4a7c15u;
	for (long i = 0; i < count; i++) {
		AUTO_JSON json_t *payload = update_payload(vm), *after = NULL;
		AUTO_FREE char *what = json_text(payload);
		AUTO_PROBLEMS struct problems p = {0}, q = {0}, r = {0};
		struct vm_changes a = {0}, b = {0};
		const char *now = states[dice(2)];
		AUTO_VM struct vm *new = vm_update(vm, payload, now, &a, &p);
		AUTO_VM struct vm *told = vm_update(shown, payload, now, &b, &q);

		after = vm_to_json(vm, NULL, true);
		if (!json_equal(before, after))
			fail_msg("%s changed the VM it was judged against", what);
		if ((p.errors > 0) != (q.errors > 0))
			fail_msg("%s: %s\nand\n%s", what, problems_text(&p), problems_text(&q));
		if (p.errors == 0) {
			good++;
			assert_non_null(new);
			assert_non_null(told);
			same_changes(&a, &b, what);
			vm_validate(new, &r);
			if (r.errors)
				fail_msg("%s: %s", what, problems_text(&r));
			read_again(new, what);
		}
		vm_changes_done(&a);
		vm_changes_done(&b);
	}
	assert_in_range(good, count / 20, count - count / 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_update),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
