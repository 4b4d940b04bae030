/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of vmstated, a file each. A start: lifecycle.c walks the state table, hooks.c runs each
 * state's hooks, disks.c and launch.c start QEMU, monitor.c talks to it, stop.c ends it, settle.c
 * decides what follows, state.c writes all down before it happens, adopt.c takes up after a kill.
 */
#pragma once

#include "vmstated/guest.h"
#include "vmstated/hooks.h"
#include "vmstated/once.h"

/* --- supervisor.c --- */
struct guest *guest_by_uuid(struct supervisor *sup, const char *uuid);
struct guest *guest_add(struct supervisor *sup, const char *uuid, const char *name);
void guest_drop(struct guest *g);
int supervisor_find(struct supervisor *sup, const char *id, struct guest **ret, struct err *err);
/* The definition in force: as started while it runs, else the catalog's; NULL: none. */
const struct vm *guest_vm(const struct guest *g);

/* --- lifecycle.c --- */
/* -EALREADY, -EBUSY, -EINVAL with the reason when the event is refused in this state. */
int guest_dispatch(struct guest *g, enum guest_event ev, struct err *err);
void guest_enter(struct guest *g, enum sup_state state, const char *event);
bool guest_is_up(const struct guest *g); /* RUNNING, STOPPING with a process, RESTARTED */
/* once: see once_take, borrowed; NULL: nothing. */
int guest_start(struct guest *g, const json_t *once, const char *by, struct err *err);
/* The same, not let go: see guest_hold. */
int guest_start_held(struct guest *g, const json_t *once, const char *by, enum guest_hold hold,
		     struct err *err);
void guest_fail(struct guest *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int guest_failreset(struct guest *g, struct err *err);

int guest_kept_away(const struct guest *g, struct err *err); /* away.c: -EBUSY, by journal */
/* --- settle.c: what follows an end --- */
void guest_settle(struct guest *g);
bool budget_spend(struct guest *g); /* false: used up */
uint64_t budget_delay_ms(const struct guest *g);
/* Arm the timer of a planned restart, also of one that our predecessor planned. */
void restart_resume(struct guest *g);
void guest_ended(struct guest *g, const struct child_exit *how);

/* --- oom.c --- */
uint64_t host_oom_kills(void);          /* by this host's kernel since its boot */
bool oom_killed(const struct guest *g); /* after a SIGKILL, before its process is reaped */

/* --- disks.c --- */
void disks_prepare(struct guest *g); /* goes on with launch_process or launch_failed */

/* --- launch.c --- */
void guest_launch(struct guest *g);
void launch_process(struct guest *g); /* the network, then launch_ready */
void launch_ready(struct guest *g);
void launch_watch(struct guest *g); /* end a QEMU that does not answer in time */
void launch_failed(struct guest *g, const struct err *err);
void guest_launch_cleanup(struct guest *g);
/* QEMU is gone: so are the sockets and the FIFO it was reached by. */
void guest_remove_sockets(struct guest *g);
int guest_watch_qemu(struct guest *g, pid_t pid, uint64_t start, struct err *err);

/* --- monitor.c --- */
int monitor_open(struct guest *g, struct err *err);
void monitor_close(struct guest *g);
void monitor_let_go(struct guest *g);       /* QEMU was started paused */
void monitor_pulse(struct supervisor *sup); /* ask all, as long as any guest runs */
void monitor_wait_ready(struct guest *g);   /* without readyline: after some time of running */
void guest_now_ready(struct guest *g);
void monitor_update_action(struct guest *g);

/* What vmadmd begins silences QEMU's monitors for at most ms: busy, not unresponsive. 0: over. */
void monitor_busy(struct guest *g, uint64_t ms);

/* --- stop.c --- */
/* Arm the engine: target, deadline from now; force is at once. Replaces an earlier deadline. */
int guest_stop(struct guest *g, enum guest_target target, uint64_t grace_ms, bool force,
	       const char *by, struct err *err);
void stop_at_once(struct guest *g);
/* End a QEMU that cannot go on; the end is recorded with this cause and the policy applies. */
void stop_put_down(struct guest *g, enum end_cause cause, const char *why);
void stop_ask(struct guest *g);    /* after the stopping hook: request, then wait */
void stop_resume(struct guest *g); /* after adoption */
void stop_done(struct guest *g);

/* --- state.c --- */
void guest_save(struct guest *g);
int guest_load(struct guest *g, json_t **ret, struct err *err);
void guest_save_exit(struct guest *g);
void guest_load_exit(struct guest *g);
void guest_save_failed(struct guest *g); /* failure mode, on or off */
void guest_forget_files(struct guest *g);
void guest_mark_running(struct guest *g, bool running);
void guest_check_mark(struct guest *g);

/* --- owner.c --- */
/* "FIRST-LAST": users for QEMU processes; -EPERM when we are not root. */
int owner_set_range(struct supervisor *sup, const char *text, struct err *err);
/* Choose the VM's user, give it its files, try what it must open. */
int owner_prepare(struct guest *g, bool kvm, struct err *err);
void owner_apply(const struct guest *g, struct child_spec *spec);

/* --- sync.c --- */
/* Make a file that was just written or replaced, and its directory, durable soon. */
void sync_later(struct supervisor *sup, const char *path);
bool sync_busy(const struct supervisor *sup);
void sync_free(struct supervisor *sup);

/* --- adopt.c --- */
void supervisor_adopt(struct supervisor *sup);
void guest_connect(struct guest *g); /* its monitor, now: something is asked of it */

/* --- facts.c --- */
json_t *guest_facts(const struct guest *g);
json_t *guest_object(const struct guest *g); /* facts and description, for status */
void guest_publish(struct guest *g);

/* --- console.c --- */
int console_open(struct guest *g, bool fresh, struct err *err);
void console_close(struct guest *g);

/* --- guestlog.c --- */
int guestlog_open(const struct guest *g, struct err *err);
void guestlog_line(const struct guest *g, const char *tag, const char *text, size_t len);
void guestlog_printf(const struct guest *g, const char *tag, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
char *guestlog_tail(const struct guest *g, off_t from);
off_t guestlog_size(const struct guest *g);

/* --- accel.c --- */
int accel_start(struct supervisor *sup, struct err *err);
void accel_free(struct supervisor *sup);
/* Calls fn when QEMU's capabilities and the accelerator are known; at once if they are. */
void accel_when_known(struct supervisor *sup, void (*fn)(void *ctx), void *ctx);
void accel_forget(struct supervisor *sup, void *ctx);
const char *accel_text(const struct supervisor *sup);
/* {"kind","text","asking","qemu"?,"error"?}: the accelerator, and the QEMU that new guests get. */
json_t *accel_object(const struct supervisor *sup);
json_t *accel_installed(const struct supervisor *sup); /* its version and file; NULL: unknown */
int accel_probe_main(void);

/* --- routes.c --- */
int routes_print(void); /* for docs/wire-vmstated.md */
int routes_start(struct supervisor *sup, struct err *err);

/* --- answer.c --- */
void waiters_check(struct guest *g);
void waiters_fail(struct guest *g, int r, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
