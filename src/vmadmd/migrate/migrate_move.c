/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration, the side the VM leaves: what QEMU does. Disks are mirrored to the other QEMU's NBD
 * server, memory goes after them; QEMU gets both streams as descriptors. The guest stands still
 * from the pause before the switch-over: then the mirrors end, with both sides equal, the other
 * side closes its server, and the rest of the memory goes. The order matters: facts are in
 * docs/migration.md.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmadmd/jobs.h"
#include "vmadmd/migrate/migrate.h"

#define SWITCH_MS 20000u
#define COPY_PART 50 /* percent of the work that copying is, where there is any */

static bool copies(const struct migrating *m)
{
	for (size_t i = 0; i < VM_DISKS_MAX; i++) {
		if (m->copy[i])
			return true;
	}
	return false;
}

static char *copy_name(size_t i)
{
	return xasprintf(MIGRATE_COPY "%zu", i);
}

/* --- streams --- */

static int give_stream(struct change *c, const char *socket, const char *name, live_answer then,
		       struct err *err)
{
	AUTO_FD int fd = -1;
	int r = peer_stream(c->live->migrating->peer, socket, &fd, err);

	return r < 0 ? r : live_try(c, "getfd", json_pack("{s:s}", "fdname", name), fd, then, err);
}

static void go_on(struct change *c, int r, const struct err *err)
{
	if (r < 0)
		change_fail(c, r == -EREMOTEIO ? -EIO : r, err);
}

static void on_connected(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r < 0)
		go_on(c, r, err);
	else
		change_next(c);
}

/* From now on either QEMU sees the other's end. */
int migrate_step_connect(struct change *c, struct err *err)
{
	return give_stream(c, MIGRATE_INCOMING, MIGRATE_STREAM, on_connected, err);
}

/* --- disks --- */

static void on_mirror(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r < 0) {
		go_on(c, r, err);
		return;
	}
	c->live->migrating->at++;
	change_again(c);
}

/* Bytes in a second, 0: as many as go. */
static json_int_t bandwidth(const struct change *c)
{
	return json_get_int(c->live->migrating->options, "bandwidth_mib", 0) << 20;
}

static void on_node(struct change *c, int r, const json_t *value, const struct err *why)
{
	size_t at = c->live->migrating->at;
	AUTO_FREE char *name = copy_name(at);
	struct err err = {0};

	if (r == 0)
		r = live_try(c, "blockdev-mirror",
			     json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:I}", "job-id", name,
				       "device", c->live->disks[at].node, "target", name, "sync",
				       "full", "copy-mode", "background", "auto-dismiss", 0,
				       "speed", bandwidth(c)),
			     -1, on_mirror, &err);
	else
		err = *why;
	go_on(c, r, &err);
}

static void on_nbd_fd(struct change *c, int r, const json_t *value, const struct err *why)
{
	AUTO_FREE char *name = copy_name(c->live->migrating->at);
	struct err err = {0};

	if (r == 0)
		r = live_try(c, "blockdev-add",
			     json_pack("{s:s, s:s, s:s, s:{s:s, s:s}}", "driver", "nbd",
				       "node-name", name, "export", name, "server", "type", "fd",
				       "str", name),
			     -1, on_node, &err);
	else
		err = *why;
	go_on(c, r, &err);
}

static json_t *job_of(const json_t *jobs, size_t i)
{
	AUTO_FREE char *name = copy_name(i);
	json_t *job;
	size_t k;

	json_array_foreach (jobs, k, job) {
		if (str_eq(json_get_str(job, "id", NULL), name))
			return job;
	}
	return NULL;
}

static int refuse_copy(const struct change *c, size_t i, const json_t *job, struct err *err)
{
	return err_set(err, EIO, "the copy of disk '%s' failed: %.300s", c->live->disks[i].path,
		       json_get_str(job, "error", "it ended"));
}

static int judge_ready(struct change *c, const json_t *jobs, struct err *err)
{
	const struct migrating *m = c->live->migrating;
	json_int_t now = 0, all = 0;
	bool ready = true;

	for (size_t i = 0; i < c->live->ndisks; i++) {
		const json_t *job = job_of(jobs, i);
		const char *status = json_get_str(job, "status", "concluded");

		if (!m->copy[i])
			continue;
		if (str_eq(status, "concluded") || str_eq(status, "aborting"))
			return refuse_copy(c, i, job, err);
		ready = ready && str_eq(status, "ready");
		now += json_get_int(job, "current-progress", 0);
		all += json_get_int(job, "total-progress", 0);
	}
	if (c->job && all > 0)
		job_progress(c->job, (unsigned)(now * COPY_PART / (all > now ? all : now + 1)),
			     "disks");
	return ready ? 1 : 0;
}

int migrate_step_copy(struct change *c, struct err *err)
{
	struct migrating *m = c->live->migrating;
	AUTO_FREE char *name = NULL;

	if (!copies(m))
		return 0;
	while (m->at < c->live->ndisks && !m->copy[m->at])
		m->at++;
	if (m->at >= c->live->ndisks) {
		live_point("copying");
		return live_until(c, "query-jobs", judge_ready, err);
	}
	name = copy_name(m->at);
	return give_stream(c, MIGRATE_NBD, name, on_nbd_fd, err);
}

/* --- memory --- */

static void tell_progress(struct change *c, const json_t *ram)
{
	json_int_t total = json_get_int(ram, "total", 0), left = json_get_int(ram, "remaining", 0);
	unsigned first = copies(c->live->migrating) ? COPY_PART : 0;
	double mbps = json_number_value(json_object_get(ram, "mbps"));
	AUTO_FREE char *text = NULL;

	if (!c->job || total <= 0 || left > total)
		return;
	if (mbps > 1)
		text = xasprintf("memory: %lld MiB left, about %.0f s", (long long)left >> 20,
				 (double)left * 8 / mbps / 1e6 + 0.5);
	else
		text = xasprintf("memory: %lld MiB left", (long long)left >> 20);
	job_progress(c->job, first + (unsigned)((total - left) * (99 - first) / total), text);
}

static int failure(const json_t *value, struct err *err)
{
	const char *status = json_get_str(value, "status", "");

	if (str_eq(status, "failed") || str_eq(status, "cancelled"))
		return err_set(err, EIO, "QEMU: %.300s",
			       json_get_str(value, "error-desc", "the transfer failed"));
	return 0;
}

static int judge_switch(struct change *c, const json_t *value, struct err *err)
{
	int r = failure(value, err);

	if (r < 0 || str_eq(json_get_str(value, "status", ""), "pre-switchover"))
		return r < 0 ? r : 1;
	tell_progress(c, json_object_get(value, "ram"));
	return 0;
}

static void on_migrate(struct change *c, int r, const json_t *value, const struct err *why)
{
	struct err err = *why;

	live_point("moving");
	if (r == 0)
		r = live_until(c, "query-migrate", judge_switch, &err);
	go_on(c, r, &err);
}

int migrate_step_memory(struct change *c, struct err *err)
{
	live_point("copied");
	return live_try(c, "migrate", json_pack("{s:s}", "uri", "fd:" MIGRATE_STREAM), -1,
			on_migrate, err);
}

/* --- it stands still --- */

static int judge_copied(struct change *c, const json_t *jobs, struct err *err)
{
	for (size_t i = 0; i < c->live->ndisks; i++) {
		const json_t *job = job_of(jobs, i);
		const char *status = json_get_str(job, "status", "gone");

		if (!c->live->migrating->copy[i])
			continue;
		if (str_eq(status, "gone") ||
		    (str_eq(status, "concluded") && json_object_get(job, "error")))
			return refuse_copy(c, i, job, err);
		if (!str_eq(status, "concluded"))
			return 0;
	}
	return 1;
}

static void on_cancelled(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r < 0) {
		go_on(c, r, err);
		return;
	}
	c->live->migrating->at++;
	change_again(c);
}

/* Cancelling a mirror that is ready completes it: both sides are equal. */
int migrate_step_copied(struct change *c, struct err *err)
{
	struct migrating *m = c->live->migrating;
	AUTO_FREE char *name = NULL;

	if (m->at >= VM_DISKS_MAX || !copies(m))
		return 0;
	if (!m->stopped) {
		live_point("still");
		m->stopped = true;
		m->at = 0;
	}
	while (m->at < c->live->ndisks && !m->copy[m->at])
		m->at++;
	if (m->at >= c->live->ndisks)
		return live_until(c, "query-jobs", judge_copied, err);
	name = copy_name(m->at);
	return live_try(c, "block-job-cancel", json_pack("{s:s}", "device", name), -1, on_cancelled,
			err);
}

static void on_switched(void *ctx, int r, const json_t *body, const struct err *err)
{
	struct change *c = ctx;

	if (r < 0)
		change_fail(c, r, err);
	else
		change_next(c);
}

/* Its NBD server must be gone before its QEMU takes the disks, or it could not write to them. */
int migrate_step_switch(struct change *c, struct err *err)
{
	struct migrating *m = c->live->migrating;

	if (!copies(m))
		return 0;
	for (size_t i = 0; i < c->live->ndisks; i++) {
		AUTO_FREE char *name = copy_name(i);

		if (!m->copy[i])
			continue;
		live_send(live_guest(c), "job-dismiss", json_pack("{s:s}", "id", name));
		live_send(live_guest(c), "blockdev-del", json_pack("{s:s}", "node-name", name));
	}
	peer_call(m->peer, "/arrivals/switch",
		  json_pack("{s:s, s:s}", "session", m->session, "uuid", c->uuid), SWITCH_MS,
		  on_switched, c);
	return STEP_WAIT;
}

static int judge_done(struct change *c, const json_t *value, struct err *err)
{
	const json_t *ram = json_object_get(value, "ram");
	struct migrating *m = c->live->migrating;
	int r = failure(value, err);

	if (r < 0 || !str_eq(json_get_str(value, "status", ""), "completed"))
		return r;
	m->figures = json_object();
	json_put_int(m->figures, "total_ms", json_get_int(value, "total-time", 0));
	json_put_int(m->figures, "downtime_ms", json_get_int(value, "downtime", 0));
	json_put_int(m->figures, "memory_bytes", json_get_int(ram, "transferred", 0));
	return 1;
}

static void on_continued(struct change *c, int r, const json_t *value, const struct err *why)
{
	struct err err = *why;

	if (r == 0)
		r = live_until(c, "query-migrate", judge_done, &err);
	go_on(c, r, &err);
}

int migrate_step_continue(struct change *c, struct err *err)
{
	live_point("switched");
	return live_try(c, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"), -1,
			on_continued, err);
}
