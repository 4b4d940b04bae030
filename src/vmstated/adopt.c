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
#include "base/problems.h"
#include "base/uuid.h"
#include "model/model.h"
#include "store/catalog.h"
#include "store/write.h"
#include "ucl/ucl.h"
#include "vmstated/hardware.h"
#include "vmstated/parts.h"

/* The definition as it was started: what runs may differ from the file by now. */
static void load_started(struct guest *g)
{
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, "started.json");
	AUTO_FREE char *data = path_of_data(&g->sup->paths, g->uuid, NULL);
	struct problems problems = {0};
	struct ucl_doc *doc = NULL;
	AUTO_JSON json_t *j = NULL;
	const struct ucl_value *root;
	const char *text;

	if (state_read(path, 1, &j, NULL) < 0)
		return;
	text = json_get_str(j, "definition", "");
	if (ucl_parse(path, text, strlen(text), NULL, &doc, NULL) < 0)
		return;
	root = ucl_root(doc);
	if (root->type == UCL_OBJECT && root->count == 1) {
		g->started =
			vm_from_ucl(root->keys[0], root->items[0], g->uuid, g->uuid, &problems);
		vm_finish(g->started, data);
		replace_str(&g->started->file, xstrdup(json_get_str(j, "file", NULL)));
		replace_str(&g->started->dir, xstrdup(json_get_str(j, "dir", NULL)));
		g->started->owner_uid = (uint32_t)json_get_int(j, "owner_uid", UINT32_MAX);
		g->started->group_gid = (uint32_t)json_get_int(j, "group_gid", UINT32_MAX);
	}
	problems_done(&problems);
	ucl_free(doc);
}

/* A QEMU may hold the lock though no process of ours is known: then we cannot tell. */
static bool lock_is_held(struct guest *g)
{
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, "lock");
	AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
}

static void take_up_running(struct guest *g, const json_t *j)
{
	struct err err = {0};

	if (monitor_open(g, &err) < 0 || console_open(g, false, &err) < 0)
		log_warn("vm=%s %s", g->uuid, err.msg);
	if (g->launched)
		monitor_wait_ready(g);
	else
		launch_watch(g);
	log_info("vm=%s adopted pid=%d state=%s", g->uuid, (int)g->pid, sup_states[g->state].label);
}

static bool still_runs(const json_t *hook)
{
	uint64_t start = (uint64_t)json_get_int(hook, "start", 0);

	return start && process_start_time((pid_t)json_get_int(hook, "pid", 0)) == start;
}

static void resume(struct guest *g, const json_t *j, bool was_up)
{
	const json_t *hook = json_object_get(j, "hook");
	struct child_exit gone = {.known = false};

	g->settled = json_get_bool(j, "settled", false);
	if (g->pid > 0) {
		take_up_running(g, j);
		if (hook)
			hooks_adopt(g, hook);
		else if (g->state == SUP_RUNNING || g->state == SUP_RESTARTED)
			(void)guest_dispatch(g, EV_HOOK_DONE, NULL);
		stop_resume(g);
	} else if (was_up) {
		if (still_runs(hook)) /* the walk of the end waits for it */
			hooks_adopt(g, hook);
		guest_ended(g, &gone);
	} else if (hook) {
		hooks_adopt(g, hook);
	} else if (!g->settled) {
		(void)guest_dispatch(g, EV_HOOK_DONE, NULL);
	}
	restart_resume(g);
	guest_publish(g);
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
	if (g->started && g->pid > 0 && hardware_load(g, &err) < 0)
		log_warn("vm=%s its configfile as it is now: %s", uuid, err.msg);
	if (!was_up && g->pid <= 0 && lock_is_held(g))
		log_error("vm=%s its lock is held, but no process is known: state unknown", uuid);
	resume(g, j, was_up);
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
	for (g = sup->guests; g; g = next) {
		next = g->next;
		guest_check_mark(g);
		if (!g->def && g->settled && g->pid <= 0)
			guest_drop(g);
	}
}
