/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes of the host, for the information drivers of both eras: each prints attributes of the
 * core's template language. A probe that cannot see says so by failing, and prints nothing, so that
 * no VM is taken for gone. Source: fact sheet, 6.2 and 6.3.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/host/action.h"
#include "one/host/host.h"
#include "one/host/push.h"
#include "one/host/view.h"
#include "one/xml.h"

#define HYPERVISOR "drover"

struct probe {
	const char *kind;
	bool vms, stats;
	void (*print)(struct call *call, const struct view *v, struct strbuf *sb);
};

static const char *hypervisor_of(const struct call *call)
{
	const char *given = call_arg(call, "hypervisor");

	return *given ? given : HYPERVISOR;
}

static void put_vm(struct strbuf *sb, const json_t *vm)
{
	strbuf_printf(sb, "VM = [ ID=\"%ld\", DEPLOY_ID=\"%s\"", vm_number(vm), vm_deploy_id(vm));
}

static void put_base64(struct strbuf *sb, const char *key, const struct strbuf *text)
{
	AUTO_FREE char *coded = base64_encode(text->data ? text->data : "", text->len);

	strbuf_printf(sb, ", %s=\"%s\"", key, coded);
}

/* --- VMs --- */

static void print_wilds(struct call *call, const struct view *v, struct strbuf *sb)
{
	json_t *vm;
	size_t i;

	json_array_foreach (v->vms, i, vm) {
		AUTO_STRBUF struct strbuf text = {0};

		if (vm_number(vm) >= 0)
			continue;
		put_import(&text, vm, hypervisor_of(call), "DEPLOY_ID");
		put_vm(sb, vm);
		strbuf_printf(sb, ", VM_NAME=\"%s\"", json_get_str(vm, "name", ""));
		put_base64(sb, "IMPORT_TEMPLATE", &text);
		strbuf_puts(sb, " ]\n");
	}
}

/* Complete each time: who is missing does not run. Changes until the next time are pushed. */
static void print_status(struct call *call, const struct view *v, struct strbuf *sb)
{
	json_t *vm;
	size_t i;

	push_start(call, NULL);
	strbuf_printf(sb, "SYNC_STATE=yes\nMISSING_STATE=%s\n", v->sure ? "POWEROFF" : "UNKNOWN");
	json_array_foreach (v->vms, i, vm) {
		put_vm(sb, vm);
		strbuf_printf(sb, ", STATE=\"%s\" ]\n", vm_state_word(vm_letter(vm)));
	}
}

static void print_each(const struct view *v, struct strbuf *sb, bool snapshots)
{
	json_t *vm;
	size_t i;

	json_array_foreach (v->vms, i, vm) {
		AUTO_STRBUF struct strbuf text = {0};

		if (snapshots) {
			put_snapshots(&text, vm, '\n');
		} else {
			put_counters(&text, v, vm, '\n');
			put_sizes(&text, vm, '\n');
		}
		if (!text.len)
			continue;
		put_vm(sb, vm);
		put_base64(sb, "MONITOR", &text);
		strbuf_puts(sb, " ]\n");
	}
}

static void print_vm_monitor(struct call *call, const struct view *v, struct strbuf *sb)
{
	print_each(v, sb, false);
}

static void print_vm_snapshot(struct call *call, const struct view *v, struct strbuf *sb)
{
	print_each(v, sb, true);
}

/* --- the host --- */

static void print_beacon(struct call *call, const struct view *v, struct strbuf *sb)
{
	strbuf_printf(sb, "%lld\n", (long long)(clock_wall_ms() / 1000));
}

static void print_system(struct call *call, const struct view *v, struct strbuf *sb)
{
	AUTO_FREE char *location = call_value(call, "DATASTORE_LOCATION");

	strbuf_printf(sb, "HYPERVISOR=%s\n", hypervisor_of(call));
	host_put_static(sb);
	host_put_datastores(sb, location ? location : "/var/lib/one/datastores");
	print_wilds(call, v, sb);
}

static void print_monitor(struct call *call, const struct view *v, struct strbuf *sb)
{
	strbuf_printf(sb, "HYPERVISOR=%s\n", hypervisor_of(call));
	host_put_usage(sb);
}

/* A host of 5.x: everything at once; arguments are those of run_probes. */
static void put_host5(const struct call *call, struct strbuf *sb)
{
	const char *location = call->argc > 2 ? call->argv[2] : "";

	strbuf_printf(sb, "HYPERVISOR=%s\n", HYPERVISOR);
	host_put_static(sb);
	host_put_usage(sb);
	host_put_datastores(sb, *location == '/' ? location : "/var/lib/one/datastores");
}

/* The list is complete, or it is none: who is not in a complete one is powered off. */
static void put_list5(const struct view *v, struct strbuf *sb, bool counters)
{
	json_t *vm;
	size_t i;

	strbuf_puts(sb, "VM_POLL=YES\n");
	json_array_foreach (v->vms, i, vm) {
		AUTO_STRBUF struct strbuf text = {0}, poll = {0};

		put_vm(sb, vm);
		if (vm_number(vm) < 0) {
			put_import(&text, vm, HYPERVISOR, "IMPORT_VM_ID");
			strbuf_printf(sb, ", VM_NAME=\"%s\"", json_get_str(vm, "name", ""));
			put_base64(sb, "IMPORT_TEMPLATE", &text);
		}
		strbuf_printf(&poll, "STATE=%c ", vm_letter(vm));
		if (counters) {
			put_counters(&poll, v, vm, ' ');
			put_sizes(&poll, vm, ' ');
			put_snapshots(&poll, vm, ' ');
		}
		strbuf_printf(sb, ", POLL=\"%.*s\" ]\n", (int)poll.len - 1, poll.data);
	}
}

/* Who has just gone is named, so that the core need not miss him twice. */
static int report5(struct call *call, const json_t *gone, struct strbuf *sb)
{
	struct view v = {0};
	json_t *vm;
	size_t i;
	int r = view_open(&v, call, false, NULL);

	if (r == 0 && !v.sure)
		r = -EAGAIN;
	if (r == 0) {
		put_host5(call, sb);
		put_list5(&v, sb, false);
		json_array_foreach (gone, i, vm) {
			put_vm(sb, vm);
			strbuf_puts(sb, ", POLL=\"STATE=d\" ]\n");
		}
	}
	view_done(&v);
	return r;
}

static void print_host5(struct call *call, const struct view *v, struct strbuf *sb)
{
	push_start(call, report5);
	put_host5(call, sb);
	if (v->sure)
		put_list5(v, sb, true);
}

static const struct probe probes[] = {
	{"beacon", false, false, print_beacon},
	{"system", true, false, print_system},
	{"monitor", false, false, print_monitor},
	{"status", true, false, print_status},
	{"vm_monitor", true, true, print_vm_monitor},
	{"vm_snapshot", true, false, print_vm_snapshot},
	{"vm_execution", true, false, print_executions},
	{"host5", true, true, print_host5},
};

int act_probe(struct call *call, struct err *err)
{
	const char *kind = call_arg(call, "kind");
	AUTO_STRBUF struct strbuf sb = {0};
	const struct probe *probe = NULL;
	struct view v = {0};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(probes); i++)
		if (str_eq(probes[i].kind, kind))
			probe = &probes[i];
	if (!probe)
		return err_set(err, EINVAL,
			       "there is no probe '%.40s' (want beacon, system, monitor, status, "
			       "vm_monitor, vm_snapshot, vm_execution or host5)",
			       kind);
	if (probe->vms)
		r = view_open(&v, call, probe->stats, err);
	if (r == 0) {
		probe->print(call, &v, &sb);
		(void)fputs(sb.data ? sb.data : "", stdout);
	}
	if (probe->vms)
		view_done(&v);
	return r;
}
