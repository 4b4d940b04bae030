/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Facts of this host for vmadm doctor; see doctor.h. The daemons are asked what only they know
 * (accelerator, lost events, failed VMs); the rest is read from the system. Nothing is changed,
 * every wait is bounded, and a fact that cannot be had is left out.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "api/client.h"
#include "api/names.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/doctor.h"
#include "cli/request.h"

#define LIMITS_MAX  8192u
#define ANSWER_MS   5000
#define ENTRIES_MAX 100000u
#define MIB         (1u << 20)

/* A daemon's answer; NULL with the reason in its entry of `daemons`. */
static json_t *ask(struct cli *cli, json_t *daemons, enum peer peer, const char *target)
{
	struct request rq = {
		.peer = peer, .method = "GET", .target = target, .limit_ms = ANSWER_MS};
	json_t *entry = json_object_get(daemons, peer_name(peer)), *answer = NULL;
	struct client_reply reply;
	struct err err = {0};
	int code = request_run(cli, &rq, &reply, &err), r = -EIO;

	if (!entry) {
		entry = json_object();
		(void)json_object_set_new(daemons, peer_name(peer), entry);
	}
	if (code == 0) {
		r = json_parse(reply.body, reply.len, peer_name(peer), &answer, &err);
		client_reply_done(&reply);
	}
	json_put_bool(entry, "reachable", code == 0 && r == 0);
	json_put_str(entry, "error", r < 0 ? err_text(&err, r) : NULL);
	return answer;
}

/* --- what vmstated and vminfod say --- */

static void append_row(json_t *list, const char *name, const char *reason)
{
	json_t *row = json_object();

	json_put_str(row, "name", name);
	json_put_str(row, "reason", reason);
	(void)json_array_append_new(list, row);
}

static void take_vms(json_t *facts, const json_t *vms)
{
	json_t *failed = json_array(), *broken = json_array(), *silent = json_array();
	const json_t *vm;
	size_t i;

	json_array_foreach ((json_t *)vms, i, vm) {
		const char *name = json_get_str(vm, "name", "?");

		if (str_eq(json_get_str(vm, FACT_SUPERVISOR_STATE, ""), "FAILED"))
			append_row(failed, name, json_get_str(vm, FACT_FAILED, ""));
		if (json_object_get(vm, FACT_DEFINITION))
			append_row(broken, name,
				   json_get_str(vm, FACT_DEFINITION_ERROR, "it is missing"));
		if (str_eq(json_get_str(vm, FACT_QMP, ""), "unresponsive")) {
			AUTO_FREE char *text = xasprintf("QEMU has not answered since %s",
							 json_get_str(vm, "qmp_since", "?"));

			append_row(silent, name, text);
		}
	}
	(void)json_object_set_new(facts, "failed", failed);
	(void)json_object_set_new(facts, "broken", broken);
	(void)json_object_set_new(facts, "silent", silent);
}

static void take_files(json_t *facts, const char *daemon, const json_t *status)
{
	json_t *files = json_object_get(facts, "files");

	if (!files) {
		files = json_object();
		(void)json_object_set_new(facts, "files", files);
	}
	if (json_object_get(status, "files"))
		(void)json_object_set(files, daemon, json_object_get(status, "files"));
}

static void take_daemons(struct cli *cli, json_t *facts)
{
	json_t *daemons = json_object();
	AUTO_JSON json_t *vmstated = ask(cli, daemons, PEER_VMSTATED, "/status");
	AUTO_JSON json_t *vminfod = ask(cli, daemons, PEER_VMINFOD, "/status");
	AUTO_JSON json_t *vms = NULL;

	json_decref(ask(cli, daemons, PEER_VMADMD, "/ping"));
	(void)json_object_set_new(facts, "daemons", daemons);
	if (vmstated) {
		(void)json_object_set(facts, "accel", json_object_get(vmstated, "accel"));
		(void)json_object_set(facts, "problems", json_object_get(vmstated, "problems"));
		take_vms(facts, json_object_get(vmstated, "vms"));
		take_files(facts, "vmstated", vmstated);
	}
	if (vminfod) {
		take_files(facts, "vminfod", vminfod);
		vms = ask(cli, daemons, PEER_VMINFOD, "/vms?fields=alias,nics");
	}
	if (vms)
		(void)json_object_set_new(facts, "network", doctor_network(vms));
}

/* --- limits of the daemons' processes --- */

/* The soft value of a line of /proc/PID/limits; -1: unlimited, or INT64_MIN where unknown. */
static json_int_t limit_of(const char *limits, const char *line)
{
	const char *at = strstr(limits, line);
	char *end;
	json_int_t value;

	if (!at)
		return INT64_MIN;
	at += strlen(line);
	at += strspn(at, " ");
	value = strtoll(at, &end, 10);
	return end > at ? value : -1;
}

static void take_limits(const struct cli *cli, json_t *daemons, const char *name)
{
	const char *slash = strrchr(cli->paths.pidfile, '/');
	AUTO_FREE char *file = xasprintf("%.*s/%s.pid", (int)(slash - cli->paths.pidfile),
					 cli->paths.pidfile, name);
	AUTO_FREE char *pid = NULL, *path = NULL, *limits = NULL;
	json_t *entry = json_object_get(daemons, name);
	json_int_t memlock;

	if (file_read(file, 64, &pid, NULL, NULL, NULL) < 0)
		return;
	path = xasprintf("/proc/%ld/limits", strtol(pid, NULL, 10));
	if (file_read(path, LIMITS_MAX, &limits, NULL, NULL, NULL) < 0)
		return;
	json_put_int(entry, "nofile", limit_of(limits, "Max open files"));
	memlock = limit_of(limits, "Max locked memory");
	json_put_int(entry, "memlock_mib", memlock > 0 ? memlock / MIB : memlock);
}

/* --- places --- */

/* Append row to the list of that name, which is there only with rows. */
static void append_to(json_t *facts, const char *list, json_t *row)
{
	if (!json_object_get(facts, list))
		(void)json_object_set_new(facts, list, json_array());
	(void)json_array_append_new(json_object_get(facts, list), row);
}

static void take_space(json_t *facts, const char *what, const char *path)
{
	json_t *row;
	struct statvfs fs;

	if (statvfs(path, &fs) < 0)
		return;
	row = json_pack("{s:s, s:s, s:I, s:I}", "what", what, "path", path, "free_mib",
			(json_int_t)(fs.f_bavail * fs.f_frsize / MIB), "total_mib",
			(json_int_t)(fs.f_blocks * fs.f_frsize / MIB));
	if (fs.f_files > 0)
		json_put_int(row, "inodes_free", (json_int_t)fs.f_favail);
	append_to(facts, "space", row);
}

static void take_socket(json_t *facts, const char *path)
{
	struct stat st;
	json_t *row;

	if (stat(path, &st) < 0)
		return;
	row = json_pack("{s:s, s:i}", "path", path, "mode", (int)(st.st_mode & 07777));
	json_put_bool(row, "socket", S_ISSOCK(st.st_mode));
	append_to(facts, "sockets", row);
}

/* Note what somebody else could change; false: it could not be looked at. */
static bool look(json_t *facts, const char *path, const char *what, struct stat *st)
{
	struct err err = {0};

	if (stat(path, st) < 0)
		return false;
	if (file_check_trusted(st, what, path, &err) < 0)
		(void)json_array_append_new(json_object_get(facts, "untrusted"),
					    json_string(err.msg));
	return true;
}

/* A folder of definitions and hooks, with the folders STATE.d in it. */
static void look_into(json_t *facts, const char *dir, int depth)
{
	DIR *stream = opendir(dir);
	const struct dirent *entry;
	size_t n = 0;

	if (!stream) {
		(void)json_array_append_new(json_object_get(facts, "private"), json_string(dir));
		return;
	}
	while ((entry = readdir(stream)) && n++ < ENTRIES_MAX) {
		AUTO_FREE char *path = path_join(dir, entry->d_name);
		bool config = str_eq(entry->d_name, "config");
		struct stat st;

		if (entry->d_name[0] == '.' ||
		    !look(facts, path, config ? "definition" : "hook", &st))
			continue;
		if (S_ISDIR(st.st_mode) && depth > 0)
			look_into(facts, path, depth - 1);
	}
	(void)closedir(stream);
}

static void take_places(const struct cli *cli, json_t *facts)
{
	const struct paths *p = &cli->paths;
	struct stat st;

	(void)json_object_set_new(facts, "untrusted", json_array());
	(void)json_object_set_new(facts, "private", json_array());
	take_space(facts, "disks", p->lib);
	take_space(facts, "logs", p->log);
	take_space(facts, "state", p->run);
	for (int i = 0; i < PEER_COUNT; i++)
		take_socket(facts, peer_path(cli, (enum peer)i));
	if (look(facts, p->etc, "configuration directory", &st))
		look_into(facts, p->etc, 2);
	if (stat(p->lib, &st) == 0)
		(void)look(facts, p->lib, "data directory", &st);
}

json_t *doctor_facts(struct cli *cli)
{
	json_t *facts = json_object(), *daemons;

	json_put_str(facts, "version", DROVER_VERSION);
	json_put_int(facts, "uid", geteuid());
	take_daemons(cli, facts);
	daemons = json_object_get(facts, "daemons");
	for (int i = 0; i < PEER_COUNT; i++)
		take_limits(cli, daemons, peer_name((enum peer)i));
	take_places(cli, facts);
	json_put_bool(facts, "kvm", file_exists("/dev/kvm"));
	return facts;
}
