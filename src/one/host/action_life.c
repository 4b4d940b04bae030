/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deploy, shutdown, cancel, reboot and reset. A retry of an operator finds what the first attempt
 * left: a VM that runs is deployed, one that is gone is shut down.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/deploy/deploy.h"
#include "one/deploy/deploy_private.h"
#include "one/host/action.h"

#define CONTROLLERS     "/sys/fs/cgroup/cgroup.controllers"
#define CONTROLLERS_MAX 4096

#define FORCED      "?action=stop&wait=1&force=1"
#define SECONDS_MAX 86400

#define DIR_MODE  0755
#define FILE_MODE 0600 /* passwords are in it */

static int exists(const char *path)
{
	return access(path, F_OK);
}

static int store(struct call *call, const char *file, struct err *err)
{
	AUTO_FREE char *dir = call_dir_of(file);
	int r;

	if (!call->input_len)
		return err_set(err, EINVAL, "no deployment file on standard input");
	r = dir_make(dir, DIR_MODE, err);
	if (r == 0)
		r = file_write(file, call->input, call->input_len, FILE_MODE, FILE_NO_SYNC, err);
	return r < 0 ? err_wrap(err, r, "cannot store the deployment file") : 0;
}

/* The VM is the caller's: he may act on it, and `vmadm list -o owner` tells whose it is. */
static void put_owner(json_t *payload)
{
	const struct passwd *user = getpwuid(geteuid());

	json_put_str(payload, "owner", user ? user->pw_name : NULL);
}

/* CPU is a weight, no promise: where the kernel cannot weigh, the VM is not refused for it. */
static void drop_shares(const struct call *call, json_t *payload)
{
	AUTO_FREE char *text = NULL;
	const char *at;

	if (!json_object_get(payload, "cpu_shares"))
		return;
	if (file_read(CONTROLLERS, CONTROLLERS_MAX, &text, NULL, NULL, NULL) == 0)
		for (at = text; *at; at += strcspn(at, " \n"), at += strspn(at, " \n"))
			if (str_starts(at, "cpu") && strchr(" \n", at[3]))
				return;
	(void)json_object_del(payload, "cpu_shares");
	(void)fprintf(stderr,
		      "INFO: %s: this host has no cgroup controller 'cpu': CPU has no effect\n",
		      call->action->name);
}

int vm_make(struct call *call, json_t *payload, struct err *err)
{
	AUTO_JSON json_t *vm = NULL;
	int r = ask_vm(call, json_get_str(payload, "name", ""), &vm, err);

	if (r == 0) {
		if (!json_get_bool(vm, "transient", false))
			return err_set(err, EEXIST,
				       "VM '%s' is there and was not deployed: rename or delete it",
				       json_get_str(vm, "name", ""));
		r = vm_remove(call, vm, err);
	}
	if (r < 0 && r != -ENOENT)
		return r;
	put_owner(payload);
	drop_shares(call, payload);
	return ask_vmadmd(call, "POST", "/vms", json_incref(payload), NULL, err);
}

static int start(struct call *call, const char *id, struct err *err)
{
	AUTO_FREE char *target = vm_target(id, "?action=start&wait=1");

	return ask_vmadmd(call, "POST", target, NULL, NULL, err);
}

static int deploy(struct call *call, json_t *payload, const char *dir, struct err *err)
{
	const char *id = json_get_str(payload, "name", "");
	int r = vm_make(call, payload, err);

	if (r < 0)
		return r;
	r = snapshots_take_up(call, id, dir, err);
	if (r == 0)
		r = start(call, id, err);
	if (r < 0)
		(void)vm_remove(call, payload, NULL);
	return r;
}

/*
 * With -l the deployment file is the front-end's, in vms/ beside the remotes: the disks lie in the
 * datastores, which its configuration may have elsewhere. NULL: the file lies beside the disks.
 */
static char *datastores(const struct call *call, const char *dir)
{
	AUTO_FREE char *remotes = realpath(call->remotes, NULL), *real = realpath(dir, NULL);
	AUTO_FREE char *var = remotes ? call_dir_of(remotes) : xstrdup("");
	AUTO_FREE char *vms = path_join(var, "vms/"), *config = path_join(var, "config");
	AUTO_FREE char *usual = path_join(var, "datastores");

	return real && str_starts(real, vms) ? file_setting(config, "DATASTORE_LOCATION", usual)
					     : NULL;
}

int act_deploy(struct call *call, struct err *err)
{
	const char *file = call_arg(call, "file");
	AUTO_FREE char *beside = call_dir_of(file), *location = NULL, *dir = NULL;
	struct deploy_place place = {.sysdir = beside, .exists = exists};
	AUTO_JSON json_t *payload = NULL, *vm = NULL;
	int r = store(call, file, err);

	if (r == 0) {
		place.location = location = datastores(call, beside);
		r = deploy_read(call->input, call->input_len, &place, &payload, err);
	}
	if (r == 0) {
		dir = vm_dir(payload);
		if (!dir)
			dir = call_dir_of(file);
	}
	if (r == 0 && (ask_vm(call, json_get_str(payload, "name", ""), &vm, err) < 0 ||
		       !vm_is(vm, "running")))
		r = deploy(call, payload, dir, err);
	if (r < 0)
		return err_wrap(err, r, "Could not create domain from %s", file);
	(void)printf("%s\n", json_get_str(payload, "name", ""));
	return 0;
}

/* A VM that is not here has been shut down, whoever did it. */
static int find(struct call *call, json_t **ret, struct err *err)
{
	int r = ask_vm(call, call_arg(call, "id"), ret, err);

	return r == -ENOENT ? 0 : r;
}

static int stop(struct call *call, const char *query, struct err *err)
{
	AUTO_FREE char *target = vm_target(call_arg(call, "id"), query);
	int r = ask_vmadmd(call, "POST", target, NULL, NULL, err);

	return r == -ENOENT || r == -EALREADY ? 0 : r;
}

static bool setting_is(const struct call *call, const char *name, const char *fallback)
{
	AUTO_FREE char *value = call_setting(call, name, fallback);

	return strcasecmp(value, "yes") == 0;
}

/* The button, again at half time, and nothing else: the guest decides. */
static int ask_guest(struct call *call, const char *uuid, uint64_t limit_ms, struct err *err)
{
	AUTO_FREE char *button = vm_target(uuid, "?action=sysrq&request=powerdown&wait=1");
	int r = vm_await(call, uuid, VM_ENDED, 0, err);

	for (int i = 0; i < 2 && r == -ETIMEDOUT; i++) {
		r = ask_vmadmd(call, "POST", button, NULL, NULL, err);
		if (r == 0 || vm_await(call, uuid, VM_ENDED, 0, NULL) == 0)
			r = vm_await(call, uuid, VM_ENDED, limit_ms / 2, err);
	}
	return r;
}

static int stop_gently(struct call *call, const json_t *vm, const char *seconds, struct err *err)
{
	const char *uuid = json_get_str(vm, "uuid", "");
	double limit;
	int r;

	if (!deploy_number(seconds, &limit) || limit > SECONDS_MAX)
		return err_set(err, EINVAL, "SHUTDOWN_TIMEOUT: '%.40s' is not a number of seconds",
			       seconds);
	r = ask_guest(call, uuid, (uint64_t)(limit * 1000), err);
	if (r != -ETIMEDOUT)
		return r;
	return err_set(err, ETIMEDOUT,
		       "Timed out shutting down %s: its guest did not power off within %s seconds "
		       "(FORCE_DESTROY=yes ends it then)",
		       call_arg(call, "id"), seconds);
}

/* Source: fact sheet, 5, "shutdown". */
int act_shutdown(struct call *call, struct err *err)
{
	AUTO_FREE char *seconds = call_setting(call, "SHUTDOWN_TIMEOUT", "180");
	AUTO_FREE char *query = xasprintf("?action=stop&wait=1&timeout=%.20s", seconds);
	AUTO_JSON json_t *vm = NULL;
	int r = find(call, &vm, err);

	if (r < 0 || !vm)
		return r;
	if (!json_get_bool(vm, "acpi", true) && setting_is(call, "CANCEL_NO_ACPI", "yes"))
		r = stop(call, FORCED, err);
	else if (setting_is(call, "FORCE_DESTROY", "yes"))
		r = stop(call, query, err);
	else
		r = stop_gently(call, vm, seconds, err);
	return r < 0 ? r : vm_remove(call, vm, err);
}

int act_cancel(struct call *call, struct err *err)
{
	AUTO_JSON json_t *vm = NULL;
	int r = find(call, &vm, err);

	if (r < 0 || !vm)
		return r;
	r = stop(call, FORCED, err);
	return r < 0 ? r : vm_remove(call, vm, err);
}

static int act(struct call *call, const char *query, struct err *err)
{
	AUTO_FREE char *target = vm_target(call_arg(call, "id"), query);

	return ask_vmadmd(call, "POST", target, NULL, NULL, err);
}

/* Answered when the request is taken: a guest may need its time. */
int act_reboot(struct call *call, struct err *err)
{
	AUTO_FREE char *seconds = call_setting(call, "SHUTDOWN_TIMEOUT", "180");
	AUTO_FREE char *query = xasprintf("?action=reboot&timeout=%.20s", seconds);

	return act(call, query, err);
}

int act_reset(struct call *call, struct err *err)
{
	return act(call, "?action=reset&wait=1", err);
}
