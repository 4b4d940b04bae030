/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec and exec_cancel: a program in the guest, by its agent. exec answers when it was started; how
 * it ended the probe vm_execution tells, for which its number in the guest is kept in a file per
 * VM: one at a time. Source: fact sheet, 5 and 6.3.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/host/action.h"
#include "one/host/view.h"

#define RUN_DIR  "var/run/one" /* the core's; where it is not ours, the remotes */
#define PREFIX   "drover-exec-"
#define FILE_MAX 65536

static char *dir_of(const struct call *call)
{
	AUTO_FREE char *dir = path_join(call->paths.root, RUN_DIR);

	return access(dir, W_OK) == 0 ? steal_ptr(dir) : xstrdup(call->remotes);
}

/* The file of the call's VM, by the core's number of it. */
static int path_of(const struct call *call, char **ret, struct err *err)
{
	const char *number = call_arg(call, "vmid");
	AUTO_FREE char *dir = dir_of(call);

	if (!*number || strspn(number, "0123456789") != strlen(number) || strlen(number) > 10)
		return err_set(err, EINVAL, "'%.40s' is no number of a VM", number);
	*ret = xasprintf("%s/" PREFIX "%s", dir, number);
	return 0;
}

static char *id_of(const struct call *call)
{
	char *id = call_value(call, "DEPLOY_ID");

	if (id && *id)
		return id;
	free(id);
	return xasprintf("one-%s", call_arg(call, "vmid"));
}

static int ask_agent(struct call *call, const char *id, const char *verb, json_t *body,
		     json_t **ret, struct err *err)
{
	AUTO_FREE char *suffix = xasprintf("/agent/%s", verb), *target = vm_target(id, suffix);

	return ask_vmadmd(call, "POST", target, body, ret, err);
}

static int read_file(const char *path, json_t **ret, struct err *err)
{
	AUTO_FREE char *text = NULL;
	size_t len;
	int r = file_read(path, FILE_MAX, &text, &len, NULL, err);

	return r < 0 ? r : json_parse_object(text, len, path, ret, err);
}

static int write_file(const char *path, const json_t *kept, struct err *err)
{
	AUTO_FREE char *text = json_text(kept);

	return file_write(path, text, strlen(text), 0600, FILE_NO_SYNC, err);
}

/* 0: the one before has ended, or is not known any more. */
static int check_before(struct call *call, const char *id, const char *path, struct err *err)
{
	AUTO_JSON json_t *kept = NULL, *status = NULL;
	json_int_t pid;

	if (read_file(path, &kept, NULL) < 0)
		return 0;
	pid = json_get_int(kept, "pid", -1);
	if (ask_agent(call, id, "exec-status", json_pack("{s:I}", "pid", pid), &status, NULL) < 0 ||
	    json_get_bool(status, "exited", true))
		return 0;
	return err_set(err, EBUSY,
		       "a command runs in the guest already, as process %lld: cancel it",
		       (long long)pid);
}

static json_t *body_of(const struct call *call)
{
	AUTO_FREE char *given = call_value(call, "VM/TEMPLATE/QEMU_GA_EXEC/COMMAND");
	AUTO_FREE char *input = call_value(call, "VM/TEMPLATE/QEMU_GA_EXEC/STDIN");
	const char *command = given && *given ? given : call_arg(call, "command");
	json_t *body =
		json_pack("{s:[s, s, s], s:b}", "command", "/bin/sh", "-c", command, "wait", 0);

	if (!input)
		input = xstrdup(call_arg(call, "input"));
	json_put_str(body, "input_base64", *input ? input : NULL);
	return body;
}

int act_exec(struct call *call, struct err *err)
{
	AUTO_FREE char *path = NULL, *id = id_of(call);
	AUTO_JSON json_t *kept = NULL;
	int r = path_of(call, &path, err);

	if (r == 0)
		r = check_before(call, id, path, err);
	if (r == 0)
		r = ask_agent(call, id, "exec", body_of(call), &kept, err);
	if (r == 0)
		r = write_file(path, kept, err);
	return r < 0 ? err_wrap(err, r, "Could not run a command in %s", id) : 0;
}

/* The probe tells of its end, which this brings about. */
int act_exec_cancel(struct call *call, struct err *err)
{
	AUTO_FREE char *path = NULL, *id = id_of(call), *command = NULL;
	AUTO_JSON json_t *kept = NULL;
	int r = path_of(call, &path, err);

	if (r == 0)
		r = read_file(path, &kept, err);
	if (r == -ENOENT) /* it has ended, and was told of */
		return 0;
	if (r == 0) {
		json_put_bool(kept, "cancelled", true);
		r = write_file(path, kept, err);
	}
	command = xasprintf("kill -9 %lld", (long long)json_get_int(kept, "pid", -1));
	if (r == 0)
		r = ask_agent(call, id, "exec",
			      json_pack("{s:[s, s, s]}", "command", "/bin/sh", "-c", command), NULL,
			      err);
	return r < 0 ? err_wrap(err, r, "Could not cancel the command in %s", id) : 0;
}

/* --- the probe --- */

static void put_coded(struct strbuf *sb, const char *key, const char *text)
{
	AUTO_FREE char *coded = base64_encode(text, strlen(text));

	strbuf_printf(sb, ", %s=\"%s\"", key, coded);
}

/* true: it has ended, and this is the last that is told of it. */
static bool put_one(struct call *call, const char *number, const char *id, const json_t *kept,
		    struct strbuf *sb)
{
	json_int_t pid = json_get_int(kept, "pid", -1), code;
	AUTO_JSON json_t *status = NULL;
	struct err err = {0};
	int r = id ? ask_agent(call, id, "exec-status", json_pack("{s:I}", "pid", pid), &status,
			       &err)
		   : err_set(&err, EBUSY, "the VM does not run here any more");
	bool over = r == -EIO || r == -EBUSY || r == -ENOENT;

	if (!over && (r < 0 || !json_get_bool(status, "exited", false)))
		return false;
	code = json_get_int(status, "exitcode", 128 + json_get_int(status, "signal", 0));
	strbuf_printf(sb, "VM = [ ID=\"%s\", PID=\"%lld\", STATUS=\"%s\", RETURN_CODE=\"%lld\"",
		      number, (long long)pid,
		      json_get_bool(kept, "cancelled", false) ? "CANCELLED"
		      : over                                  ? "ERROR"
							      : "DONE",
		      over ? -1 : (long long)code);
	if (over) {
		put_coded(sb, "STDOUT", "");
		put_coded(sb, "STDERR", err.msg);
	} else { /* the agent's are base64 already */
		strbuf_printf(sb, ", STDOUT=\"%s\", STDERR=\"%s\"",
			      json_get_str(status, "out-data", ""),
			      json_get_str(status, "err-data", ""));
	}
	strbuf_puts(sb, " ]\n");
	return true;
}

static const char *vm_of(const struct view *v, const char *number)
{
	json_t *vm;
	size_t i;

	json_array_foreach (v->vms, i, vm)
		if (vm_number(vm) == strtol(number, NULL, 10))
			return json_get_str(vm, "uuid", NULL);
	return NULL;
}

void print_executions(struct call *call, const struct view *v, struct strbuf *sb)
{
	AUTO_FREE char *dir = dir_of(call);
	const struct dirent *entry;
	DIR *d = opendir(dir);

	while (d && (entry = readdir(d))) {
		const char *number = entry->d_name + strlen(PREFIX);
		AUTO_FREE char *path = path_join(dir, entry->d_name);
		AUTO_JSON json_t *kept = NULL;

		if (!str_starts(entry->d_name, PREFIX) ||
		    strspn(number, "0123456789") != strlen(number) ||
		    read_file(path, &kept, NULL) < 0)
			continue;
		if (put_one(call, number, vm_of(v, number), kept, sb))
			(void)unlink(path);
	}
	if (d)
		(void)closedir(d);
}
