/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs; see jobs.h. A job that was running when we were killed is judged at our next start: what
 * it made is there whole, or marks.c has undone it, and the files tell which.
 */
#include "vmadmd/jobs.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/status.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "model/vm.h"
#include "net/feed.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/guest/agent.h"
#include "vmadmd/live/live.h"
#include "vmadmd/vmadmd.h"

#define STATE_VERSION 1
#define SUFFIX        ".json"
#define KEY_LEN       (UUID_LEN + sizeof(SUFFIX) - 1)

enum job_state { JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED };
#define JOB_STATE_COUNT 4

static const char *const state_names[JOB_STATE_COUNT] = {
	[JOB_RUNNING] = "running",
	[JOB_DONE] = "done",
	[JOB_FAILED] = "failed",
	[JOB_CANCELLED] = "cancelled",
};

/* A request that is answered when its job has gone on. */
struct look {
	struct job *job;
	struct http_request *req;
	struct look *next;
};

struct job {
	struct vmadmd *d;
	char id[UUID_LEN + 1];
	enum job_state state;
	uid_t uid;
	json_t *facts;       /* as listed and kept, but for the state */
	json_int_t revision; /* of the facts; counts up */
	struct look *looks;
	int (*cancel)(void *ctx, int r, const struct err *why, struct err *err);
	void *ctx;
	uint64_t timeout_ms;
	sd_event_source *deadline;
	struct job *next; /* newest first */
};

static char *jobs_dir(const struct vmadmd *d)
{
	const char *slash = strrchr(d->paths->vmadmd, '/');

	return xasprintf("%.*s/vmadmd.jobs", (int)(slash - d->paths->vmadmd), d->paths->vmadmd);
}

static char *job_path(const struct job *j)
{
	AUTO_FREE char *dir = jobs_dir(j->d);

	return xasprintf("%s/%s" SUFFIX, dir, j->id);
}

static void save(const struct job *j)
{
	AUTO_FREE char *path = job_path(j);
	struct err err = {0};

	if (state_write(path, STATE_VERSION, j->facts, FILE_NO_SYNC, &err) < 0)
		log_error("job=%s not kept: %s", j->id, err.msg);
}

static void looks_end(struct job *j)
{
	struct look *look;

	while ((look = j->looks) != NULL) {
		j->looks = look->next;
		if (look->req)
			http_reply_json(look->req, 200, j->facts);
		free(look);
	}
}

/* To all who want to know; each time is a new revision. */
static void publish(struct job *j)
{
	json_put_int(j->facts, "revision", ++j->revision);
	looks_end(j);
	(void)feed_job(j->d->feed, json_get_str(j->facts, "uuid", ""), j->facts);
}

static void set_state(struct job *j, enum job_state state)
{
	j->state = state;
	json_put_str(j->facts, "state", state_names[state]);
}

static void put_now(json_t *facts, const char *member)
{
	char now[ISO_TIME_LEN];

	json_put_str(facts, member, clock_iso(clock_wall_ms(), now, sizeof(now)));
}

static void job_free(struct job *j)
{
	for (struct look *look = j->looks, *next; look; look = next) {
		next = look->next; /* their requests ended with the server */
		free(look);
	}
	sd_event_source_disable_unref(j->deadline);
	json_decref(j->facts);
	free(j);
}

/* Ended jobs beyond the number we keep go, oldest first. */
static void forget_old(struct vmadmd *d)
{
	size_t ended = 0;

	for (struct job **at = &d->jobs; *at;) {
		struct job *j = *at;

		if (j->state != JOB_RUNNING && ++ended > JOBS_KEPT) {
			AUTO_FREE char *path = job_path(j);

			(void)unlink(path);
			*at = j->next;
			job_free(j);
		} else {
			at = &j->next;
		}
	}
}

/* --- for those who do the work --- */

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct job *j = ctx;
	struct err why = {0}, err = {0};

	err_set(&why, ETIMEDOUT, "not done within its deadline of %u s",
		(unsigned)(j->timeout_ms / 1000));
	if (j->cancel(j->ctx, -ETIMEDOUT, &why, &err) < 0)
		log_warn("job=%s deadline passed, but it cannot be ended: %s", j->id, err.msg);
	return 0;
}

int job_begin(struct vmadmd *d, const struct job_spec *spec, struct job **ret, struct err *err)
{
	struct job *j;
	size_t running = 0;

	for (j = d->jobs; j; j = j->next)
		running += j->state == JOB_RUNNING;
	if (running >= JOBS_MAX)
		return err_set(err, EBUSY, "%zu jobs are under way already", running);
	j = xcalloc(1, sizeof(*j));
	*j = (struct job){.d = d, .uid = spec->uid, .cancel = spec->cancel, .ctx = spec->ctx};
	uuid_random(j->id);
	j->timeout_ms = spec->timeout_ms ? spec->timeout_ms : JOB_DEFAULT_MS;
	j->facts = json_object();
	json_put_str(j->facts, "id", j->id);
	json_put_str(j->facts, "kind", spec->kind);
	json_put_str(j->facts, "uuid", spec->uuid);
	json_put_str(j->facts, "command", spec->command);
	json_put_int(j->facts, "uid", spec->uid);
	set_state(j, JOB_RUNNING);
	json_put_int(j->facts, "percent", 0);
	put_now(j->facts, "started");
	json_put_int(j->facts, "deadline_s", (json_int_t)(j->timeout_ms / 1000));
	if (spec->images)
		json_object_set_new(j->facts, "images", json_deep_copy(spec->images));
	j->next = d->jobs;
	d->jobs = j;
	(void)timer_set(d->event, &j->deadline, j->timeout_ms, on_deadline, j);
	save(j);
	publish(j);
	*ret = j;
	return 0;
}

const char *job_id(const struct job *j)
{
	return j->id;
}

void job_progress(struct job *j, unsigned percent, const char *what)
{
	if (json_get_int(j->facts, "percent", 0) == (json_int_t)percent &&
	    str_eq(json_get_str(j->facts, "step", NULL), what))
		return;
	json_put_int(j->facts, "percent", percent);
	json_put_str(j->facts, "step", what);
	publish(j);
}

void job_note(struct job *j, const char *member, json_int_t value)
{
	json_put_int(j->facts, member, value);
	save(j);
}

json_int_t job_noted(const struct job *j, const char *member)
{
	return json_get_int(j->facts, member, -1);
}

void job_result(struct job *j, const json_t *result)
{
	json_object_set_new(j->facts, "result", json_deep_copy(result));
}

void job_end(struct job *j, int r, const struct err *err)
{
	set_state(j, r == 0 ? JOB_DONE : r == -ECANCELED ? JOB_CANCELLED : JOB_FAILED);
	timer_stop(j->deadline);
	json_put_str(j->facts, "step", NULL);
	put_now(j->facts, "ended");
	if (r == 0)
		json_put_int(j->facts, "percent", 100);
	else
		json_object_set_new(j->facts, "error",
				    json_pack("{s:s, s:s}", "code", status_errno_name(r), "message",
					      err_text(err, r)));
	publish(j);
	save(j);
	log_info("job=%s %s vm=%s", j->id, state_names[j->state],
		 json_get_str(j->facts, "uuid", ""));
	forget_old(j->d);
}

/* --- after our sudden end --- */

/* All images it was to make are disks of the VM: then the whole change was written. */
static bool made_it(const struct job *j)
{
	const struct catalog_entry *e =
		catalog_by_uuid(j->d->catalog, json_get_str(j->facts, "uuid", ""));
	const json_t *images = json_object_get(j->facts, "images"), *image;
	size_t i;

	if (str_eq(json_get_str(j->facts, "kind", ""), "delete"))
		return !e; /* marks.c has finished what had begun */
	if (!e)
		return false;
	json_array_foreach (images, i, image) {
		bool found = false;

		for (size_t k = 0; k < e->vm->ndisks && !found; k++)
			found = str_eq(e->vm->disks[k]->path, json_string_value(image));
		if (!found)
			return false;
	}
	return str_eq(json_get_str(j->facts, "kind", ""), "create") || json_array_size(images) > 0;
}

static void judge(struct job *j)
{
	struct err err = {0};
	bool images = json_array_size(json_object_get(j->facts, "images")) > 0;
	bool made = made_it(j) || live_done(j->d, json_get_str(j->facts, "uuid", ""), j->id);

	json_put_bool(j->facts, "interrupted", true);
	if (!made)
		err_set(&err, ECONNRESET, "vmadmd ended in the middle: %s",
			images ? "what the job had made was removed"
			       : "what became of it the VM's definition tells");
	job_end(j, made ? 0 : -ECONNRESET, &err);
}

struct job *job_adopt(struct vmadmd *d, const char *id,
		      int (*cancel)(void *ctx, int r, const struct err *why, struct err *err),
		      void *ctx)
{
	struct job *j = d->jobs;

	while (j && (!str_eq(j->id, id) || j->state != JOB_RUNNING))
		j = j->next;
	if (!j)
		return NULL;
	j->cancel = cancel;
	j->ctx = ctx;
	json_put_bool(j->facts, "interrupted", true);
	return j;
}

static int by_start(const void *a, const void *b)
{
	const struct job *const *x = a, *const *y = b;

	return strcmp(json_get_str((*y)->facts, "started", ""),
		      json_get_str((*x)->facts, "started", ""));
}

static struct job *load_one(struct vmadmd *d, const char *dir, const char *name)
{
	AUTO_FREE char *path = path_join(dir, name);
	struct job *j;
	json_t *facts = NULL;
	struct err err = {0};

	if (strlen(name) != KEY_LEN || !str_ends(name, SUFFIX))
		return NULL;
	if (state_read(path, STATE_VERSION, &facts, &err) < 0) {
		log_warn("job not read: %s", err.msg);
		return NULL;
	}
	json_object_del(facts, "format_version");
	j = xcalloc(1, sizeof(*j));
	*j = (struct job){.d = d, .facts = facts};
	memcpy(j->id, name, UUID_LEN);
	j->uid = (uid_t)json_get_int(facts, "uid", -1);
	j->revision = json_get_int(facts, "revision", 0);
	for (size_t i = 0; i < JOB_STATE_COUNT; i++) {
		if (str_eq(json_get_str(facts, "state", ""), state_names[i]))
			j->state = (enum job_state)i;
	}
	return j;
}

void jobs_load(struct vmadmd *d)
{
	AUTO_FREE char *path = jobs_dir(d);
	struct job *all[JOBS_MAX + JOBS_KEPT];
	const struct dirent *entry;
	size_t count = 0;
	struct err err = {0};
	DIR *dir;

	if (dir_make(path, 0700, &err) < 0)
		log_error("jobs: %s", err.msg);
	dir = opendir(path);
	while (dir && count < ARRAY_SIZE(all) && (entry = readdir(dir)) != NULL) {
		struct job *j = load_one(d, path, entry->d_name);

		if (j)
			all[count++] = j;
	}
	if (dir)
		(void)closedir(dir);
	qsort(all, count, sizeof(struct job *), by_start);
	while (count > 0) {
		all[--count]->next = d->jobs;
		d->jobs = all[count];
	}
	for (struct job *j = d->jobs, *next; j; j = next) {
		next = j->next;
		/* A live operation's is ended by whoever repairs it. */
		if (j->state == JOB_RUNNING &&
		    !live_repairs(d, json_get_str(j->facts, "uuid", ""), j->id) &&
		    !agent_exec_again(d, json_get_str(j->facts, "uuid", ""), j))
			judge(j);
	}
}

void jobs_free(struct vmadmd *d)
{
	struct job *j;

	while ((j = d->jobs) != NULL) {
		d->jobs = j->next;
		job_free(j);
	}
}

/* --- requests --- */

/* Who began it, and admins. */
static bool may_see(const struct job *j, const struct http_request *req)
{
	const struct sock_peer *peer = http_peer(req);

	return peer && (sock_peer_is_admin(peer) || peer->uid == j->uid);
}

static struct job *find(struct vmadmd *d, struct http_request *req)
{
	const char *id = http_param(req, "id");
	struct err err = {0};
	struct job *j;

	for (j = d->jobs; j && !str_eq(j->id, id); j = j->next)
		;
	if (j && may_see(j, req))
		return j;
	err_set(&err, j ? EPERM : ENOENT,
		j ? "uid %u may not see job %.40s: it is another's" : "uid %u: no job %.40s",
		request_uid(d, req), id ? id : "");
	http_reply_err(req, j ? -EPERM : -ENOENT, &err);
	return NULL;
}

void handle_jobs(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	AUTO_JSON json_t *out = json_object();
	json_t *list = json_array();

	for (struct job *j = d->jobs; j; j = j->next) {
		if (may_see(j, req))
			json_array_append(list, j->facts);
	}
	json_object_set_new(out, "jobs", list);
	http_reply_json(req, 200, out);
}

static void on_look_gone(struct http_request *req, void *ctx)
{
	struct look *gone = ctx;

	for (struct look **at = &gone->job->looks; *at; at = &(*at)->next) {
		if (*at == gone) {
			*at = gone->next;
			break;
		}
	}
	free(gone);
}

/* ?after=REVISION is answered when there is something newer, or the job is over. */
void handle_job(struct http_request *req, void *ctx)
{
	struct job *j = find(ctx, req);
	const char *after = http_query(req, "after");
	struct look *look;

	if (!j)
		return;
	if (!after || j->state != JOB_RUNNING || strtoll(after, NULL, 10) < j->revision) {
		http_reply_json(req, 200, j->facts);
		return;
	}
	look = xcalloc(1, sizeof(*look));
	*look = (struct look){.job = j, .req = req, .next = j->looks};
	j->looks = look;
	http_on_gone(req, on_look_gone, look);
}

void handle_job_cancel(struct http_request *req, void *ctx)
{
	struct job *j = find(ctx, req);
	struct err why = {0}, err = {0};
	int r;

	if (!j)
		return;
	err_set(&why, ECANCELED, "cancelled by uid %u", request_uid(ctx, req));
	if (j->state != JOB_RUNNING)
		r = err_set(&err, EALREADY, "job %s is %s", j->id, state_names[j->state]);
	else if (!j->cancel)
		r = err_set(&err, EBUSY, "job %s was cut short: it is being undone or finished",
			    j->id);
	else
		r = j->cancel(j->ctx, -ECANCELED, &why, &err);
	if (r < 0)
		http_reply_err(req, r, &err);
	else
		http_reply_json(req, 202, j->facts);
}
