/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory and devices on their way through a pipe: QEMU at one end, by migration to or from a
 * descriptor (a command to run is what its sandbox forbids), a worker with the file at the other.
 * The step is over when both have ended; whoever failed first tells why.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/save.h"
#include "vmadmd/worker.h"

#define FD_NAME    "drover-state"
#define LOOK_MS    500u
#define BANDWIDTH  (64ll << 30) /* the default of 128 MiB/s is for networks */
#define PIPE_BYTES (1 << 20)

static void close_end(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

struct saving *saving_new(void)
{
	struct saving *s = xcalloc(1, sizeof(*s));

	s->pipe[0] = s->pipe[1] = -1;
	return s;
}

static void stop_watching(struct saving *s)
{
	struct guest *g = s->on_way ? guest_find(s->c->d, s->c->uuid) : NULL;

	if (g)
		monitor_unwatch(g, &s->watch);
	timer_stop(s->look);
	if (s->on_way)
		s->c->live->cancellable = false;
	s->on_way = false;
}

void saving_free(struct saving *s)
{
	if (!s)
		return;
	stop_watching(s);
	sd_event_source_disable_unref(s->look);
	close_end(&s->pipe[0]);
	close_end(&s->pipe[1]);
	free(s->who.groups);
	free(s->file);
	free(s->temp);
	json_decref(s->head);
	json_decref(s->disks);
	free(s);
}

/* Both ends are through: the first who failed has the reason. */
static void settle(struct saving *s)
{
	struct change *c = s->c;

	if (!s->on_way || !s->worker_ended || !s->moved)
		return;
	stop_watching(s);
	if (s->cancelled)
		change_fail(c, c->ended, &c->end_why);
	else if (s->worker_r < 0 && s->worker_r != -EPIPE)
		change_fail(c, s->worker_r, &s->worker_why);
	else if (s->move_r < 0)
		change_fail(c, s->move_r, &s->move_why);
	else if (s->worker_r < 0)
		change_fail(c, s->worker_r, &s->worker_why);
	else
		change_next(c);
}

static void moved(struct saving *s, int r)
{
	if (s->moved)
		return;
	s->moved = true;
	s->move_r = r;
	close_end(&s->pipe[0]);
	close_end(&s->pipe[1]);
	settle(s);
}

static void on_worker(void *ctx, int r, const struct err *err)
{
	struct change *c = ctx;
	struct saving *s = c->live->saving;

	c->worker = NULL;
	s->worker_ended = true;
	s->worker_r = r;
	s->worker_why = *err;
	settle(s);
}

/* --- what QEMU says of it --- */

static void tell_progress(struct change *c, const json_t *value)
{
	const json_t *ram = json_object_get(value, "ram");
	json_int_t total = json_get_int(ram, "total", 0), left = json_get_int(ram, "remaining", 0);
	json_int_t part = total > 0 && left <= total ? (total - left) * 100 / total : 0;

	if (c->job)
		job_progress(c->job, part > 99 ? 99 : (unsigned)part, "memory");
}

static void on_query(struct change *c, int r, const json_t *value, const struct err *err)
{
	struct saving *s = c->live->saving;
	const char *status = json_get_str(value, "status", "");

	s->looking = false;
	if (r < 0 || s->moved)
		return; /* the watch tells when QEMU is gone, the timer asks again */
	if (str_eq(status, "completed"))
		moved(s, 0);
	else if (str_eq(status, "failed") || str_eq(status, "cancelled"))
		moved(s, err_set(&s->move_why, EIO, "QEMU: %s",
				 json_get_str(value, "error-desc", "the transfer failed")));
	else
		tell_progress(c, value);
}

static void look(struct saving *s)
{
	struct err err = {0};

	if (s->looking || s->moved)
		return;
	s->looking = live_try(s->c, "query-migrate", NULL, -1, on_query, &err) >= 0;
}

static int on_look(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct saving *s = ctx;

	look(s);
	(void)timer_set(s->c->d->event, &s->look, LOOK_MS, on_look, s);
	return 0;
}

static void on_event(void *ctx, const char *name, const json_t *data)
{
	struct saving *s = ctx;

	if (str_eq(name, MONITOR_GONE))
		moved(s, err_set(&s->move_why, ECONNRESET, "the VM stopped running meanwhile"));
	else if (str_eq(name, "MIGRATION") || str_eq(name, MONITOR_READY))
		look(s);
}

/* --- begun --- */

static void on_started(struct change *c, int r, const json_t *value, const struct err *err)
{
	struct saving *s = c->live->saving;

	live_point("moving");
	if (r < 0 && r != -ECONNRESET) {
		s->move_why = *err;
		moved(s, -EIO);
	} else if (!s->moved) {
		(void)on_look(NULL, 0, s);
	}
}

static void on_got_fd(struct change *c, int r, const json_t *value, const struct err *err)
{
	struct saving *s = c->live->saving;
	bool out = s->pipe[1] >= 0;
	struct err text = {0};

	/* QEMU has it: the other side is to see its end. */
	close_end(&s->pipe[0]);
	close_end(&s->pipe[1]);
	if (r == 0)
		r = live_try(c, out ? "migrate" : "migrate-incoming",
			     json_pack("{s:s}", "uri", "fd:" FD_NAME), -1, on_started, &text);
	else
		text = *err;
	if (r < 0) {
		s->move_why = text;
		moved(s, -EIO);
	}
}

static void on_parameters_set(struct change *c, int r, const json_t *value, const struct err *why)
{
	struct saving *s = c->live->saving;
	bool out = s->pipe[1] >= 0;
	struct err err = {0};

	if (s->moved)
		return;
	r = live_try(c, "getfd", json_pack("{s:s}", "fdname", FD_NAME), s->pipe[out ? 1 : 0],
		     on_got_fd, &err);

	if (r < 0) {
		s->move_why = err;
		moved(s, -EIO);
	}
}

static void on_capabilities_set(struct change *c, int r, const json_t *value, const struct err *why)
{
	json_t *args = json_pack("{s:I}", "max-bandwidth", (json_int_t)BANDWIDTH);
	struct saving *s = c->live->saving;
	struct err err = {0};

	if (s->moved) {
		json_decref(args);
		return;
	}
	r = live_try(c, "migrate-set-parameters", args, -1, on_parameters_set, &err);
	if (r < 0) {
		s->move_why = err;
		moved(s, -EIO);
	}
}

/* The worker is there first: it has the pipe's other end, which goes from here. */
static int start_worker(struct change *c, bool out, struct err *err)
{
	struct worker_task task = {.fn = out ? save_write_memory : save_read_memory,
				   .arg = c,
				   .done = on_worker,
				   .ctx = c};
	struct saving *s = c->live->saving;
	int r;

	if (pipe2(s->pipe, O_CLOEXEC) < 0)
		return err_sys(err, errno, "cannot make a pipe");
	(void)fcntl(s->pipe[0], F_SETPIPE_SZ, PIPE_BYTES);
	task.fd = s->pipe[out ? 0 : 1];
	r = worker_run_fd(c->d, &task, &c->worker, err);
	close_end(&s->pipe[out ? 0 : 1]);
	return r;
}

int save_move(struct change *c, bool out, struct err *err)
{
	struct saving *s = c->live->saving;
	json_t *args;
	int r = start_worker(c, out, err);

	if (r < 0)
		return r;
	s->c = c;
	s->on_way = c->live->cancellable = true;
	s->watch = (struct monitor_watch){.event = on_event, .ctx = s};
	monitor_watch(live_guest(c), &s->watch);
	args = json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", "events", "state", 1);
	r = live_try(c, "migrate-set-capabilities", args, -1, on_capabilities_set, &s->move_why);
	if (r < 0)
		moved(s, r);
	return STEP_WAIT;
}

int save_cancel(struct change *c, int r, const struct err *why, struct err *err)
{
	struct saving *s = c->live->saving;

	s->cancelled = true;
	c->ended = r;
	c->end_why = *why;
	live_send(live_guest(c), "migrate_cancel", NULL);
	return 0;
}
