/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration, the side the VM leaves. In order: judge; ask the other side to make everything ready;
 * copy disks that are not shared; send memory until the guest stands still; finish the copies; send
 * the rest. Then it is written down that the VM is handed over, and only then the other side is
 * told to run it. Until that is written, any failure lets the VM go on here; from there on only the
 * other side's word counts (migrate_back.c). docs/migration.md has the table.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/names.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "model/model.h"
#include "net/http.h"
#include "store/catalog.h"
#include "store/started.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/snapshot.h"
#include "vmadmd/migrate/migrate.h"

#define OFFER_MS      120000u /* disks are made there, and QEMU started */
#define GRANT_MS      20000u
#define BANDWIDTH     (64ll << 30) /* of QEMU, when nobody wants less: the wire is the limit */
#define BANDWIDTH_MAX 1048576      /* MiB/s */
#define DOWNTIME_MAX  2000000      /* ms, QEMU's own bound */

struct migrating *migrating_new(void)
{
	struct migrating *m = xcalloc(1, sizeof(*m));

	uuid_random(m->session);
	return m;
}

void migrating_free(struct migrating *m)
{
	if (!m)
		return;
	peer_free(m->peer);
	sd_event_source_disable_unref(m->retry);
	json_decref(m->options);
	json_decref(m->offer);
	json_decref(m->figures);
	free(m->to);
	free(m);
}

/* --- requests --- */

static int take_number(const json_t *body, const char *name, json_int_t most, struct err *err)
{
	const json_t *value = json_object_get(body, name);

	if (!value || (json_is_integer(value) && json_integer_value(value) >= 1 &&
		       json_integer_value(value) <= most))
		return 0;
	return err_set(err, EINVAL, "%s: want a whole number of 1 to %lld", name, (long long)most);
}

static int take_options(struct migrating *m, struct vmadmd *d, const char *uuid, struct err *err)
{
	const char *to = json_get_str(m->options, "to", "");
	int r = take_number(m->options, "bandwidth_mib", BANDWIDTH_MAX, err);

	if (r == 0)
		r = take_number(m->options, "downtime_ms", DOWNTIME_MAX, err);
	if (r == 0)
		r = peer_new(d, uuid, to, &m->peer, err);
	m->to = xstrdup(to);
	return r;
}

/* A person says that it does not run there; whoever asks the other side now hears it. */
static void take_back(struct http_request *req, struct vmadmd *d, const char *uuid)
{
	AUTO_JSON json_t *out = json_object();
	struct err err = {0};

	for (struct change *c = d->changes; c; c = c->next) {
		struct migrating *m = c->live ? c->live->migrating : NULL;

		if (!str_eq(c->uuid, uuid) || !m || !m->retry || m->granted)
			continue;
		log_warn("vm=%s taken back by force uid=%u: %s did not say that it does not run "
			 "there",
			 uuid, request_uid(d, req), m->to);
		m->here = true;
		json_put_str(out, "uuid", uuid);
		http_reply_json(req, 200, out);
		return;
	}
	err_set(&err, EALREADY, "VM %s does not wait for word from another side", uuid);
	http_reply_err(req, -EALREADY, &err);
}

void handle_migrate(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	struct change_by by = {.command = "vmadm migrate"};
	AUTO_JSON json_t *body = NULL;
	struct target target;
	struct err err = {0};
	struct live *l;
	size_t len;
	const char *text = http_body_text(req, &len);
	int r;

	if (!target_find(d, req, true, &target))
		return;
	r = json_parse_object(text, len, "body", &body, &err);
	if (r == 0 && json_get_bool(body, "here", false)) {
		take_back(req, d, target.uuid);
		return;
	}
	l = live_new();
	l->migrating = migrating_new();
	l->migrating->options = steal_ptr(body);
	if (r == 0)
		r = take_options(l->migrating, d, target.uuid, &err);
	if (r < 0) {
		http_reply_err(req, r, &err);
		live_free(l);
		return;
	}
	by.uid = target.uid;
	change_order(d, &change_migrate, target.uuid, &by, l, req);
}

/* --- judged --- */

static int check(struct change *c, struct err *err)
{
	const struct guest *g = guest_find(c->d, c->uuid);
	const char *state = guest_state(c->d, c->uuid);
	const char *run = g && g->facts ? json_get_str(g->facts, FACT_RUN_STATE, "") : "";

	if (!str_eq(state, "running"))
		return err_set(err, EBUSY,
			       "Cannot migrate vm from state \"%s\", must be \"running\"", state);
	if (!str_eq(run, "running"))
		return err_set(err, EBUSY, "Cannot migrate vm while QEMU says \"%s\": resume it",
			       run);
	if (json_get_bool(g->facts, FACT_PENDING, false))
		return err_set(err, EBUSY,
			       "VM %s has changes that wait for its next start (vmadm get "
			       "--pending): restart it, or take them back",
			       c->uuid);
	return 0;
}

static int check_vm(struct change *c, const struct vm *vm, const json_t *facts, struct err *err)
{
	if (!c->live->running)
		return err_set(err, EBUSY, "VM %s does not run", c->uuid);
	if (vm->configfile)
		return err_set(err, ENOTSUP,
			       "VM %s: its hardware is that of '%s', which the other side has not",
			       c->uuid, vm->configfile);
	if (json_object_get(facts, "once"))
		return err_set(err, ENOTSUP,
			       "VM %s was started with media for that boot alone: restart it",
			       c->uuid);
	return 0;
}

/* --- offered --- */

static json_int_t size_of(const struct live *l, const char *path, json_int_t *ret_actual)
{
	const json_t *block, *image;
	size_t i;

	json_array_foreach (l->blocks, i, block) {
		const json_t *inserted = json_object_get(block, "inserted");

		image = json_object_get(inserted, "image");
		if (!str_eq(json_get_str(inserted, "file", ""), path))
			continue;
		*ret_actual = json_get_int(image, "actual-size", 0);
		return json_get_int(image, "virtual-size", 0);
	}
	return 0;
}

/* copy_disks is true for all files outside the data directory, or a list of their paths. */
static bool to_copy(const json_t *options, const char *path)
{
	const json_t *wanted = json_object_get(options, "copy_disks"), *one;
	size_t i;

	json_array_foreach (wanted, i, one) {
		if (str_eq(json_string_value(one), path))
			return true;
	}
	return json_is_true(wanted);
}

static json_t *offer_disk(struct change *c, size_t i)
{
	const struct live_disk *disk = &c->live->disks[i];
	struct migrating *m = c->live->migrating;
	json_t *out = json_object();
	json_int_t actual = 0, size = size_of(c->live, disk->path, &actual);
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, "");
	struct stat st = {0};

	if (stat(disk->path, &st) == 0)
		json_put_int(out, "inode", (json_int_t)st.st_ino);
	m->copy[i] = str_starts(disk->path, data) ||
		     (!S_ISBLK(st.st_mode) && to_copy(m->options, disk->path));
	json_put_str(out, "path", disk->path);
	json_put_str(out, "format", disk->format);
	json_put_bool(out, "copy", m->copy[i]);
	json_put_bool(out, "block_device", S_ISBLK(st.st_mode));
	json_put_int(out, "size", size);
	json_put_int(out, "bytes", actual);
	return out;
}

/* What is shared is the file at its path: is that the one QEMU has open? */
static int check_open(struct change *c, const struct live_disk *disk, struct err *err)
{
	json_int_t pid = json_get_int(live_guest(c)->facts, FACT_PID, 0);
	AUTO_FREE char *path = xasprintf("/proc/%lld/fd", (long long)pid);
	DIR *dir = opendir(path);
	const struct dirent *entry;
	struct stat want, st;
	bool found = !dir || stat(disk->path, &want) < 0 || !S_ISREG(want.st_mode);

	while (!found && (entry = readdir(dir)) != NULL)
		found = fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 &&
			st.st_dev == want.st_dev && st.st_ino == want.st_ino;
	if (dir)
		(void)closedir(dir);
	return found ? 0
		     : err_set(err, EBUSY,
			       "disk '%s' was replaced while the VM runs: QEMU has the file open "
			       "that was there before (put it back, or restart the VM)",
			       disk->path);
}

static int offer(struct change *c, struct err *err)
{
	struct migrating *m = c->live->migrating;
	const struct catalog_entry *e = change_entry(c, err);
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, "");
	AUTO_JSON json_t *machine = snap_machine(c->d, c->uuid, err);
	json_t *disks = json_array(), *object;
	int r = 0;

	if (!e || !machine) {
		json_decref(disks);
		return -EIO;
	}
	for (size_t i = 0; i < c->live->ndisks && r == 0; i++) {
		(void)json_array_append_new(disks, offer_disk(c, i));
		if (!m->copy[i])
			r = check_open(c, &c->live->disks[i], err);
	}
	if (r < 0) {
		json_decref(disks);
		return r;
	}
	object = vm_to_json(e->vm, NULL, true);
	/* As it runs, whatever is newest or there elsewhere. */
	json_put_str(object, "machine", json_get_str(machine, "machine", NULL));
	json_put_str(object, "accel", json_get_str(live_guest(c)->facts, FACT_ACCEL, NULL));
	m->offer = json_pack("{s:i, s:s, s:s, s:s, s:s, s:o, s:o}", "version", 1, "session",
			     m->session, "uuid", c->uuid, "data_dir", data, "program",
			     "vmadmd " DROVER_VERSION, "object", object, "disks", disks);
	return 0;
}

/* They lie in disks that are shared, so that only what is known of them goes along. */
static int offer_snapshots(struct change *c, struct err *err)
{
	const struct migrating *m = c->live->migrating;
	AUTO_JSON json_t *index = snap_index(c->d, c->uuid, err);
	AUTO_FREE char *data = path_of_data(c->d->paths, c->uuid, "");
	bool vars = c->live->vars && str_starts(c->live->vars, data), stay = vars;

	if (!index)
		return -EIO;
	if (json_array_size(json_object_get(index, "snapshots")) == 0)
		return 0;
	for (size_t i = 0; i < c->live->ndisks; i++)
		stay = stay || m->copy[i];
	if (stay)
		return err_set(err, ENOTSUP,
			       "VM %s has snapshots, which would stay behind with %s: delete them "
			       "first (vmadm list-snapshots)",
			       c->uuid,
			       vars ? "its firmware's variables" : "disks that are copied");
	(void)json_object_set(m->offer, "snapshots", index);
	return 0;
}

/* What is deleted here in the end must be ours to delete. */
static int prepare(struct change *c, struct err *err)
{
	AUTO_JSON json_t *facts = NULL;
	AUTO_VM struct vm *vm = NULL;
	int r = started_read(c->d->paths, c->uuid, &vm, &facts, err);

	if (r == 0)
		r = check_vm(c, vm, facts, err);
	if (r == 0)
		r = migrate_step_old(c, err);
	if (r == 0)
		r = offer(c, err);
	if (r == 0)
		r = offer_snapshots(c, err);
	if (r < 0)
		return r;
	c->live->journal = snap_journal(c, "migrate");
	json_put_str(c->live->journal, MIGRATE_SESSION, c->live->migrating->session);
	json_put_str(c->live->journal, "to", c->live->migrating->to);
	json_put_str(c->live->journal, MIGRATE_PHASE, "moving");
	return 0;
}

static void on_offered(void *ctx, int r, const json_t *body, const struct err *err)
{
	struct change *c = ctx;

	live_point("offered");
	if (r < 0)
		change_fail(c, r, err);
	else
		change_next(c);
}

static int send_offer(struct change *c, struct err *err)
{
	struct migrating *m = c->live->migrating;

	if (c->job)
		job_progress(c->job, 0, "made ready there");
	peer_call(m->peer, "/arrivals", json_incref(m->offer), OFFER_MS, on_offered, c);
	return STEP_WAIT;
}

/* --- how --- */

static int capabilities(struct change *c, struct err *err)
{
	return migrate_capabilities(c, migrate_source, true, err);
}

static void on_parameters(struct change *c, const json_t *value)
{
	change_next(c);
}

static int parameters(struct change *c, struct err *err)
{
	const json_t *options = c->live->migrating->options;
	json_int_t mib = json_get_int(options, "bandwidth_mib", 0);
	json_t *args = json_object();

	json_put_int(args, "max-bandwidth", mib ? mib << 20 : BANDWIDTH);
	json_put_int(args, "downtime-limit", json_get_int(options, "downtime_ms", 300));
	return live_ask(c, "migrate-set-parameters", args, on_parameters, err);
}

/* --- handed over --- */

static int write_phase(struct change *c, const char *phase, struct err *err)
{
	json_put_str(c->live->journal, MIGRATE_PHASE, phase);
	return change_work(c, live_journal_write, NULL, err);
}

static int hand_over(struct change *c, struct err *err)
{
	AUTO_FREE char *why = xasprintf(
		"it was handed over to %s, which has not said yet whether it runs there (vmadm "
		"jobs)",
		c->live->migrating->to);

	live_point("moved");
	json_put_str(c->live->journal, JOURNAL_KEEP_AWAY, why);
	return write_phase(c, "handing", err);
}

/* Had this QEMU ended before that was written, vmstated might have started another. */
static void on_status(struct change *c, const json_t *value)
{
	const char *status = json_get_str(value, "status", "");
	struct err err = {0};

	if (str_eq(status, "postmigrate"))
		change_next(c);
	else
		change_fail(c,
			    err_set(&err, EIO, "QEMU is in state '%s' after its migration", status),
			    &err);
}

static int verify(struct change *c, struct err *err)
{
	live_point("handing");
	return live_ask(c, "query-status", NULL, on_status, err);
}

static void on_granted(void *ctx, int r, const json_t *body, const struct err *err)
{
	struct change *c = ctx;
	const json_t *granted = json_object_get(body, "granted");

	live_point("granted");
	if (r == 0 && json_is_boolean(granted)) {
		c->live->migrating->granted = json_is_true(granted);
		change_next(c);
		return;
	}
	log_warn("vm=%s the other side did not say whether it runs there: %s", c->uuid, err->msg);
	(void)migrate_settle(c, NULL);
}

static int grant(struct change *c, struct err *err)
{
	struct migrating *m = c->live->migrating;

	if (c->job)
		job_progress(c->job, 99, "handed over");
	peer_call(m->peer, "/arrivals/grant",
		  json_pack("{s:s, s:s}", "session", m->session, "uuid", c->uuid), GRANT_MS,
		  on_granted, c);
	return STEP_WAIT;
}

/* It said no, or a person did: from here on nobody needs to be asked. */
static int granted(struct change *c, struct err *err)
{
	if (c->live->migrating->granted)
		return 0;
	return write_phase(c, "back", err);
}

static int refused(struct change *c, struct err *err)
{
	if (c->live->migrating->granted)
		return 0;
	return err_set(err, EIO, "it does not run there, so it goes on here");
}

int migrate_step_answer(struct change *c, struct err *err)
{
	const struct migrating *m = c->live->migrating;
	AUTO_JSON json_t *out = json_object();

	log_info("vm=%s migrated to='%s' uid=%u", c->uuid, m->to, c->uid);
	json_put_str(out, "uuid", c->uuid);
	json_put_str(out, "to", m->to);
	if (m->figures)
		(void)json_object_update(out, m->figures);
	return change_answer(c, out, "migrated");
}

static int cancel(struct change *c, int r, const struct err *why, struct err *err)
{
	return until_end(c, r, why)
		       ? 0
		       : err_set(err, EBUSY, "VM %s: it is too late to end it, or too early",
				 c->uuid);
}

static const change_step steps[] = {
	check,
	live_step_lock,
	live_step_nodes,
	prepare,
	live_step_job,
	live_step_mark,
	send_offer,
	capabilities,
	parameters,
	migrate_step_connect,
	migrate_step_copy,
	migrate_step_memory,
	migrate_step_copied,
	migrate_step_switch,
	migrate_step_continue,
	hand_over,
	verify,
	grant,
	granted,
	refused,
	MIGRATE_STEPS_AWAY,
};

const struct change_kind change_migrate = {"migrate", steps,     ARRAY_SIZE(steps),
					   NULL,      live_undo, cancel};
