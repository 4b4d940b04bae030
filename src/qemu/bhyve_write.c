/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines that a definition adds to its bhyve_config file. Only what a person gave is written,
 * never an empty value, and an LPC bridge only where a line needs one and the file has none.
 * Source: vmstated(8), the merged file.
 */
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "model/props.h"
#include "model/vm.h"
#include "qemu/bhyve_vars.h"

#define GIVEN(vm, field) given((vm), offsetof(struct vm, field))

static bool given(const struct vm *vm, size_t at)
{
	for (size_t i = 0; i < vm_props.count; i++) {
		const struct prop *row = &vm_props.rows[i];

		if (row->at == at && row->type < PROP_DISKS)
			return prop_given(&vm_props, &vm->given, row);
	}
	return false;
}

static void put(struct strbuf *sb, const char *name, const char *value)
{
	bool escape = value && strchr(value, '%');

	if (!value || !value[0])
		return;
	strbuf_printf(sb, "%s=", name);
	for (; *value; value++) {
		if (escape && (*value == '%' || *value == '\\'))
			strbuf_putc(sb, *value);
		strbuf_putc(sb, *value == '\n' ? ' ' : *value); /* a value is one line */
	}
	strbuf_putc(sb, '\n');
}

static void put_number(struct strbuf *sb, const char *name, uint32_t value, const char *unit)
{
	if (value > 0)
		strbuf_printf(sb, "%s=%u%s\n", name, value, unit);
}

static void put_bool(struct strbuf *sb, const char *name, bool value)
{
	put(sb, name, value ? "true" : "false");
}

static void put_processor_and_memory(struct strbuf *sb, const struct vm *vm)
{
	if (GIVEN(vm, ram_mib))
		put_number(sb, "memory.size", vm->ram_mib, "M");
	if (GIVEN(vm, vcpus))
		put_number(sb, "cpus", vm->vcpus, "");
	if (GIVEN(vm, sockets))
		put_number(sb, "sockets", vm->sockets, "");
	if (GIVEN(vm, cores))
		put_number(sb, "cores", vm->cores, "");
	if (GIVEN(vm, threads))
		put_number(sb, "threads", vm->threads, "");
	if (GIVEN(vm, acpi))
		put_bool(sb, "acpi_tables", vm->acpi);
	if (GIVEN(vm, vmexit_on_halt))
		put_bool(sb, "x86.vmexit_on_hlt", vm->vmexit_on_halt);
	if (GIVEN(vm, wire_memory))
		put_bool(sb, "memory.wired", vm->wire_memory);
}

/* A console without back end of its own is the VM's console. */
static bool put_consoles(struct strbuf *sb, const struct vm *vm)
{
	bool any = false;

	for (size_t i = 0; i < vm->nconsoles && i < VM_CONSOLES_MAX; i++) {
		const struct console *c = vm->consoles[i];
		const char *backend = c->backend && c->backend[0] ? c->backend : "stdio";
		AUTO_FREE char *name = xasprintf("lpc.com%zu.path", i + 1);

		if (!c->enabled)
			continue;
		put(sb, name, backend);
		any = true;
	}
	return any;
}

static bool has_lpc(const struct bhyve_vars *vars)
{
	for (size_t i = 0; i < vars->count; i++) {
		const struct bhyve_var *var = &vars->items[i];

		if (str_starts(var->name, "pci.") && str_ends(var->name, ".device") &&
		    str_eq(var->value, "lpc"))
			return true;
	}
	return false;
}

static void put_bridge(struct strbuf *sb, const struct vm *vm)
{
	put(sb, "pci.0.0.0.device", "hostbridge");
	if (vm->hostbridge != HOSTBRIDGE_AMD)
		return;
	put(sb, "pci.0.0.0.pcireg.vendor", "0x1022");
	put(sb, "pci.0.0.0.pcireg.device", "0x7432");
}

char *bhyve_overrides(const struct vm *vm, const struct bhyve_vars *vars)
{
	struct strbuf sb = {0};
	bool lpc;

	/* A section's name is the VM's; it steps back behind a name in the file. */
	if (GIVEN(vm, name) || !bhyve_find(vars, "", "name"))
		put(&sb, "name", vm->name);
	if (GIVEN(vm, uuid))
		put(&sb, "uuid", vm->uuid);
	put_processor_and_memory(&sb, vm);
	if (GIVEN(vm, bootrom))
		put(&sb, "lpc.bootrom", vm->bootrom);
	lpc = put_consoles(&sb, vm);
	lpc = lpc || (GIVEN(vm, bootrom) && vm->bootrom && vm->bootrom[0]);
	if (lpc && !has_lpc(vars) && !bhyve_find(vars, "", "pci.0.31.0.device"))
		put(&sb, "pci.0.31.0.device", "lpc");
	if (GIVEN(vm, hostbridge))
		put_bridge(&sb, vm);
	return strbuf_steal(&sb);
}
