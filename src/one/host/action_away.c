/* SPDX-License-Identifier: Apache-2.0 */
/*
 * migrate, on the host a VM leaves: by vmadmd, which lets it go on there with nothing running
 * twice. The core's transfer driver has made the VM's directory available there, or has not: a file
 * made here and looked for there tells. Where it is shared nothing is copied, and snapshots go
 * along; else small files are copied first, and vmadmd copies the disks while the guest runs.
 * migrate_local, on the front-end, has the host do it. Source: fact sheet, 4.1 and 5.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "one/deploy/deploy.h"
#include "one/host/action.h"
#include "one/host/action_run.h"

#define LOOK_MS  60000
#define COPY_MS  3600000
#define MOVE_MS  3600000
#define RDIR     "/var/tmp/one"
#define CONF_MAX (1u << 20)
#define SHARED   "SHARED\n" /* said there when the file made here is seen */

struct move {
	struct call *call;
	const char *id, *to;
	json_t *vm;
	char *dir;    /* of the VM in the system datastore; NULL: no disk is a file */
	json_t *copy; /* paths of disks that are not there; NULL: all is shared */
};

static void move_done(struct move *m)
{
	json_decref(m->vm);
	json_decref(m->copy);
	free(m->dir);
}

/* --- how it is there --- */

/* The letter of a poll over there, '-' when nobody can tell. */
static int ask_there(const struct move *m, const char *mark, char *ret, bool *ret_shared,
		     struct err *err)
{
	AUTO_STRBUF struct strbuf command = {0}, said = {0};
	const char *text;
	int r;

	if (mark) {
		strbuf_puts(&command, "[ -e ");
		strbuf_put_quoted(&command, mark);
		strbuf_puts(&command, " ] && echo SHARED; ");
	}
	strbuf_puts(&command, "exec ");
	strbuf_put_quoted(&command, m->call->scripts);
	strbuf_puts(&command, "/poll ");
	strbuf_put_quoted(&command, m->id);
	r = action_remote(m->to, command.data, NULL, 0, LOOK_MS, &said, err);
	if (r < 0)
		return r;
	text = said.data ? said.data : "";
	*ret_shared = str_starts(text, SHARED);
	text += *ret_shared ? strlen(SHARED) : 0;
	*ret = str_starts(text, "STATE=") && text[6] ? text[6] : '-';
	return 0;
}

static bool runs_there(const struct move *m)
{
	bool shared;
	char letter;

	return ask_there(m, NULL, &letter, &shared, NULL) == 0 && (letter == 'a' || letter == 'p');
}

static int look_there(const struct move *m, bool *ret_shared, struct err *err)
{
	char name[UUID_LEN + 1], letter = '-';
	AUTO_FREE char *mark = NULL;
	int fd, r;

	uuid_random(name);
	if (m->dir) {
		mark = xasprintf("%s/.drover-%s", m->dir, name);
		fd = open(mark, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
		if (fd < 0)
			return err_sys(err, errno, "cannot make '%s'", mark);
		(void)close(fd);
	}
	r = ask_there(m, mark, &letter, ret_shared, err);
	if (mark)
		(void)unlink(mark);
	if (r < 0 || letter == 'd')
		return r;
	return letter == '-' ? err_set(err, EBUSY, "%s cannot tell whether it has the VM", m->to)
			     : err_set(err, EEXIST, "%s has a VM of that name already", m->to);
}

/* --- files --- */

static bool in_dir(const struct move *m, const char *path)
{
	size_t len = strlen(m->dir);

	return strncmp(path, m->dir, len) == 0 && path[len] == '/' && !strchr(path + len + 1, '/');
}

/* Those vmadmd copies while the guest writes to them. */
static void list_disks(struct move *m)
{
	json_t *disk;
	size_t i;

	m->copy = json_array();
	json_array_foreach (json_object_get(m->vm, "disks"), i, disk) {
		const char *path = json_get_str(disk, "path", "");

		if (in_dir(m, path) && !json_get_bool(disk, "readonly", false) &&
		    !str_eq(json_get_str(disk, "media", "disk"), "cdrom"))
			(void)json_array_append_new(m->copy, json_string(path));
	}
}

/*
 * All but those disks. What lies there under their names was left by an earlier stay: the VM is not
 * there, and the directory is its own.
 */
static int copy_files(const struct move *m, struct err *err)
{
	static const char script[] = "set -o pipefail\n"
				     "dir=$1 host=$2 there=$3\n"
				     "shift 3\n"
				     "{ tar -C \"$dir\" --warning=no-file-changed --anchored "
				     "--no-wildcards \"$@\" -cf - .; [ $? -le 1 ]; } |\n"
				     "ssh -o BatchMode=yes \"$host\" \"$there\"\n";
	AUTO_STRBUF struct strbuf there = {0};
	size_t count = json_array_size(m->copy), n = 0;
	AUTO_FREE char **argv = xcalloc(count + 8, sizeof(*argv));
	const char *const head[] = {"bash", "-c", script, "copy", m->dir, m->to};
	int r;

	strbuf_puts(&there, "mkdir -p ");
	strbuf_put_quoted(&there, m->dir);
	strbuf_puts(&there, " && cd ");
	strbuf_put_quoted(&there, m->dir);
	strbuf_puts(&there, " && rm -f --");
	for (n = 0; n < ARRAY_SIZE(head); n++)
		argv[n] = xstrdup(head[n]);
	n++;
	for (size_t i = 0; i < count; i++) {
		const char *name = strrchr(json_string_value(json_array_get(m->copy, i)), '/') + 1;

		argv[n++] = xasprintf("--exclude=./%s", name);
		strbuf_puts(&there, " ");
		strbuf_put_quoted(&there, name);
	}
	strbuf_puts(&there, " && exec tar -xf -");
	argv[ARRAY_SIZE(head)] = xstrdup(there.data);
	r = action_program(argv, NULL, 0, COPY_MS, NULL, err);
	for (size_t i = 0; i < n; i++)
		free(argv[i]);
	return r < 0 ? err_wrap(err, r, "cannot copy %s to %s", m->dir, m->to) : 0;
}

/* --- the move --- */

/* MIGRATE_URI with the host in place of %h. */
static char *uri_of(const struct move *m)
{
	const char *root = m->call->paths.root;
	AUTO_FREE char *usual = xasprintf("ssh://%%h%s", str_eq(root, "/") ? "" : root);
	AUTO_FREE char *text = call_setting(m->call, "MIGRATE_URI", usual);
	AUTO_STRBUF struct strbuf sb = {0};

	for (const char *at = text; *at; at++) {
		if (at[0] != '%' || at[1] != 'h') {
			strbuf_putc(&sb, *at);
			continue;
		}
		strbuf_puts(&sb, m->to);
		at++;
	}
	return strbuf_steal(&sb);
}

static int order(struct move *m, struct err *err)
{
	AUTO_FREE char *target = vm_target(m->id, "/migrate?wait=0"), *uri = uri_of(m);
	AUTO_JSON json_t *vm = NULL;
	json_t *body = json_pack("{s:s}", "to", uri);
	struct err why;
	int r;

	if (m->copy)
		(void)json_object_set(body, "copy_disks", m->copy);
	r = ask_job(m->call, target, body, NULL, err);
	if (r == 0)
		return 0;
	/* What counts is where it runs: the answer may have been lost, not the VM. */
	why = *err;
	if (ask_vm(m->call, m->id, &vm, NULL) == -ENOENT && runs_there(m))
		return 0;
	*err = why;
	return r;
}

/* With cores from 6.0 the directory there may be in another datastore. */
static int check_place(const struct move *m, struct err *err)
{
	AUTO_FREE char *wanted = call_value(m->call, "DISK_TARGET_PATH");
	AUTO_FREE char *path = deploy_path(wanted ? wanted : "");
	size_t len = strlen(path);

	while (len > 1 && path[len - 1] == '/')
		path[--len] = '\0';
	if (str_eq(m->to, call_arg(m->call, "host")))
		return err_set(err, EOPNOTSUPP,
			       "to another datastore of the same host: Operation not supported "
			       "while the VM runs: power it off first");
	if (*path && m->dir && !str_eq(path, m->dir))
		return err_set(err, EOPNOTSUPP,
			       "from %s to %s: Operation not supported while the VM runs: power "
			       "it off first",
			       m->dir, path);
	return 0;
}

static int migrate(struct move *m, struct err *err)
{
	bool shared = true;
	int r = ask_vm(m->call, m->id, &m->vm, err);

	if (r == -ENOENT && runs_there(m)) /* a retry after the answer was lost */
		return 0;
	if (r < 0)
		return r;
	m->dir = vm_dir(m->vm);
	r = check_place(m, err);
	if (r == 0)
		r = look_there(m, &shared, err);
	if (r == 0 && m->dir && !shared) {
		list_disks(m);
		r = copy_files(m, err);
	}
	return r < 0 ? r : order(m, err);
}

int act_migrate(struct call *call, struct err *err)
{
	struct move m = {.call = call, .id = call_arg(call, "id"), .to = call_arg(call, "target")};
	int r = migrate(&m, err);

	move_done(&m);
	return r < 0 ? err_wrap(err, r, "Could not migrate %s to %s", m.id, m.to) : 0;
}

/* --- begun on the front-end --- */

/* Where the remotes lie on hosts: the core's record of its configuration beside ours. */
static char *remote_dir(const struct call *call)
{
	static const char key[] = "\nSCRIPTS_REMOTE_DIR=";
	AUTO_FREE char *path = xasprintf("%s/../config", call->remotes), *text = NULL;
	const char *at;

	if (file_read(path, CONF_MAX, &text, NULL, NULL, NULL) < 0)
		return xstrdup(RDIR);
	at = strstr(text, key);
	return at ? xstrndup(at + strlen(key), strcspn(at + strlen(key), "\r\n")) : xstrdup(RDIR);
}

int act_migrate_local(struct call *call, struct err *err)
{
	const char *slash = strrchr(call->scripts, '/'), *host = call_arg(call, "host");
	AUTO_FREE char *dir = remote_dir(call);
	AUTO_STRBUF struct strbuf command = {0};
	AUTO_JSON json_t *vm = NULL;

	/* The front-end may be the host itself. */
	if (ask_vm(call, call_arg(call, "id"), &vm, NULL) == 0)
		return act_migrate(call, err);
	strbuf_puts(&command, "exec ");
	strbuf_put_quoted(&command, dir);
	strbuf_puts(&command, "/vmm/");
	strbuf_put_quoted(&command, slash ? slash + 1 : "drover");
	strbuf_puts(&command, "/migrate");
	for (int i = 0; i < call->argc; i++) {
		strbuf_puts(&command, " ");
		strbuf_put_quoted(&command, call->argv[i]);
	}
	return action_remote(host, command.data, call->input, call->input_len, MOVE_MS, NULL, err);
}
