/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of actions, and how a call finds its arguments: by position as both eras give them,
 * or in the message. Whatever stands behind the known ones (the driver appends the VM's id and the
 * host to everything) is passed over.
 */
#include "one/host/action.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/xml.h"

#define RC_MAX 65536

/* clang-format off */
const struct action actions[] = {
	{ "attach_disk", "id source target index message", 3, act_attach_disk, "Add a disk." },
	{ "attach_nic", "id mac bridge model driver target", 2, act_attach_nic, "Add a NIC." },
	{ "cancel", "id host", 1, act_cancel, "End a VM at once." },
	{ "deploy", "file host", 1, act_deploy, "Start a VM." },
	{ "detach_disk", "id source target index", 3, act_detach_disk, "Take a disk out." },
	{ "detach_nic", "id mac", 2, act_detach_nic, "Take a NIC out." },
	{ "exec", "vmid host command input", 3, act_exec, "Run a command in the guest." },
	{ "exec_cancel", "vmid host", 1, act_exec_cancel, "End that command." },
	{ "migrate", "id target host", 2, act_migrate, "Move a running VM to another host." },
	{ "migrate_local", "id target host", 2, act_migrate_local, "The same, begun on the front-end." },
	{ "poll", "id host", 0, act_poll, "Print what is known of a VM." },
	{ "prereconfigure", "id target", 1, act_prereconfigure, "Eject the context CD." },
	{ "reboot", "id host", 1, act_reboot, "Ask the guest to reboot." },
	{ "reconfigure", "id target file", 1, act_reconfigure, "Insert the context CD." },
	{ "reset", "id host", 1, act_reset, "Reset the machine." },
	{ "resize", "id", 1, act_resize, "Change memory of a running VM." },
	{ "resize_disk", "id disk size message host", 3, act_resize_disk, "Enlarge a disk." },
	{ "restore", "file host id", 1, act_restore, "Start a saved VM." },
	{ "save", "id file host", 2, act_save, "Write memory to a checkpoint, and stop." },
	{ "shutdown", "id host", 1, act_shutdown, "Power off; forced in the end." },
	{ "snapshot_create", "id snapshot", 2, act_snapshot_create, "Take a snapshot with memory." },
	{ "snapshot_delete", "id name", 2, act_snapshot_delete, "Delete a snapshot." },
	{ "snapshot_revert", "id name", 2, act_snapshot_revert, "Back to a snapshot." },
	{ "probe", "kind hypervisor hostid host", 1, act_probe, "Print what a probe says." },
	{ "xpath", "", 0, act_xpath, "Print values of a message." },
};
/* clang-format on */
const size_t action_count = ARRAY_SIZE(actions);

const struct action *action_find(const char *name)
{
	for (size_t i = 0; i < action_count; i++)
		if (str_eq(actions[i].name, name))
			return &actions[i];
	return NULL;
}

static int position(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (int i = 0; *words; i++) {
		size_t n = strcspn(words, " ");

		if (n == len && strncmp(words, word, n) == 0)
			return i;
		words += n + (words[n] == ' ');
	}
	return -1;
}

const char *call_arg(const struct call *call, const char *word)
{
	int at = position(call->action->words, word);

	if (at >= 0 && at < call->argc)
		return call->argv[at];
	return str_eq(word, "host") && call->argc > 0 ? call->argv[call->argc - 1] : "";
}

char *call_value(const struct call *call, const char *path)
{
	return xml_value(call->data, path);
}

int call_element(const struct call *call, const char *path, xmlNode **ret, struct err *err)
{
	if (!call->data)
		return err_set(err, EINVAL, "no message on standard input, which %s needs",
			       call->action->name);
	*ret = xml_find(call->data, path);
	return *ret ? 0 : err_set(err, EINVAL, "the message has no %s", path);
}

/* NAME=VALUE of a shell's file, quotes off; the last one counts. */
static char *rc_value(const char *text, const char *name)
{
	char *found = NULL;
	size_t len = strlen(name);

	while (*text) {
		size_t line = strcspn(text, "\n");
		const char *at = text + strspn(text, " \t");

		if (str_starts(at, "export "))
			at += 7;
		if (strncmp(at, name, len) == 0 && at[len] == '=') {
			const char *value = at + len + 1;
			bool quoted = *value == '"' || *value == '\'';
			const char quote[2] = {*value, '\0'};

			value += quoted;
			replace_str(&found,
				    xstrndup(value, strcspn(value, quoted ? quote : " \t#\n")));
		}
		text += line + (text[line] == '\n');
	}
	return found;
}

char *file_setting(const char *path, const char *name, const char *fallback)
{
	AUTO_FREE char *text = NULL;
	char *value = NULL;

	if (file_read(path, RC_MAX, &text, NULL, NULL, NULL) == 0)
		value = rc_value(text, name);
	return value ? value : xstrdup(fallback);
}

char *call_setting(const struct call *call, const char *name, const char *fallback)
{
	const char *given = getenv(name);
	const char *slash = strrchr(call->scripts, '/');
	const char *dir = slash && slash[1] ? slash + 1 : "drover"; /* of VM_MAD's ARGUMENTS */
	AUTO_FREE char *path = xasprintf("%s/etc/vmm/%s/%src", call->remotes, dir, dir);

	return given && *given ? xstrdup(given) : file_setting(path, name, fallback);
}

char *call_dir_of(const char *file)
{
	const char *slash = strrchr(file, '/');

	return slash ? xstrndup(file, (size_t)(slash - file)) : xstrdup(".");
}
