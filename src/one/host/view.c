/* SPDX-License-Identifier: Apache-2.0 */
/* The state of VMs and what they use, in the core's words; see view.h. */
#include "one/host/view.h"

#include <ctype.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/host/action.h"

#define MEMORY_FILE ".drover-counters.json"
#define MEMORY_MAX  (4u << 20)
#define BLOCK       512
#define MIB         (1024 * 1024)

/* What monitoring looks at; the rest of 500 objects is megabytes. */
#define FIELDS                                                                                     \
	"uuid,name,alias,state,run_state,transition_to,unknown,disks,ram,vcpus,acpi,vnc_port,"     \
	"vnc_address"

/* --- looking --- */

static void read_stats(struct view *v, struct call *call)
{
	AUTO_JSON json_t *all = NULL;
	AUTO_FREE char *text = NULL;
	json_t *one;
	size_t i, len;

	if (ask_json(call, call->paths.vmadmd, "/stats", &all, NULL) < 0)
		return;
	json_array_foreach (json_object_get(all, "vms"), i, one)
		(void)json_object_set(v->stats, json_get_str(one, "uuid", ""), one);
	if (file_read(v->memory, MEMORY_MAX, &text, &len, NULL, NULL) == 0 &&
	    json_parse_object(text, len, v->memory, &one, NULL) == 0) {
		json_decref(v->before);
		v->before = one;
	}
}

int view_open(struct view *v, struct call *call, bool with_stats, struct err *err)
{
	AUTO_JSON json_t *status = NULL;
	const json_t *feed;
	int r;

	*v = (struct view){.stats = json_object(), .before = json_object()};
	v->memory = path_join(call->remotes, MEMORY_FILE);
	r = ask_json(call, call->paths.vminfod, "/vms?fields=" FIELDS, &v->vms, err);
	if (r == 0)
		r = ask_json(call, call->paths.vminfod, "/status", &status, err);
	if (r < 0)
		return r;
	feed = json_object_get(json_object_get(status, "feeds"), "vmstated");
	v->sure = json_get_bool(feed, "connected", false) && json_get_bool(feed, "ready", false);
	if (with_stats)
		read_stats(v, call);
	return 0;
}

static json_int_t cpu_ns(const json_t *stats)
{
	return json_get_int(json_object_get(stats, "cpu"), "time_ns", 0);
}

void view_done(struct view *v)
{
	AUTO_JSON json_t *now = json_object();
	const char *uuid;
	json_t *stats;

	json_object_foreach (v->stats, uuid, stats)
		(void)json_object_set_new(
			now, uuid, json_pack("[I, I]", cpu_ns(stats), (json_int_t)clock_us()));
	if (json_object_size(now)) {
		AUTO_FREE char *text = json_text(now);

		(void)file_write(v->memory, text, strlen(text), 0600, FILE_NO_SYNC, NULL);
	}
	json_decref(v->vms);
	json_decref(v->stats);
	json_decref(v->before);
	free(v->memory);
}

/* --- states --- */

struct letter {
	const char *word;
	char letter;
};

static char letter_of(const struct letter *rows, const char *word, char fallback)
{
	for (; rows->word; rows++)
		if (str_eq(rows->word, word))
			return rows->letter;
	return fallback;
}

/* QEMU's run state of a VM that runs. */
static const struct letter run_states[] = {
	{"paused", 'p'},         {"suspended", 'p'}, {"io-error", 'e'}, {"internal-error", 'e'},
	{"guest-panicked", 'e'}, {"watchdog", 'e'},  {"shutdown", 'a'}, {NULL, 0}};
static const struct letter states[] = {
	{"provisioning", 'a'}, {"receiving", 'a'}, {"running", 'a'}, {"stopping", 'a'},
	{"ready", 'a'},        {"stopped", 'd'},   {"failed", 'e'},  {"configured", '-'},
	{"incomplete", '-'},   {NULL, 0}};

char vm_letter(const json_t *vm)
{
	char letter = letter_of(states, json_get_str(vm, "state", ""), '-');

	if (json_object_get(json_object_get(vm, FACT_UNKNOWN), "vmstated"))
		return '-';
	/* Between the two halves of a reboot. */
	if (letter == 'd' && str_eq(json_get_str(vm, FACT_TRANSITION_TO, NULL), "start"))
		return 'a';
	if (letter == 'a')
		return letter_of(run_states, json_get_str(vm, FACT_RUN_STATE, ""), 'a');
	return letter;
}

const char *vm_state_word(char letter)
{
	switch (letter) {
	case 'a':
		return "RUNNING";
	case 'p':
		return "SUSPENDED";
	case 'e':
		return "FAILURE";
	case 'd':
		return "POWEROFF";
	default:
		return "UNKNOWN";
	}
}

long vm_number(const json_t *vm)
{
	const char *name = json_get_str(vm, "name", "");
	char *end = NULL;
	long number;

	if (!str_starts(name, "one-") || !isdigit((unsigned char)name[4]))
		return -1;
	number = strtol(name + 4, &end, 10);
	return *end ? -1 : number;
}

const char *vm_deploy_id(const json_t *vm)
{
	return json_get_str(vm, vm_number(vm) >= 0 ? "name" : "uuid", "");
}

/* --- counters --- */

/* Percent of one CPU since the last look; without one, since the start. */
static double cpu_percent(const struct view *v, const json_t *vm, const json_t *stats)
{
	const json_t *was = json_object_get(v->before, json_get_str(vm, "uuid", ""));
	json_int_t ns = cpu_ns(stats) - json_integer_value(json_array_get(was, 0));
	json_int_t us = (json_int_t)clock_us() - json_integer_value(json_array_get(was, 1));

	if (!was || ns < 0 || us <= 0)
		return 0;
	return (double)ns / 10.0 / (double)us;
}

static json_int_t sum(const json_t *stats, const char *list, const char *key)
{
	json_int_t total = 0;
	json_t *one;
	size_t i;

	json_array_foreach (json_object_get(stats, list), i, one)
		total += json_get_int(one, key, 0);
	return total;
}

void put_counters(struct strbuf *sb, const struct view *v, const json_t *vm, char end)
{
	static const struct {
		const char *name, *list, *key;
	} rows[] = {
		{"NETRX", "net", "rx_bytes"},
		{"NETTX", "net", "tx_bytes"},
		{"DISKRDBYTES", "block", "rd_bytes"},
		{"DISKWRBYTES", "block", "wr_bytes"},
		{"DISKRDIOPS", "block", "rd_operations"},
		{"DISKWRIOPS", "block", "wr_operations"},
	};
	const json_t *stats = json_object_get(v->stats, json_get_str(vm, "uuid", ""));
	json_int_t rss = json_get_int(json_object_get(stats, "memory"), "rss_bytes", 0);

	if (!stats)
		return;
	strbuf_printf(sb, "CPU=%.1f%cMEMORY=%lld%c", cpu_percent(v, vm, stats), end,
		      (long long)(rss / 1024), end);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		strbuf_printf(sb, "%s=%lld%c", rows[i].name,
			      (long long)sum(stats, rows[i].list, rows[i].key), end);
}

/* The number of "/.../disk.7"; -1 for another file. */
static long disk_number(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *end = NULL;
	long number;

	if (!slash || !str_starts(slash, "/disk.") || !isdigit((unsigned char)slash[6]))
		return -1;
	number = strtol(slash + 6, &end, 10);
	return *end ? -1 : number;
}

void put_sizes(struct strbuf *sb, const json_t *vm, char end)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(vm, "disks"), i, disk) {
		long id = disk_number(json_get_str(disk, "path", ""));
		double mib = json_number_value(json_object_get(disk, "allocated"));

		if (id >= 0 && json_object_get(disk, "allocated"))
			strbuf_printf(sb, "DISK_SIZE=[ID=%ld,SIZE=%lld]%c", id,
				      (long long)(mib + 0.5), end);
	}
}

static void put_snapshots_of(struct strbuf *sb, const char *path, long id, char end)
{
	AUTO_FREE char *folder = xasprintf("%s.snap", path);
	DIR *dir = opendir(folder);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)) != NULL) {
		struct stat st;

		if (strspn(entry->d_name, "0123456789") != strlen(entry->d_name) ||
		    fstatat(dirfd(dir), entry->d_name, &st, 0) < 0)
			continue;
		strbuf_printf(sb, "SNAPSHOT_SIZE=[ID=%s,DISK_ID=%ld,SIZE=%lld]%c", entry->d_name,
			      id, (long long)st.st_blocks * BLOCK / MIB, end);
	}
	if (dir)
		(void)closedir(dir);
}

void put_snapshots(struct strbuf *sb, const json_t *vm, char end)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(vm, "disks"), i, disk) {
		const char *path = json_get_str(disk, "path", "");
		long id = disk_number(path);

		if (id >= 0)
			put_snapshots_of(sb, path, id, end);
	}
}

/* --- a VM the core did not deploy --- */

/* In the core's templates a quote within quotes wants a backslash. */
static void put_quoted(struct strbuf *sb, const char *key, const char *text)
{
	strbuf_printf(sb, "%s=\"", key);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			strbuf_putc(sb, '\\');
		strbuf_putc(sb, *text == '\n' ? ' ' : *text);
	}
	strbuf_puts(sb, "\"\n");
}

void put_import(struct strbuf *sb, const json_t *vm, const char *hypervisor, const char *key)
{
	json_int_t vcpus = json_get_int(vm, "vcpus", 1), port = json_get_int(vm, "vnc_port", -1);

	put_quoted(sb, "NAME", json_get_str(vm, "alias", json_get_str(vm, "name", "")));
	strbuf_printf(sb, "CPU=%lld\nVCPU=%lld\nMEMORY=%lld\n", (long long)vcpus, (long long)vcpus,
		      (long long)json_get_int(vm, "ram", 0));
	put_quoted(sb, "HYPERVISOR", hypervisor);
	put_quoted(sb, key, vm_deploy_id(vm));
	strbuf_puts(sb, "OS=[ARCH=\"x86_64\"]\n");
	strbuf_printf(sb, "FEATURES=[ACPI=\"%s\"]\n",
		      json_get_bool(vm, "acpi", true) ? "yes" : "no");
	if (port > 0)
		strbuf_printf(sb, "GRAPHICS=[TYPE=\"vnc\",LISTEN=\"%s\",PORT=\"%lld\"]\n",
			      json_get_str(vm, "vnc_address", "127.0.0.1"), (long long)port);
}
