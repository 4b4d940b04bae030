/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Save: the VM stands still, its memory and devices go into a file, QEMU ends, and the file is
 * named when the disks are as they will be found. Until QEMU is told to end, any failure lets the
 * VM go on as if nothing had been; from then on the file is made whole, whatever happens.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "net/http.h"
#include "store/catalog.h"
#include "store/started.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/save.h"
#include "vmadmd/live/snapshot.h"

#define SAVED_FORMAT 1

/* --- requests --- */

int save_take_file(const json_t *body, struct saving *s, struct err *err)
{
	const char *file = json_get_str(body, "file", NULL);
	char id[UUID_LEN + 1];
	const char *slash;

	if (!file || file[0] != '/' || str_ends(file, "/"))
		return err_set(err, EINVAL, "file: '%.200s' is not an absolute path of a file",
			       file ? file : "");
	uuid_random(id);
	slash = strrchr(file, '/');
	s->file = xstrdup(file);
	s->temp = xasprintf("%.*s/.%.100s.%.8s", (int)(slash - file), file, slash + 1, id);
	s->force = json_get_bool(body, "force", false);
	return 0;
}

void save_begin(struct http_request *req, void *ctx, const struct change_kind *kind)
{
	struct vmadmd *d = ctx;
	AUTO_FREE char *command = xasprintf("vmadm %s", kind->verb);
	AUTO_JSON json_t *body = NULL;
	struct change_by by = {.command = command};
	struct live *l = live_new();
	struct target target;
	struct err err = {0};
	size_t len;
	const char *text = http_body_text(req, &len);
	int r;

	if (!target_find(d, req, false, &target)) {
		live_free(l);
		return;
	}
	l->saving = saving_new();
	r = json_parse_object(len ? text : "{}", len ? len : 2, "body", &body, &err);
	if (r == 0)
		r = save_take_file(body, l->saving, &err);
	if (r == 0)
		r = caller_take(&l->saving->who, http_peer(req), &err);
	if (r < 0) {
		http_reply_err(req, r, &err);
		live_free(l);
		return;
	}
	by.uid = target.uid;
	change_order(d, kind, target.uuid, &by, l, req);
}

void handle_save(struct http_request *req, void *ctx)
{
	save_begin(req, ctx, &change_save);
}

/* --- save --- */

int save_check_state(struct change *c, const char *want, struct err *err)
{
	const char *state = guest_state(c->d, c->uuid);

	if (str_eq(state, want))
		return 0;
	return err_set(err, EBUSY, "Cannot %s vm from state \"%s\", must be \"%s\"", c->kind->verb,
		       state, want);
}

static int check(struct change *c, struct err *err)
{
	return save_check_state(c, "running", err);
}

static json_t *head_of(struct change *c, const json_t *facts, json_t *machine)
{
	json_t *head = json_object();
	const struct catalog_entry *e = catalog_by_uuid(c->d->catalog, c->uuid);
	char now[ISO_TIME_LEN];

	json_put_str(head, "kind", "saved");
	json_put_int(head, "format", SAVED_FORMAT);
	json_put_str(head, "uuid", c->uuid);
	json_put_str(head, "name", e ? e->vm->name : NULL);
	json_put_str(head, "created_at", clock_iso(clock_wall_ms(), now, sizeof(now)));
	json_put_str(head, "program", "vmadmd " DROVER_VERSION);
	json_put_str(head, "definition", json_get_str(facts, "definition", ""));
	(void)json_object_set_new(head, "machine", machine);
	return head;
}

static json_t *paths_of(const struct live *l)
{
	json_t *paths = json_array();

	for (size_t i = 0; i < l->ndisks; i++)
		(void)json_array_append_new(paths, json_string(l->disks[i].path));
	return paths;
}

static int prepare(struct change *c, struct err *err)
{
	const struct guest *g = live_guest(c);
	struct live *l = c->live;
	struct saving *s = l->saving;
	AUTO_JSON json_t *facts = NULL;
	AUTO_VM struct vm *vm = NULL;
	json_t *machine = NULL;

	if (!l->running)
		return err_set(err, EBUSY, "VM %s does not run", c->uuid);
	if (started_read(c->d->paths, c->uuid, &vm, &facts, err) == 0)
		machine = snap_machine(c->d, c->uuid, err);
	if (!machine)
		return -EIO;
	s->head = head_of(c, facts, machine);
	s->disks = paths_of(l);
	s->going = str_eq(json_get_str(g->facts, "run_state", ""), "running");
	l->journal = snap_journal(c, "save");
	json_put_str(l->journal, "file", s->file);
	json_put_str(l->journal, "temp", s->temp);
	json_put_int(l->journal, "gid", s->who.gid);
	json_put_bool(l->journal, "going", s->going);
	(void)json_object_set(l->journal, "disks", s->disks);
	return 0;
}

static void on_stopped(struct change *c, const json_t *value)
{
	c->live->paused = c->live->saving->going;
	live_point("stopped");
	change_next(c);
}

static int stand_still(struct change *c, struct err *err)
{
	return live_ask(c, "stop", NULL, on_stopped, err);
}

static int move_out(struct change *c, struct err *err)
{
	return save_move(c, true, err);
}

/* The memory is in the file: no way back from here. */
static int mark_ending(struct change *c, struct err *err)
{
	struct stat st;

	if (stat(c->live->saving->temp, &st) < 0)
		return err_sys(err, errno, "cannot look at '%s'", c->live->saving->temp);
	c->live->paused = false;
	json_put_bool(c->live->journal, "ending", true);
	json_put_int(c->live->journal, "size", st.st_size);
	return live_step_mark(c, err);
}

static int end_qemu(struct change *c, struct err *err)
{
	live_point("ending");
	return c->live->running ? live_vm_stop(c) : 0;
}

static int keep_stopped(struct change *c, struct err *err)
{
	int r = 0;

	if (c->guest_lock < 0)
		r = guest_lock_take(c->d, c->uuid, &c->guest_lock, err);
	return r > 0 ? err_set(err, EBUSY, "VM %s runs again already", c->uuid) : r;
}

static int finish(struct change *c, struct err *err)
{
	live_point("ended");
	return change_work(c, save_finish_file, NULL, err);
}

static int answer(struct change *c, struct err *err)
{
	AUTO_JSON json_t *out = json_object();

	log_info("vm=%s %s done file='%s' uid=%u", c->uuid, c->kind->verb, c->live->saving->file,
		 c->uid);
	json_put_str(out, "uuid", c->uuid);
	json_put_str(out, "file", c->live->saving->file);
	return change_answer(c, out, "saved");
}

static const change_step steps[] = {
	check,          live_step_lock, live_step_nodes,  prepare,     live_step_job,
	live_step_mark, stand_still,    move_out,         mark_ending, end_qemu,
	keep_stopped,   finish,         live_step_unmark, step_told,   answer,
};

const struct change_kind change_save = {"save", steps,     ARRAY_SIZE(steps),
					NULL,   live_undo, save_cancel};

/* --- cut short --- */

static int look_back(struct change *c, struct err *err)
{
	struct live *l = c->live;
	struct saving *s = saving_new();

	l->saving = s;
	s->file = xstrdup(json_get_str(l->journal, "file", ""));
	s->temp = xstrdup(json_get_str(l->journal, "temp", ""));
	s->who = (struct caller){.uid = (uid_t)json_get_int(l->journal, "uid", 0),
				 .gid = (gid_t)json_get_int(l->journal, "gid", 0)};
	s->who.groups = xcalloc(1, sizeof(gid_t));
	s->disks = json_incref(json_object_get(l->journal, "disks"));
	s->going = json_get_bool(l->journal, "going", false);
	l->done = json_get_bool(l->journal, "ending", false);
	l->undone = !l->done;
	return 0;
}

static void on_going(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r == -ECONNRESET || r == -ETIMEDOUT)
		change_fail(c, r, err); /* again, later */
	else
		change_next(c);
}

static int let_go(struct change *c, struct err *err)
{
	if (c->live->done || !c->live->running || !c->live->saving->going)
		return 0;
	return live_try(c, "cont", NULL, -1, on_going, err);
}

static int end_again(struct change *c, struct err *err)
{
	return c->live->done ? end_qemu(c, err) : 0;
}

static int keep_again(struct change *c, struct err *err)
{
	return c->live->done ? keep_stopped(c, err) : 0;
}

static int drop_file(struct change *c, struct err *err)
{
	const struct saving *s = c->live->saving;
	int r = caller_become(&s->who, err);

	if (r == 0 && unlink(s->temp) < 0 && errno != ENOENT)
		log_warn("vm=%s '%s' stays: %s", c->uuid, s->temp, strerror(errno));
	return r;
}

static int finish_or_drop(struct change *c, struct err *err)
{
	return change_work(c, c->live->done ? save_finish_file : drop_file, NULL, err);
}

static int tell(struct change *c, struct err *err)
{
	if (c->live->done)
		return answer(c, err);
	return err_set(err, ECONNRESET, "vmadmd or QEMU ended in the middle: nothing was saved%s",
		       c->live->running ? ", and the VM goes on" : "");
}

static const change_step undo_steps[] = {
	look_back,  live_step_lock, live_step_job,    let_go, end_again,
	keep_again, finish_or_drop, live_step_unmark, tell,
};

const struct change_kind change_save_undo = {"save", undo_steps, ARRAY_SIZE(undo_steps), NULL,
					     live_undo};
