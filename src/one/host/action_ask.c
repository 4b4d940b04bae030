/* SPDX-License-Identifier: Apache-2.0 */
/* Questions and orders of the actions to vminfod and vmadmd, and what VM objects tell. */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "api/client.h"
#include "api/status.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "one/host/action.h"

#define AGENT_NAME "drover-vmm/" DROVER_VERSION
#define OPEN_MS    2000
#define AGAIN_MS   60000 /* for a daemon that is started anew */
#define GONE_MS    5000
#define LIMIT_MS   3600000 /* the daemons have deadlines of their own */

static int ask(const char *socket, int open_ms, const char *method, const char *target,
	       const char *body, json_t **ret, struct err *err)
{
	struct client_reply reply = {0};
	struct client client;
	json_t *json;
	int r = client_open(&client, socket, AGENT_NAME, open_ms, err);

	if (r < 0)
		return r;
	r = client_call(&client, method, target, body, LIMIT_MS, &reply, err);
	client_close(&client);
	if (r < 0)
		return r;
	r = client_reply_error(&reply, err);
	if (r == 0 && ret) {
		json = json_loadb(reply.body ? reply.body : "", reply.len, JSON_DECODE_ANY, NULL);
		r = json ? 0 : err_set(err, EPROTO, "%s answered no JSON", socket);
		*ret = json;
	}
	client_reply_done(&reply);
	return r;
}

int ask_json(struct call *call, const char *socket, const char *target, json_t **ret,
	     struct err *err)
{
	return ask(socket, OPEN_MS, "GET", target, NULL, ret, err);
}

int ask_vmadmd(struct call *call, const char *method, const char *target, json_t *body,
	       json_t **ret, struct err *err)
{
	AUTO_FREE char *text = body ? json_text(body) : NULL;

	json_decref(body);
	return ask(call->paths.vmadmd, OPEN_MS, method, target, text, ret, err);
}

/* A result, or the error of one that failed. */
static int job_outcome(const json_t *job, json_t **ret, struct err *err)
{
	const json_t *error = json_object_get(job, "error"), *result;
	int code = status_errno_from_name(json_get_str(error, "code", ""));

	if (!str_eq(json_get_str(job, "state", ""), "done"))
		return err_set(err, code > 0 ? code : EIO, "%s",
			       json_get_str(error, "message", "it was ended"));
	result = json_object_get(job, "result");
	if (ret)
		*ret = result ? json_deep_copy(result) : json_object();
	return 0;
}

int ask_job(struct call *call, const char *target, json_t *body, json_t **ret, struct err *err)
{
	AUTO_JSON json_t *begun = NULL;
	json_int_t revision = 0;
	int r = ask_vmadmd(call, "POST", target, body, &begun, err);
	AUTO_FREE char *id = NULL;

	if (r < 0)
		return r;
	id = client_escape(json_get_str(begun, "job", ""));
	for (;;) {
		AUTO_FREE char *look = xasprintf("/jobs/%s?after=%lld", id, (long long)revision);
		AUTO_JSON json_t *job = NULL;

		r = ask(call->paths.vmadmd, AGAIN_MS, "GET", look, NULL, &job, err);
		/* Cut off, not refused: the next look waits for the daemon to be back. */
		if (r == -ECONNRESET || r == -EPIPE)
			continue;
		if (r < 0)
			return r;
		if (!str_eq(json_get_str(job, "state", ""), "running"))
			return job_outcome(job, ret, err);
		revision = json_get_int(job, "revision", 0);
	}
}

char *vm_target(const char *id, const char *suffix)
{
	AUTO_FREE char *name = client_escape(id);

	return xasprintf("/vm/%s%s", name, suffix);
}

/* Filters compare whole values; who has the word as name is meant before who has it as alias. */
int ask_vm(struct call *call, const char *id, json_t **ret, struct err *err)
{
	static const char *const keys[] = {"uuid", "name", "alias"};
	AUTO_FREE char *value = client_escape(id);

	for (size_t i = uuid_valid(id) ? 0 : 1; *id && i < ARRAY_SIZE(keys); i++) {
		AUTO_FREE char *target = xasprintf("/vms?%s=%s", keys[i], value);
		AUTO_JSON json_t *list = NULL;
		int r = ask_json(call, call->paths.vminfod, target, &list, err);

		if (r < 0)
			return r;
		if (json_array_size(list) != 1)
			continue;
		*ret = json_incref(json_array_get(list, 0));
		return 0;
	}
	return err_set(err, ENOENT, "there is no VM '%.80s' on this host", id);
}

bool vm_is(const json_t *vm, const char *state)
{
	return str_eq(json_get_str(vm, "state", ""), state);
}

int vm_remove(struct call *call, const json_t *vm, struct err *err)
{
	const char *uuid = json_get_str(vm, "uuid", "");
	AUTO_FREE char *target = vm_target(uuid, "");
	int r;

	if (!json_get_bool(vm, "transient", false))
		return 0;
	r = ask_vmadmd(call, "DELETE", target, NULL, NULL, err);
	if (r == -ENOENT) { /* it went with its guest, which readers may not see yet */
		(void)vm_await(call, uuid, VM_GONE, GONE_MS, NULL);
		r = 0;
	}
	return r;
}

char *vm_dir(const json_t *vm)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(vm, "disks"), i, disk) {
		const char *path = json_get_str(disk, "path", "");
		const char *slash = strrchr(path, '/');

		if (path[0] == '/' && slash && str_starts(slash, "/disk."))
			return call_dir_of(path);
	}
	return NULL;
}

json_t *vm_disk(const json_t *vm, const char *word)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(vm, "disks"), i, disk) {
		if (str_eq(json_get_str(disk, "name", NULL), word) ||
		    str_eq(json_get_str(disk, "path", NULL), word))
			return disk;
	}
	return NULL;
}

json_t *vm_nic(const json_t *vm, const char *mac)
{
	json_t *nic;
	size_t i;

	json_array_foreach (json_object_get(vm, "nics"), i, nic) {
		if (strcasecmp(json_get_str(nic, "mac", ""), mac) == 0)
			return nic;
	}
	return NULL;
}
