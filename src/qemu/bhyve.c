/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bhyve_config file from loading to QEMU's vector. The hardware is walked over twice: on loading
 * with no descriptors, for its findings, and again with them for the vector, so that what was
 * checked is what is started.
 */
#include "qemu/bhyve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/bhyve_map.h"

void bhyve_hw_done(struct bhyve_hw *hw)
{
	argv_done(&hw->globals);
	argv_done(&hw->devices);
	argv_done(&hw->taps);
	argv_done(&hw->pool);
	free(hw->needs);
	*hw = (struct bhyve_hw){0};
}

void bhyve_free(struct bhyve *b)
{
	if (!b)
		return;
	bhyve_hw_done(&b->hw);
	bhyve_vars_done(b->vars);
	free(b->vars);
	free(b->generated);
	free(b);
}

/* --- loading --- */

static int count_lines(const char *text)
{
	int n = 1;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

/* The file's text and the definition's lines; which those are needs the file's variables. */
static char *merge(const char *path, const char *text, const struct vm *vm)
{
	AUTO_PROBLEMS struct problems ignored = {0};
	struct bhyve_source source = {.text = text, .own_lines = INT32_MAX};
	struct bhyve_vars vars = {.path = xstrdup(path)};
	AUTO_FREE char *lines = NULL;

	bhyve_parse(&source, &vars, &ignored);
	lines = bhyve_overrides(vm, &vars);
	bhyve_vars_done(&vars);
	return xasprintf("%s\n%s", text, lines);
}

/* Hardware is described in one place. */
static void refuse_mixture(const struct vm *vm, struct problems *p)
{
	AUTO_FREE char *where = xasprintf("%s:%d", vm->file ? vm->file : "definition", vm->line);

	for (size_t i = 0; i < vm->ndisks; i++) {
		if (vm->disks[i]->ucl_path.count > 0)
			problems_add(p, PROBLEM_BAD_PROPERTY, where, NULL,
				     "disk %s: stands beside a configfile (want it in there)",
				     vm->disks[i]->name);
	}
	for (size_t i = 0; i < vm->nnics; i++) {
		if (vm->nics[i]->ucl_path.count > 0)
			problems_add(p, PROBLEM_BAD_PROPERTY, where, NULL,
				     "nic %s: stands beside a configfile (want it in there)",
				     vm->nics[i]->name);
	}
}

static void no_fds(struct qemu_fds *f)
{
	*f = (struct qemu_fds){
		.mon = -1, .qmp = -1, .ttya = -1, .ttyb = -1, .agent = -1, .lock = -1};
	memset(f->taps, -1, sizeof(f->taps));
}

static void walk(struct bhyve *b, const struct vm *vm, struct problems *p)
{
	struct qemu_fds none;
	struct map m = {.vars = b->vars, .p = p, .hw = &b->hw, .b = {.vm = vm, .fds = &none}};

	no_fds(&none);
	bhyve_map(&m);
}

static void move_findings(struct problems *from, struct problems *to)
{
	for (int warnings = 0; warnings < 2; warnings++) {
		for (size_t i = 0; i < from->count; i++) {
			const struct problem *f = &from->items[i];

			if ((f->kind == PROBLEM_WARNING) == (warnings == 1))
				problems_add(to, f->kind, f->where, f->key, "%s", f->text);
		}
	}
}

int bhyve_load_text(const char *path, const char *text, const struct vm *vm, struct bhyve **ret,
		    struct problems *p)
{
	AUTO_PROBLEMS struct problems found = {0};
	struct bhyve *b = xcalloc(1, sizeof(*b));
	struct bhyve_source source;

	b->generated = merge(path, text, vm);
	b->vars = xcalloc(1, sizeof(*b->vars));
	b->vars->path = xstrdup(path);
	b->vars->definition = xstrdup(vm->file ? vm->file : "definition");
	source = (struct bhyve_source){
		.text = b->generated, .own_lines = count_lines(text), .definition_line = vm->line};
	bhyve_parse(&source, b->vars, &found);
	refuse_mixture(vm, &found);
	walk(b, vm, &found);
	move_findings(&found, p);
	if (found.errors > 0) {
		bhyve_free(b);
		return -EINVAL;
	}
	*ret = b;
	return 0;
}

int bhyve_load(const char *path, const struct vm *vm, struct bhyve **ret, struct problems *p)
{
	AUTO_FREE char *text = NULL;
	struct err err = {0};
	struct stat st;
	int r = file_read(path, BHYVE_FILE_MAX, &text, NULL, &st, &err);

	if (r == 0) /* it names disks that QEMU opens with our rights */
		r = file_check_trusted(&st, "configfile", path, &err);
	if (r < 0) {
		problems_add(p, PROBLEM_BAD_VALUE, vm->file, NULL, "configfile: %s",
			     err_text(&err, r));
		return r;
	}
	return bhyve_load_text(path, text, vm, ret, p);
}

/* --- what it holds --- */

const struct bhyve_info *bhyve_info(const struct bhyve *b)
{
	return &b->hw.info;
}

char *bhyve_generated(const struct bhyve *b)
{
	return xstrdup(b->generated);
}

const char *bhyve_tap(const struct bhyve *b, size_t i)
{
	return i < b->hw.taps.count ? b->hw.taps.items[i] : NULL;
}

/* --- the vector --- */

/* The VM as the common parts are to see it: vm's identity, the file's machine. */
static struct vm as_described(const struct bhyve_hw *hw, const struct vm *vm, char **ret_cpu)
{
	const struct bhyve_info *i = &hw->info;
	struct vm as = *vm;

	*ret_cpu = xasprintf("%s%s", vm->cpu_type ? vm->cpu_type : "host",
			     hw->x2apic ? ",x2apic=on" : "");
	as.cpu_type = *ret_cpu;
	as.name = vm->name ? vm->name : (char *)hw->name;
	as.uuid = (char *)i->uuid;
	as.ram_mib = i->ram_mib;
	as.vcpus = i->vcpus;
	as.sockets = i->sockets;
	as.cores = i->cores;
	as.threads = i->threads;
	as.acpi = hw->acpi;
	as.wire_memory = hw->wired;
	as.bootrom = (char *)i->bootrom;
	as.vnc_port = i->vnc.address ? 0 : -1;
	if (!vm->vnc_password || !vm->vnc_password[0])
		as.vnc_password = (char *)i->vnc.password;
	as.ndisks = as.nnics = as.nconsoles = 0;
	return as;
}

static int assemble(struct build *b, struct bhyve_hw *hw)
{
	static int (*const before[])(struct build *) = {argv_check, argv_identity, argv_core};
	static int (*const between[])(struct build *) = {argv_boot, argv_firmware, argv_monitors};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(before) && r == 0; i++)
		r = before[i](b);
	argv_join(b->out, &hw->globals);
	for (size_t i = 0; i < ARRAY_SIZE(between) && r == 0; i++)
		r = between[i](b);
	argv_join(b->out, &hw->devices);
	(void)argv_vnc(b);
	return r < 0 ? r : argv_extra(b);
}

int bhyve_argv(const struct bhyve *b, const struct vm *vm, const struct qemu_caps *caps,
	       const struct qemu_fds *fds, struct argv *ret, struct err *err)
{
	AUTO_PROBLEMS struct problems known = {0}; /* said when loading */
	AUTO_FREE char *cpu = NULL;
	struct argv out = {0};
	struct bhyve_hw hw = {0};
	struct map m = {.vars = b->vars, .p = &known, .hw = &hw, .b = {.vm = vm, .fds = fds}};
	struct qemu_fds all = *fds;
	struct vm as;
	struct build build = {.vm = &as, .caps = caps, .fds = &all, .out = &out, .err = err};
	int r;

	bhyve_map(&m);
	as = as_described(&hw, vm, &cpu);
	if (hw.info.bootvars)
		all.vars = hw.info.bootvars;
	build.dump_core = hw.guest_in_core;
	r = problems_to_err(&known, err);
	if (r == 0)
		r = assemble(&build, &hw);
	if (r == 0)
		argv_join(ret, &out);
	argv_done(&out);
	bhyve_hw_done(&hw);
	return r;
}
