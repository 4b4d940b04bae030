/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running machine follows its definition; see plug.h. Order: ask what the machine has, make the
 * list of commands, run it. What is plugged in is described by the same functions as at a start
 * (qemu/argv.h), so the next start gives the same device.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "model/model.h"
#include "qemu/argv.h"
#include "store/catalog.h"
#include "vmadmd/devices/plug_private.h"
#include "vmadmd/guest.h"
#include "vmadmd/vmadmd.h"

/* --- what differs --- */

/* Other CD drives keep their name with another medium; other disks are known by their path. */
static bool same_disk(const struct disk *a, const struct disk *b)
{
	if (a->media == MEDIA_CDROM && b->media == MEDIA_CDROM && str_eq(a->name, b->name))
		return true;
	return a->path && str_eq(a->path, b->path);
}

const struct disk *plug_disk_in(const struct vm *vm, const struct disk *disk)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		if (same_disk(vm->disks[i], disk))
			return vm->disks[i];
	}
	return NULL;
}

static const struct nic *nic_in(const struct vm *vm, const struct nic *nic)
{
	for (size_t i = 0; i < vm->nnics; i++) {
		if (str_eq(vm->nics[i]->mac, nic->mac))
			return vm->nics[i];
	}
	return NULL;
}

const char *plug_path(const struct disk *d)
{
	return d->path ? d->path : "";
}

bool plug_limits_differ(const struct disk *a, const struct disk *b)
{
	return a->shares_limits != b->shares_limits || a->bps != b->bps || a->bps_rd != b->bps_rd ||
	       a->bps_wr != b->bps_wr || a->iops != b->iops || a->iops_rd != b->iops_rd ||
	       a->iops_wr != b->iops_wr;
}

bool plug_disk_differs(const struct disk *a, const struct disk *b)
{
	return plug_limits_differ(a, b) || (b->size_mib > a->size_mib && a->media == MEDIA_DISK) ||
	       !str_eq(plug_path(a), plug_path(b));
}

/* Only more of them: a guest may not let go, and cannot be made to. */
static bool more_cpus(const struct vm *old, const struct vm *new)
{
	bool room = old->vcpus_max == new->vcpus_max && old->vcpus_max >= new->vcpus;

	return room && old->vcpus < new->vcpus;
}

bool plug_wanted(const struct vm *old, const struct vm *new)
{
	bool differs = more_cpus(old, new) || old->balloon_mib != new->balloon_mib ||
		       old->io_bps != new->io_bps || old->io_iops != new->io_iops;

	for (size_t i = 0; i < new->ndisks && !differs; i++) {
		const struct disk *before = plug_disk_in(old, new->disks[i]);

		differs = !before || plug_disk_differs(before, new->disks[i]);
	}
	for (size_t i = 0; i < old->ndisks && !differs; i++)
		differs = !plug_disk_in(new, old->disks[i]);
	for (size_t i = 0; i < new->nnics && !differs; i++) {
		const struct nic *before = nic_in(old, new->nics[i]);

		differs = !before || before->link_down != new->nics[i]->link_down;
	}
	for (size_t i = 0; i < old->nnics && !differs; i++)
		differs = !nic_in(new, old->nics[i]);
	return differs;
}

/* --- steps --- */

void plug_touch(struct plug *p, const char *kind, const char *name, const char *key)
{
	json_t *list = json_object_get(p->names, kind);
	AUTO_FREE char *path = xasprintf("%s[%s]", kind, key);

	if (!list) {
		list = json_array();
		json_object_set_new(p->names, kind, list);
	}
	json_array_append_new(list, json_string(name));
	json_array_append_new(p->covered, json_string(path));
}

bool plug_covers(const struct plug *p, const char *path)
{
	json_t *one;
	size_t i;

	json_array_foreach (p->covered, i, one) {
		if (str_eq(json_string_value(one), path))
			return true;
	}
	return false;
}

const json_t *plug_names(const struct plug *p)
{
	return p->names;
}

void plug_step(struct plug *p, const char *command, json_t *args, const char *undo,
	       json_t *undo_args, const char *what)
{
	const struct trans_step step = {.command = command,
					.args = args,
					.undo = undo,
					.undo_args = undo_args,
					.what = xstrdup(what)};

	trans_add(p->trans, &step);
}

/* Options of the command line, and what makes and unmakes the same in a running machine. */
static const struct {
	const char *option, *add, *del, *key;
} makers[] = {
	{"-object", "object-add", "object-del", "id"},
	{"-blockdev", "blockdev-add", "blockdev-del", "node-name"},
	{"-netdev", "netdev_add", "netdev_del", "id"},
	{"-device", "device_add", "device_del", "id"},
};

static void one_maker(struct plug *p, const char *option, const char *text, bool in,
		      const char *what)
{
	json_t *j = json_loads(text, 0, NULL);

	for (size_t i = 0; i < ARRAY_SIZE(makers); i++) {
		const char *id = json_get_str(j, makers[i].key, "");
		struct trans_step step = {.what = xstrdup(what)};
		json_t *by_id;

		if (strcmp(makers[i].option, option) != 0) {
			free(step.what);
			continue;
		}
		by_id = json_pack("{s:s}", makers[i].key, id);
		step.command = in ? makers[i].add : makers[i].del;
		step.undo = in ? makers[i].del : makers[i].add;
		step.args = in ? j : by_id;
		step.undo_args = in ? by_id : j;
		if (strcmp(makers[i].option, "-device") == 0)
			step.gone = json_get_str(j, "id", "");
		else
			step.lax = !in; /* with snapshots the nodes have other names */
		trans_add(p->trans, &step);
	}
}

/* All that argv makes; out: unmade, in the other order. only: just this option. */
void plug_make(struct plug *p, const struct argv *argv, bool in, const char *only, const char *what)
{
	for (size_t n = 0; n < argv->count / 2; n++) {
		size_t at = 2 * (in ? n : argv->count / 2 - 1 - n);

		if (!only || strcmp(only, argv->items[at]) == 0)
			one_maker(p, argv->items[at], argv->items[at + 1], in, what);
	}
}

/* --- all of it --- */

static json_t *balloon(const struct vm *vm)
{
	uint64_t mib =
		vm->balloon_mib && vm->balloon_mib < vm->ram_mib ? vm->balloon_mib : vm->ram_mib;

	return json_pack("{s:I}", "value", (json_int_t)mib * (json_int_t)MIB);
}

/* The model as at the start (qemu/argv.c), each where it would be then. */
static void plan_cpus(struct plug *p)
{
	struct argv_topology t = argv_topology(p->old);
	const char *type = p->old->cpu_type ? p->old->cpu_type : "qemu64";
	int len = (int)strcspn(type, ",");
	bool host = len == 4 && str_starts(type, "host") &&
		    !str_eq(json_get_str(p->g->facts, FACT_ACCEL, ""), "kvm");
	AUTO_FREE char *driver =
		host ? xstrdup("max-x86_64-cpu") : xasprintf("%.*s-x86_64-cpu", len, type);

	for (uint32_t i = p->old->vcpus; i < p->new->vcpus; i++) {
		AUTO_FREE char *id = xasprintf("cpu%u", i);

		plug_step(p, "device_add",
			  json_pack("{s:s, s:s, s:i, s:i, s:i}", "driver", driver, "id", id,
				    "socket-id", (int)(i / (t.cores * t.threads)), "core-id",
				    (int)(i / t.threads % t.cores), "thread-id",
				    (int)(i % t.threads)),
			  "device_del", json_pack("{s:s}", "id", id), id);
	}
	(void)json_object_set_new(p->names, "vcpus", json_true());
	(void)json_array_append_new(p->covered, json_string("vcpus"));
}

/* Out first: a slot may be needed again. */
static int plan_out(struct plug *p, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < p->old->ndisks && r == 0; i++) {
		if (!plug_disk_in(p->new, p->old->disks[i]))
			r = plug_disk_out_steps(p, p->old->disks[i], err);
	}
	for (size_t i = 0; i < p->old->nnics && r == 0; i++) {
		if (!nic_in(p->new, p->old->nics[i]))
			r = plug_nic_out_steps(p, p->old->nics[i], err);
	}
	return r;
}

static int plan_in(struct plug *p, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < p->new->ndisks &&r == 0; i++) {
		const struct disk *d = p->new->disks[i], *before = plug_disk_in(p->old, d);

		if (!before)
			r = plug_disk_in_steps(p, d, err);
		else if (plug_disk_differs(before, d))
			r = plug_disk_change_steps(p, before, d, err);
	}
	for (size_t i = 0; i < p->new->nnics &&r == 0; i++) {
		const struct nic *n = p->new->nics[i], *before = nic_in(p->old, n);

		if (before)
			plug_nic_change_steps(p, before, n);
		else
			r = plug_nic_in_steps(p, n, err);
	}
	return r;
}

static int plan(struct plug *p, struct err *err)
{
	int r = plan_out(p, err);

	if (r == 0)
		r = plan_in(p, err);
	/* With changes that wait for a restart it is not known how many the machine has. */
	if (r == 0 && more_cpus(p->old, p->new) && !json_get_bool(p->g->facts, FACT_PENDING, false))
		plan_cpus(p);
	if (r == 0 && p->old->balloon_mib != p->new->balloon_mib)
		plug_step(p, "balloon", balloon(p->new), "balloon", balloon(p->old), "the balloon");
	return r;
}

/* --- of one that was cut short --- */

/* The device a limit or a cable is of: "disk0", or by a path of its inside. */
static bool device_there(const struct plug *p, const struct trans_step *s)
{
	static const char inside[] = "/machine/peripheral/";
	const char *of = json_get_str(s->args, "id", json_get_str(s->args, "name", NULL));
	AUTO_FREE char *id = NULL;

	if (!of)
		return true; /* of the machine as a whole */
	of += str_starts(of, inside) ? strlen(inside) : 0;
	id = xstrndup(of, strcspn(of, "/"));
	return machine_has(&p->machine, "device_add", id);
}

/* Of this step, is there something to be taken back? */
static bool is_half(const struct plug *p, const struct trans_step *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(makers); i++) {
		bool in = str_eq(s->command, makers[i].add);

		if (in || str_eq(s->command, makers[i].del))
			return machine_has(&p->machine, makers[i].add,
					   json_get_str(s->args, makers[i].key, "")) == in;
	}
	if (s->of_vmstated) {
		const char *id = json_get_str(json_object_get(s->args, "netdev"), "id", "");

		return machine_has(&p->machine, "netdev_add", id) == str_eq(s->command, "plug-nic");
	}
	return s->undo && device_there(p, s);
}

/* Values are set to what they were, whether they had been changed or not. A tray may refuse what
 * it has already. */
static void plan_back(struct plug *p)
{
	const json_t *one;
	size_t i;

	json_array_foreach (json_object_get(p->journal, "steps"), i, one) {
		struct trans_step s;

		trans_step_of(one, &s);
		s.asked_out = str_eq(s.command, "device_del") && !is_half(p, &s);
		if (s.asked_out || is_half(p, &s)) {
			s.lax = str_ends(s.command, "-tray") || str_ends(s.command, "-medium");
			trans_add(p->trans, &s);
			continue;
		}
		trans_step_done(&s);
	}
}

/* --- planned, run, undone --- */

static void on_run(void *ctx, int r, const struct err *err)
{
	struct plug *p = ctx;

	p->working = false;
	p->done(p->ctx, r, err);
}

static void on_asked(void *ctx, int r, const struct err *err)
{
	struct plug *p = ctx;
	struct err text = *err;

	p->asking = false;
	if (p->stopped) {
		r = p->stopped;
		text = p->why;
	} else if (r < 0) {
		r = err_set(&text, -r, "QEMU of VM %s: %s", p->g->uuid, err_text(err, r));
	} else if (p->journal) {
		plan_back(p);
		p->working = true;
		trans_undo_all(p->trans, on_run, p);
		return;
	} else {
		r = plan(p, &text);
	}
	p->done(p->ctx, r, &text);
}

static int on_failed_start(sd_event_source *source, void *ctx)
{
	struct plug *p = ctx;

	sd_event_source_unref(source);
	p->asking = false;
	p->done(p->ctx, -p->why.code, &p->why);
	return 0;
}

static struct plug *ask(struct guest *g, const struct plug *like)
{
	struct plug *p = xcalloc(1, sizeof(*p));
	sd_event_source *later = NULL;

	*p = *like;
	p->g = g;
	p->asking = true;
	p->trans = trans_new(g);
	p->names = json_object();
	p->covered = json_array();
	if (machine_ask(g, &p->machine, on_asked, p, &p->why) < 0)
		(void)sd_event_add_defer(g->d->event, &later, on_failed_start, p);
	return p;
}

/* Disks without limits of their own have those of the VM, as a group. */
static void share_limits(struct vm *vm)
{
	const struct disk none = {0};

	for (size_t i = 0; i < vm->ndisks && (vm->io_bps || vm->io_iops); i++) {
		struct disk *d = vm->disks[i];

		if (d->media != MEDIA_DISK || plug_limits_differ(d, &none))
			continue;
		d->shares_limits = true;
		d->bps = vm->io_bps;
		d->iops = vm->io_iops;
	}
}

struct plug *plug_plan(struct guest *g, const struct vm *old, const struct vm *new, bool force,
		       trans_done done, void *ctx)
{
	const struct plug like = {
		.old = vm_copy(old), .new = vm_copy(new), .force = force, .done = done, .ctx = ctx};

	share_limits(like.old);
	share_limits(like.new);
	return ask(g, &like);
}

struct plug *plug_cut_short(struct guest *g, const json_t *journal, trans_done done, void *ctx)
{
	const struct plug like = {.journal = journal, .done = done, .ctx = ctx};

	return ask(g, &like);
}

bool plug_empty(const struct plug *p)
{
	return trans_empty(p->trans);
}

json_t *plug_journal(const struct plug *p)
{
	return json_pack("{s:o, s:O, s:I}", "steps", trans_json(p->trans), "names", p->names,
			 FACT_ZONEID, json_get_int(p->g->facts, FACT_ZONEID, 0));
}

bool plug_half(const struct plug *p)
{
	return p && trans_half(p->trans);
}

void plug_run(struct plug *p, trans_done done, void *ctx)
{
	p->done = done;
	p->ctx = ctx;
	p->working = true;
	trans_run(p->trans, on_run, p);
}

void plug_undo(struct plug *p, trans_done done, void *ctx)
{
	p->done = done;
	p->ctx = ctx;
	p->working = true;
	trans_undo(p->trans, on_run, p);
}

void plug_stop(struct plug *p, int r, const struct err *why)
{
	if (p->asking) {
		p->stopped = r;
		p->why = *why;
	} else if (p->working) {
		trans_stop(p->trans, r, why);
	}
}

void plug_free(struct plug *p)
{
	if (!p)
		return;
	trans_free(p->trans);
	machine_done_with(&p->machine);
	json_decref(p->names);
	json_decref(p->covered);
	vm_free(p->old);
	vm_free(p->new);
	free(p);
}

/* --- what is not told at the start --- */

static void on_settled(void *ctx, int r, const struct err *err);

static void on_settling(void *ctx, int r, const struct err *err)
{
	struct guest *g = ctx;

	if (r < 0 || plug_empty(g->settling))
		on_settled(g, r, err);
	else
		plug_run(g->settling, on_settled, g);
}

static void on_settled(void *ctx, int r, const struct err *err)
{
	struct guest *g = ctx;

	if (r < 0)
		log_warn("vm=%s limits or links not set: %s", g->uuid, err_text(err, r));
	plug_free(g->settling);
	g->settling = NULL;
}

void plug_settle(struct guest *g)
{
	const struct catalog_entry *e = catalog_by_uuid(g->d->catalog, g->uuid);
	AUTO_VM struct vm *bare = NULL;

	if (!e || g->settling)
		return;
	bare = vm_copy(e->vm);
	bare->balloon_mib = 0;
	bare->io_bps = bare->io_iops = 0;
	for (size_t i = 0; i < bare->ndisks; i++) {
		struct disk *d = bare->disks[i];

		d->bps = d->bps_rd = d->bps_wr = d->iops = d->iops_rd = d->iops_wr = 0;
	}
	for (size_t i = 0; i < bare->nnics; i++)
		bare->nics[i]->link_down = false;
	if (plug_wanted(bare, e->vm))
		g->settling = plug_plan(g, bare, e->vm, false, on_settling, g);
}
