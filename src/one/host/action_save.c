/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save and restore. Beside the checkpoint lies what the VM was (".vm", a payload of ours), so that
 * a restore makes the same machine, hot-plugged devices included; without it the message's VM
 * counts. A script save.TM runs last and restore.TM first, for system datastores that keep files
 * elsewhere. The transfer drivers move disks without their times, so a restore here does not ask
 * whether a disk was written since: the core has kept everybody from them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/props.h"
#include "one/deploy/deploy.h"
#include "one/host/action.h"
#include "one/host/action_run.h"

#define VM_FILE_MAX (1u << 20)

static int exists(const char *path)
{
	return access(path, F_OK);
}

/* Of an object the members a creation takes. */
static json_t *creatable(const struct prop_table *t, const json_t *object)
{
	json_t *out = json_object();

	for (size_t i = 0; i < t->count; i++) {
		const struct prop *row = &t->rows[i];
		json_t *value = json_object_get(object, row->name);

		if (value && (row->set & ON_CREATE) && !(row->set & (PAYLOAD_ONLY | KEY_BY_INDEX)))
			(void)json_object_set(out, row->name, value);
	}
	return out;
}

static json_t *elements(const struct prop_table *t, const json_t *list)
{
	json_t *out = json_array(), *one;
	size_t i;

	json_array_foreach (list, i, one) {
		json_t *copy = creatable(t, one);

		if (t == &disk_props && json_object_get(copy, "path"))
			json_put_bool(copy, "nocreate", true);
		(void)json_array_append_new(out, copy);
	}
	return out;
}

/* The payload that makes this VM again. */
static json_t *payload_of(const json_t *vm)
{
	json_t *out = creatable(&vm_props, vm);

	(void)json_object_set_new(out, "disks",
				  elements(&disk_props, json_object_get(vm, "disks")));
	(void)json_object_set_new(out, "nics", elements(&nic_props, json_object_get(vm, "nics")));
	return out;
}

static char *beside(const char *file)
{
	return xasprintf("%s.vm", file);
}

static int order(struct call *call, const char *id, const char *verb, const char *file,
		 struct err *err)
{
	AUTO_FREE char *suffix = xasprintf("/%s", verb), *target = vm_target(id, suffix);

	return ask_vmadmd(call, "POST", target, json_pack("{s:s, s:b}", "file", file, "force", 1),
			  NULL, err);
}

static int write_vm(const char *file, const json_t *vm, struct err *err)
{
	AUTO_FREE char *path = beside(file), *text = NULL;
	AUTO_JSON json_t *payload = payload_of(vm);

	text = json_text(payload);
	return file_write(path, text, strlen(text), 0600, FILE_NO_SYNC, err);
}

/* An older checkpoint is kept under another name, as the stock script does. */
static int set_aside(const char *file, struct err *err)
{
	AUTO_FREE char *old = xasprintf("%s.%lld", file, (long long)(clock_wall_ms() / 1000));

	if (rename(file, old) == 0 || errno == ENOENT)
		return 0;
	return err_sys(err, errno, "cannot rename '%s'", file);
}

int act_save(struct call *call, struct err *err)
{
	const char *file = call_arg(call, "file"), *id = call_arg(call, "id");
	AUTO_FREE char *aside = beside(file);
	AUTO_JSON json_t *vm = NULL;
	int r = ask_vm(call, id, &vm, err);

	if (r == 0)
		r = set_aside(file, err);
	if (r == 0)
		r = write_vm(file, vm, err);
	if (r == 0 && (r = order(call, id, "save", file, err)) < 0)
		(void)unlink(aside);
	if (r == 0)
		r = vm_remove(call, vm, err);
	if (r == 0)
		r = action_hook(call, "save", err);
	return r < 0 ? err_wrap(err, r, "Could not save %s to %s", id, file) : 0;
}

/* A file that lies beside the checkpoint now, wherever it was when that was made. */
static void move_file(json_t *object, const char *key, const char *dir)
{
	const char *path = json_get_str(object, key, "");
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *here = path_join(dir, slash ? slash + 1 : path);

	if (slash && exists(here) == 0)
		json_put_str(object, key, here);
}

static void move_files(json_t *payload, const char *dir)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(payload, "disks"), i, disk)
		move_file(disk, "path", dir);
	move_file(payload, "nvram", dir);
}

static int read_vm(struct call *call, const char *file, json_t **ret, struct err *err)
{
	AUTO_FREE char *path = beside(file), *dir = call_dir_of(file), *text = NULL;
	const struct deploy_place place = {.sysdir = dir, .exists = exists};
	xmlNode *vm;
	size_t len;
	int r = file_read(path, VM_FILE_MAX, &text, &len, NULL, err);

	if (r == 0) {
		r = json_parse_object(text, len, path, ret, err);
		if (r == 0)
			move_files(*ret, dir);
		return r;
	}
	if (r != -ENOENT)
		return r;
	r = call_element(call, "VM", &vm, err);
	return r < 0 ? r : deploy_read_vm(vm, &place, ret, err);
}

static int bring_back(struct call *call, json_t *payload, const char *file, struct err *err)
{
	const char *id = json_get_str(payload, "name", "");
	AUTO_JSON json_t *vm = NULL;
	int r = ask_vm(call, id, &vm, err);

	if (r == 0 && !json_get_bool(vm, "transient", false)) /* imported: its definition stayed */
		return order(call, id, "restore", file, err);
	r = vm_make(call, payload, err);
	if (r < 0)
		return r;
	r = order(call, id, "restore", file, err);
	if (r < 0)
		(void)vm_remove(call, payload, NULL);
	return r;
}

static int restore(struct call *call, const char *file, struct err *err)
{
	AUTO_JSON json_t *payload = NULL, *vm = NULL;
	AUTO_FREE char *aside = beside(file);
	int r = action_hook(call, "restore", err);

	if (r == 0)
		r = read_vm(call, file, &payload, err);
	if (r < 0)
		return r;
	/* A retry after the answer was lost: it runs, and its checkpoint is gone or of no use. */
	if (ask_vm(call, json_get_str(payload, "name", ""), &vm, NULL) == 0 && vm_is(vm, "running"))
		return 0;
	r = bring_back(call, payload, file, err);
	if (r < 0)
		return r;
	(void)unlink(file);
	(void)unlink(aside);
	return 0;
}

int act_restore(struct call *call, struct err *err)
{
	const char *file = call_arg(call, "file");
	int r = restore(call, file, err);

	return r < 0 ? err_wrap(err, r, "Could not restore from %s", file) : 0;
}
