/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots with memory. They lie in the disks, and vmadmd's index of them in the VM's data
 * directory, which goes with the VM: a copy beside the disks makes them known again at the next
 * deployment, here or on another host (KEEP_SNAPSHOTS).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/host/action.h"

#define INDEX_FILE "drover-snapshots.json"
#define INDEX_MAX  (4u << 20)

static int keep(struct call *call, const json_t *vm, struct err *err)
{
	AUTO_FREE char *target = vm_target(json_get_str(vm, "uuid", ""), "/snapshots?index=1");
	AUTO_FREE char *dir = vm_dir(vm), *path = dir ? path_join(dir, INDEX_FILE) : NULL;
	AUTO_FREE char *text = NULL;
	AUTO_JSON json_t *index = NULL;
	int r;

	if (!path)
		return 0;
	r = ask_vmadmd(call, "GET", target, NULL, &index, err);
	if (r < 0)
		return r;
	text = json_text(index);
	if (json_array_size(json_object_get(index, "snapshots")) == 0)
		return unlink(path) < 0 && errno != ENOENT
			       ? err_sys(err, errno, "cannot remove '%s'", path)
			       : 0;
	return file_write(path, text, strlen(text), 0600, FILE_SYNC, err);
}

int snapshots_take_up(struct call *call, const char *id, const char *dir, struct err *err)
{
	AUTO_FREE char *path = path_join(dir, INDEX_FILE), *text = NULL;
	AUTO_FREE char *target = vm_target(id, "/snapshots");
	json_t *index = NULL;
	size_t len;
	int r = file_read(path, INDEX_MAX, &text, &len, NULL, err);

	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = json_parse_object(text, len, path, &index, err);
	return r < 0 ? r : ask_vmadmd(call, "PUT", target, index, NULL, err);
}

int act_snapshot_create(struct call *call, struct err *err)
{
	const char *id = call_arg(call, "id");
	AUTO_FREE char *name = xasprintf("snap-%.40s", call_arg(call, "snapshot"));
	AUTO_FREE char *target = vm_target(id, "/snapshots");
	AUTO_JSON json_t *vm = NULL;
	int r = ask_vm(call, id, &vm, err);

	if (r == 0)
		r = ask_vmadmd(call, "POST", target,
			       json_pack("{s:s, s:b}", "name", name, "memory", 1), NULL, err);
	if (r == 0)
		r = keep(call, vm, err);
	if (r < 0)
		return err_wrap(err, r, "Could not create snapshot %s for %s", name, id);
	(void)printf("%s\n", name);
	return 0;
}

static int deed(struct call *call, const char *method, const char *verb, const char *text,
		struct err *err)
{
	const char *id = call_arg(call, "id"), *name = call_arg(call, "name");
	AUTO_FREE char *escaped = client_escape(name);
	AUTO_FREE char *suffix = xasprintf("/snapshots/%s%s", escaped, verb);
	AUTO_FREE char *target = vm_target(id, suffix);
	AUTO_JSON json_t *vm = NULL;
	int r = ask_vm(call, id, &vm, err);

	if (r == 0)
		r = ask_vmadmd(call, method, target, NULL, NULL, err);
	if (r == 0)
		r = keep(call, vm, err);
	return r < 0 ? err_wrap(err, r, "Could not %s snapshot %s of %s", text, name, id) : 0;
}

int act_snapshot_delete(struct call *call, struct err *err)
{
	return deed(call, "DELETE", "", "delete", err);
}

int act_snapshot_revert(struct call *call, struct err *err)
{
	return deed(call, "POST", "/rollback", "revert to", err);
}
