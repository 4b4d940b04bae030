/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restore: the file is read whole and judged before anything is touched; then vmstated starts the
 * VM held before its first instruction, its state is fed, and only then it goes on. Any failure
 * ends that QEMU: no VM ever runs without the memory it was to have.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/save.h"
#include "vmadmd/live/snapshot.h"

void handle_restore(struct http_request *req, void *ctx)
{
	save_begin(req, ctx, &change_restore);
}

static int check(struct change *c, struct err *err)
{
	return save_check_state(c, "stopped", err);
}

static int verify(struct change *c, struct err *err)
{
	if (c->live->running)
		return err_set(err, EBUSY, "VM %s still runs: its QEMU holds its lock", c->uuid);
	return change_work(c, save_verify, NULL, err);
}

static int journal(struct change *c, struct err *err)
{
	c->live->journal = snap_journal(c, "restore");
	json_put_str(c->live->journal, "file", c->live->saving->file);
	return 0;
}

static int start_held(struct change *c, struct err *err)
{
	if (c->guest_lock >= 0)
		(void)close(c->guest_lock);
	c->guest_lock = -1;
	return live_vm_start_held(c, "incoming");
}

static int move_in(struct change *c, struct err *err)
{
	live_point("held");
	return save_move(c, false, err);
}

static void on_going(struct change *c, const json_t *value)
{
	live_point("going");
	change_next(c);
}

static int go_on(struct change *c, struct err *err)
{
	live_point("moved");
	return live_ask(c, "cont", NULL, on_going, err);
}

static int answer(struct change *c, struct err *err)
{
	AUTO_JSON json_t *out = json_object();

	log_info("vm=%s %s done uid=%u", c->uuid, c->kind->verb, c->uid);
	json_put_str(out, "uuid", c->uuid);
	return change_answer(c, out, "restored");
}

static const change_step steps[] = {
	check,      live_step_lock, verify, journal,          live_step_job, live_step_mark,
	start_held, move_in,        go_on,  live_step_unmark, step_told,     answer,
};

const struct change_kind change_restore = {"restore", steps,     ARRAY_SIZE(steps),
					   NULL,      live_undo, save_cancel};

/* --- cut short --- */

static void on_status(struct change *c, int r, const json_t *value, const struct err *err)
{
	/* It ran on with its memory: then it is what was asked for. */
	c->live->done = r == 0 && json_get_bool(value, "running", false);
	c->live->undone = !c->live->done;
	change_next(c);
}

static int look_back(struct change *c, struct err *err)
{
	c->live->undone = true;
	return c->live->running ? live_try(c, "query-status", NULL, -1, on_status, err) : 0;
}

static int end_qemu(struct change *c, struct err *err)
{
	return c->live->running && !c->live->done ? live_vm_stop(c) : 0;
}

static int tell(struct change *c, struct err *err)
{
	if (c->live->done)
		return answer(c, err);
	return err_set(err, ECONNRESET,
		       "vmadmd or QEMU ended in the middle: the VM is stopped, and the file is as "
		       "it was");
}

static const change_step undo_steps[] = {
	live_step_lock, live_step_job, look_back, end_qemu, live_step_unmark, tell,
};

const struct change_kind change_restore_undo = {"restore", undo_steps, ARRAY_SIZE(undo_steps), NULL,
						live_undo};
