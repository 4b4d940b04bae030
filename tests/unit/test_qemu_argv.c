/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Argument vectors against tests/golden/argv: *.json is a create payload, *.conf a definition of
 * one VM, *.argv what must come of it: the vector of a pass- case, the error of a fail- case.
 * Descriptors and probed capabilities are made up here; a name with -kvm- has KVM, one with -auto-
 * keeps the format unsettled, one with -notap- has no taps, one with
 * -seed- has a seed. REWRITE_GOLDEN=1 writes the *.argv.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/vm.h"
#include "qemu/argv.h"
#include "ucl/ucl.h"

#define FILE_MAX (1u << 20)
#define NS       "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

/* --- a case --- */

static struct vm *from_payload(const char *text, const char *name, struct problems *p)
{
	AUTO_JSON json_t *root = NULL;
	struct err err;

	if (json_parse_object(text, strlen(text), name, &root, &err) < 0)
		fail_msg("%s", err.msg);
	return vm_from_payload(root, p);
}

static struct vm *from_definition(const char *text, const char *name, struct problems *p)
{
	struct ucl_doc *doc = NULL;
	const struct ucl_value *root;
	struct vm *vm;
	struct err err;

	if (ucl_parse(name, text, strlen(text), NULL, &doc, &err) < 0)
		fail_msg("%s", err.msg);
	root = ucl_root(doc);
	assert_int_equal(root->count, 1);
	vm = vm_from_ucl(root->keys[0], root->items[0], NS, "golden", p);
	ucl_free(doc);
	return vm;
}

static struct vm *load(const char *path, const char *name)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *text = NULL;
	AUTO_FREE char *found = NULL;
	struct vm *vm;
	struct err err;

	if (file_read(path, FILE_MAX, &text, NULL, NULL, &err) < 0)
		fail_msg("%s", err.msg);
	vm = str_ends(name, ".json") ? from_payload(text, name, &p)
				     : from_definition(text, name, &p);
	found = problems_text(&p);
	if (p.errors > 0)
		fail_msg("%s: %s", name, found);
	vm_finish(vm, "/data");
	/* As who starts a VM does by the images' headers. */
	for (size_t i = 0; i < vm->ndisks && !strstr(name, "-auto-"); i++)
		if (vm->disks[i]->format == FORMAT_AUTO && vm->disks[i]->media == MEDIA_DISK)
			vm->disks[i]->format = FORMAT_QCOW2;
	return vm;
}

static char *outcome(const struct vm *vm, const char *name, struct argv *argv)
{
	struct qemu_caps caps = {.binary = (char[]){"/usr/bin/qemu-system-x86_64"},
				 .major = 7,
				 .minor = 2,
				 .micro = 22,
				 .machine = (char[]){"pc-q35-7.2"},
				 .kvm = strstr(name, "-kvm-") != NULL};
	struct qemu_fds fds = {.mon = 10,
			       .qmp = 11,
			       .ttya = 12,
			       .ttyb = vm->nconsoles > 1 ? 13 : -1,
			       .agent = 14,
			       .lock = 15,
			       .vars = vm->bootrom ? "/data/vars.qcow2" : NULL,
			       .seed = strstr(name, "-seed-") ? "/data/seed.iso" : NULL};
	struct err err = {0};
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(fds.taps); i++) {
		fds.taps[i] = strstr(name, "-notap-") ? -1 : 20 + (int)i;
		fds.vhosts[i] = strstr(name, "-vhost-") ? 60 + (int)i : 0;
	}
	r = qemu_argv(vm, &caps, &fds, argv, &err);
	assert_int_equal(r, -err.code);
	return r < 0 ? xasprintf("%s: %s\n", strerrorname_np(-r), err.msg) : argv_text(argv);
}

static void no_secret_in(const char *text, const struct vm *vm)
{
	const char *const secrets[] = {vm->vnc_password, vm->spice_password};

	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
		if (secrets[i] && secrets[i][0])
			assert_null(strstr(text, secrets[i]));
	assert_null(strstr(text, "root_pw"));
}

/* The case's argv, its text compared with (or written to) the golden file. */
static void judge(const char *dir, const char *name)
{
	AUTO_FREE char *path = path_join(dir, name);
	AUTO_FREE char *stem = xstrndup(path, (size_t)(strrchr(path, '.') - path));
	AUTO_FREE char *golden = xasprintf("%s.argv", stem);
	AUTO_FREE char *want = NULL;
	AUTO_FREE char *got = NULL;
	struct argv argv = {0};
	struct vm *vm = load(path, name);

	got = outcome(vm, name, &argv);
	assert_int_equal(str_starts(name, "fail-"), argv.count == 0);
	no_secret_in(got, vm);
	if (getenv("REWRITE_GOLDEN"))
		assert_int_equal(file_write(golden, got, strlen(got), 0644, FILE_NO_SYNC, NULL), 0);
	assert_int_equal(file_read(golden, FILE_MAX, &want, NULL, NULL, NULL), 0);
	if (!str_eq(got, want))
		print_error("%s differs from %s\n", name, golden);
	assert_string_equal(got, want);
	argv_done(&argv);
	vm_free(vm);
}

static void golden_files(void **state)
{
	AUTO_FREE char *dir =
		path_join(getenv("GOLDEN") ? getenv("GOLDEN") : "tests/golden", "argv");
	struct dirent **list;
	int n = scandir(dir, &list, NULL, alphasort), cases = 0;

	assert_true(n > 0);
	for (int i = 0; i < n; i++) {
		if (str_ends(list[i]->d_name, ".json") || str_ends(list[i]->d_name, ".conf")) {
			judge(dir, list[i]->d_name);
			cases++;
		}
		free(list[i]);
	}
	free(list);
	assert_true(cases > 0);
}

/* What the model refuses before, checked here all the same: the builder trusts nobody. */
static void unserved_values_are_refused(void **state)
{
	struct qemu_caps caps = {.binary = (char[]){"/q"}, .machine = (char[]){"pc-q35-7.2"}};
	struct vm vm = {.uuid = (char[]){"5c9f4c4e-9d3a-4a70-9d8e-2f0c7b4d1a11"}, .vcpus = 1};
	struct qemu_fds fds = {0};
	struct argv argv = {0};
	struct err err;

	vm.spice_port = 5930;
	assert_int_equal(qemu_argv(&vm, &caps, &fds, &argv, &err), -ENOTSUP);
	assert_true(str_starts(err.msg, "spice_port: "));
	vm.spice_port = 0;
	vm.machine = (char[]){"pc-q35-7.2,dump-guest-core=on"};
	assert_int_equal(qemu_argv(&vm, &caps, &fds, &argv, &err), -ENOTSUP);
	assert_true(str_starts(err.msg, "machine: "));
	vm.machine = NULL;
	vm.boot = (char[]){"order=c,splash=c"};
	assert_int_equal(qemu_argv(&vm, &caps, &fds, &argv, &err), -EINVAL);
	assert_true(str_starts(err.msg, "boot: "));
	vm.boot = NULL;
	vm.ndisks = VM_DISKS_MAX + 1;
	assert_int_equal(qemu_argv(&vm, &caps, &fds, &argv, &err), -E2BIG);
	assert_int_equal(argv.count, 0);
}

/* --- the rest of argv.h --- */

static void expect_words(const char *text, const char *want)
{
	AUTO_STRBUF struct strbuf sb = {0};
	struct argv argv = {0};
	struct err err = {0};
	int r = argv_split(text, "qemu_opts", &argv, &err);

	for (size_t i = 0; i < argv.count; i++)
		strbuf_printf(&sb, "[%s]", argv.items[i]);
	if (r < 0)
		strbuf_puts(&sb, err.msg);
	assert_string_equal(sb.data ? sb.data : "", want);
	argv_done(&argv);
}

static void words_are_split_without_a_shell(void **state)
{
	AUTO_STRBUF struct strbuf many = {0};

	expect_words("", "");
	expect_words("  -a\t-b \n", "[-a][-b]");
	expect_words("'' \"\" x''y", "[][][xy]");
	expect_words("'a b' \"c \\\" d\\\\ \\n\" e\\ f \\'", "[a b][c \" d\\ \\n][e f][']");
	expect_words("$HOME `x` *;|&", "[$HOME][`x`][*;|&]");
	expect_words("a 'b", "qemu_opts: the word at character 3 has no closing quote");
	expect_words("a\\", "qemu_opts: the word at character 1 has no closing quote");
	for (int i = 0; i < 257; i++)
		strbuf_puts(&many, "x ");
	expect_words(many.data, "qemu_opts: more than 256 arguments");
}

static void text_is_quoted_for_people(void **state)
{
	struct argv argv = {0};
	AUTO_FREE char *text = NULL;

	argv_add(&argv, "qemu");
	argv_add(&argv, "-device");
	argv_add(&argv, "{\"a\":\"it's\"}");
	argv_add(&argv, "-append");
	argv_add(&argv, "%s", "");
	text = argv_text(&argv);
	assert_string_equal(text, "qemu \\\n\t-device '{\"a\":\"it'\\''s\"}' \\\n\t-append ''\n");
	argv_done(&argv);
}

#define HELP                                                                                       \
	"Supported machines are:\npc  PC (alias of pc-i440fx-7.2)\n"                               \
	"q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)\n"              \
	"pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)\n"

static void caps_of(const char *version, const char *machine, int want, const char *text)
{
	struct qemu_caps caps = {0};
	struct err err = {0};

	assert_int_equal(qemu_caps_parse("/q", version, machine, &caps, &err), want);
	if (want < 0) {
		assert_non_null(strstr(err.msg, text));
		assert_null(caps.machine);
		return;
	}
	assert_string_equal(caps.machine, text);
	assert_string_equal(caps.binary, "/q");
	assert_false(caps.kvm);
	qemu_caps_done(&caps);
}

static void capabilities_are_read(void **state)
{
	caps_of("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright", HELP, 0, "pc-q35-7.2");
	caps_of("QEMU emulator version 10.0.0\n", HELP, 0, "pc-q35-7.2");
	caps_of("qemu 7", HELP, -EPROTO, "/q --version");
	caps_of("QEMU emulator version 5.2.0", HELP, -EPROTO, "want 6.2");
	caps_of("QEMU emulator version 7.2.0", "", -EPROTO, "q35");
	caps_of("QEMU emulator version 7.2.0", "q35 PC\npc (alias of x)\n", -EPROTO, "q35");
	caps_of("QEMU emulator version 7.2.0", "q35 PC (alias of x\n)", -EPROTO, "q35");
	caps_of("QEMU emulator version 7.2.0", "q35 PC (alias of ", -EPROTO, "q35");
}

static void variables_belong_to_a_firmware(void **state)
{
	static const char *const pairs[][2] = {
		{"/o/OVMF_CODE.fd", "/o/OVMF_VARS.fd"},
		{"/o/OVMF_CODE_4M.fd", "/o/OVMF_VARS_4M.fd"},
		{"/o/OVMF_CODE_4M.secboot.fd", "/o/OVMF_VARS_4M.fd"},
		{"/o/OVMF_CODE_4M.ms.fd", "/o/OVMF_VARS_4M.ms.fd"},
		{"/CODE/OVMF.fd", NULL},
		{"CODE", "VARS"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		AUTO_FREE char *got = qemu_vars_template(pairs[i][0]);

		assert_true(str_eq(got, pairs[i][1]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_files),
		cmocka_unit_test(unserved_values_are_refused),
		cmocka_unit_test(words_are_split_without_a_shell),
		cmocka_unit_test(text_is_quoted_for_people),
		cmocka_unit_test(capabilities_are_read),
		cmocka_unit_test(variables_belong_to_a_firmware),
	};

	return cmocka_run_group_tests_name("argv", tests, NULL, NULL);
}
