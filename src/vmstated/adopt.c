/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a start of vmstated: take up the guests that run, the hooks and deadlines that were under
 * way, and settle what ended while nobody was there. No guest is touched or started twice.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "daemon/daemon.h"
#include "model/model.h"
#include "store/catalog.h"
#include "store/started.h"
#include "vmstated/hardware.h"
#include "vmstated/net.h"
#include "vmstated/parts.h"

#define LOCK_MS         20u
#define CONNECT_AT_ONCE 8   /* guests, ... */
#define CONNECT_MS      2u  /* ... and then the next */
#define LOCK_TRIES      100 /* a loaded host may leave a forked child without a core for a while */

/* The definition as it was started: what runs may differ from the file by now. */
static void load_started(struct guest *g)
{
	AUTO_JSON json_t *facts = NULL;

	if (started_read(&g->sup->paths, g->uuid, &g->started, &facts, NULL) < 0)
		return;
	g->once = json_incref(json_object_get(facts, "once"));
	(void)once_apply(g->started, g->once, NULL); /* its text has what was given only */
}

/*
 * Our predecessor was killed before it could write down the process: its lock tells who it is.
 * False: somebody holds the VM's lock who has not said who it is. A child of our predecessor does
 * that moments after the fork, or ends.
 */
static bool find_by_lock(struct guest *g)
{
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, "lock");
	AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC);
	pid_t pid;

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
		return true;
	pid = child_lock_holder(path);
	if (pid <= 0 || guest_watch_qemu(g, pid, process_start_time(pid), NULL) < 0)
		return false;
	guest_mark_running(g, true);
	return true;
}

/*
 * A monitor that is connected to wants a core for its greeting; who asks us what runs needs none
 * of them. Those of guests at rest can wait until we serve; consoles cannot, they have readers.
 */
static bool can_wait(const struct guest *g)
{
	return !g->sup->serving && g->launched && g->settled && g->state == SUP_RUNNING &&
	       g->target == TARGET_NONE && !g->hooks;
}

void guest_connect(struct guest *g)
{
	struct err err = {0};

	if (!g->apart)
		return;
	g->apart = false;
	if (monitor_open(g, &err) < 0)
		log_warn("vm=%s %s", g->uuid, err.msg);
}

/* Some at a time: whoever asks for something meanwhile, and reads the answer, gets a core. */
static int connect_some(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct supervisor *sup = userdata;
	unsigned n = 0;

	for (struct guest *g = sup->guests; g; g = g->next) {
		if (g->apart && n++ == CONNECT_AT_ONCE)
			return timer_set(sup->event, &sup->connect_timer, CONNECT_MS, connect_some,
					 sup);
		guest_connect(g);
	}
	return 0;
}

static void take_up_running(struct guest *g, bool known)
{
	struct err err = {0};

	if (!known)
		guest_save(g);
	if (console_open(g, false, &err) < 0)
		log_warn("vm=%s %s", g->uuid, err.msg);
	g->apart = true;
	if (!can_wait(g))
		guest_connect(g);
	if (g->launched)
		monitor_wait_ready(g);
	else
		launch_watch(g);
	net_adopt(g);
	log_info("vm=%s adopted pid=%d state=%s", g->uuid, (int)g->pid, sup_states[g->state].label);
}

/* Those of this state's hooks, or of a reset, that are not through. */
static void take_up_hooks(struct guest *g, const json_t *j)
{
	const char *due = json_get_str(j, "hooks_due", NULL);

	if (due && (g->pid <= 0 || g->launched)) /* QEMU comes up after the hooks of a start */
		g->hooks_due =
			str_eq(due, HOOKS_OF_RESET) ? HOOKS_OF_RESET : sup_states[g->state].hook;
	hooks_take_up(g, json_object_get(j, "hook"));
	if (!g->hooks)
		hookout_resume(g);
}

static void resume(struct guest *g, const json_t *j, bool was_up)
{
	struct child_exit gone = {.known = false};
	bool waits;

	g->settled = json_get_bool(j, "settled", false);
	take_up_hooks(g, j);
	waits = g->hooks != NULL;
	if (g->pid > 0)
		take_up_running(g, was_up);
	else if (was_up)
		guest_ended(g, &gone); /* its walk waits for hooks */
	if (waits)
		hooks_resume(g);
	else if (!g->settled &&
		 (g->pid > 0 ? g->state == SUP_RUNNING || g->state == SUP_RESTARTED : !was_up))
		(void)guest_dispatch(g, EV_HOOK_DONE, NULL);
	if (g->pid > 0)
		stop_resume(g);
	restart_resume(g);
	guest_publish(g);
}

/* With what was written down of it; once more in a moment when its process cannot be told. */
static void take_up(struct guest *g, json_t *j);

static int look_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct guest *g = userdata;
	AUTO_JSON json_t *j = steal_ptr(g->found);

	take_up(g, j);
	return 0;
}

static void take_up(struct guest *g, json_t *j)
{
	bool was_up = json_get_int(j, "pid", 0) > 0;

	if (!was_up && !find_by_lock(g)) {
		g->settled = false;
		if (g->lock_tries++ < LOCK_TRIES &&
		    timer_set(g->sup->event, &g->launch_timer, LOCK_MS, look_again, g) >= 0) {
			g->found = json_incref(j);
			return;
		}
		log_error("vm=%s its lock is held, but no process is known: state unknown",
			  g->uuid);
	}
	resume(g, j, was_up);
}

static void adopt(struct supervisor *sup, const char *uuid)
{
	struct guest *g = guest_by_uuid(sup, uuid);
	AUTO_JSON json_t *j = NULL;
	struct err err = {0};
	bool was_up;
	int state;

	if (!g)
		g = guest_add(sup, uuid, uuid);
	if (guest_load(g, &j, &err) < 0) {
		log_debug("vm=%s no state: %s", uuid, err.msg);
		return;
	}
	state = sup_state_from_label(json_get_str(j, "state", ""));
	if (!g->def)
		replace_str(&g->name, xstrdup(json_get_str(j, "name", uuid)));
	if (state < 0 || strcmp(json_get_str(j, "boot_id", ""), sup->boot_id) != 0)
		return;
	g->state = (enum sup_state)state;
	was_up = json_get_int(j, "pid", 0) > 0;
	g->launched = json_get_bool(j, "launched", false);
	if (g->state != SUP_INIT && g->state != SUP_STOPPED && g->state != SUP_FAILED)
		load_started(g);
	if (was_up && guest_watch_qemu(g, (pid_t)json_get_int(j, "pid", 0),
				       (uint64_t)json_get_int(j, "pid_start", 0), &err) < 0)
		log_info("vm=%s ended while nobody watched: %s", uuid, err.msg);
	if (!g->started && g->def)
		g->started = vm_copy(g->def->vm);
	else if (g->started && g->def && !g->def->error)
		vm_take_live(g->started, g->def->vm);
	if (g->started && g->pid > 0 && hardware_load(g, &err) < 0)
		log_warn("vm=%s its configfile as it is now: %s", uuid, err.msg);
	take_up(g, j);
}

void supervisor_adopt(struct supervisor *sup)
{
	DIR *d = opendir(sup->paths.run);
	struct guest *g, *next;
	struct dirent *de;

	while (d && (de = readdir(d)) != NULL) {
		if (uuid_valid(de->d_name))
			adopt(sup, de->d_name);
	}
	if (d)
		(void)closedir(d);
	(void)timer_set(sup->event, &sup->connect_timer, CONNECT_MS, connect_some, sup);
	for (g = sup->guests; g; g = next) {
		next = g->next;
		guest_check_mark(g);
		if (!g->def && g->settled && g->pid <= 0)
			guest_drop(g);
	}
}
