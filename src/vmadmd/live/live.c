/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What live operations share: their place beside a change, the journal, the disks they work on,
 * the steps every one of them has, and their taking up after a sudden end. See live.h.
 */
#include "vmadmd/live/live.h"
#include "vmadmd/live/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "net/feed.h"
#include "qemu/image.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/backup/backup.h"
#include "vmadmd/change/update.h"
#include "vmadmd/guest/agent.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/save.h"
#include "vmadmd/migrate/migrate.h"

#define FACTS_MS      2000u /* for vmstated, before a repair begins without its facts */
#define FACTS_LOOK_MS 20u

struct live *live_new(void)
{
	struct live *l = xcalloc(1, sizeof(*l));

	l->memory = -1;
	return l;
}

static void free_disks(struct live *l)
{
	for (size_t i = 0; i < l->ndisks; i++)
		free(l->disks[i].path);
	l->ndisks = 0;
	replace_str(&l->vars, NULL);
}

void live_free(struct live *l)
{
	if (!l)
		return;
	live_job_free(l->job);
	live_calls_forget(l);
	saving_free(l->saving);
	until_free(l->until);
	migrating_free(l->migrating);
	arriving_free(l->arriving);
	free_disks(l);
	if (l->own_entry)
		json_decref(l->entry);
	json_decref(l->index);
	json_decref(l->journal);
	json_decref(l->blocks);
	free(l);
}

struct guest *live_guest(struct change *c)
{
	return guest_get(c->d, c->uuid);
}

void live_point(const char *place)
{
	if (str_eq(getenv("DROVER_TEST_KILL_AT"), place))
		(void)raise(SIGKILL);
	if (str_eq(getenv("DROVER_TEST_STOP_AT"), place))
		(void)raise(SIGSTOP);
}

void live_point_worker(const char *place)
{
	const char *wanted = getenv("DROVER_TEST_KILL_AT");

	if (wanted && strcmp(wanted, place) == 0)
		(void)kill(getppid(), SIGKILL);
	live_point(place);
}

/* --- the journal --- */

static char *journal_path(const struct vmadmd *d, const char *uuid)
{
	return path_of_data(d->paths, uuid, JOURNAL_FILE);
}

json_t *live_journal(const struct vmadmd *d, const char *uuid)
{
	AUTO_FREE char *path = journal_path(d, uuid);
	json_t *journal = NULL;
	struct err err = {0};
	int r = state_read(path, JOURNAL_VERSION, &journal, &err);

	if (r < 0 && r != -ENOENT)
		log_error("vm=%s an operation was cut short, but its journal cannot be read: %s",
			  uuid, err.msg);
	return r < 0 ? NULL : journal;
}

int live_journal_write(struct change *c, struct err *err)
{
	AUTO_FREE char *path = journal_path(c->d, c->uuid);
	int r = state_write(path, JOURNAL_VERSION, c->live->journal, c->d->sync, err);

	return r < 0 ? err_wrap(err, r, "the journal of VM %s", c->uuid) : 0;
}

static int marked(struct change *c, struct err *err)
{
	live_point("marked");
	return 0;
}

int live_step_mark(struct change *c, struct err *err)
{
	c->live->marked = true;
	c->stored = true; /* too late to cancel */
	return change_work(c, live_journal_write, marked, err);
}

int live_journal_remove(struct change *c, struct err *err)
{
	AUTO_FREE char *path = journal_path(c->d, c->uuid);

	if (unlink(path) < 0 && errno != ENOENT)
		return err_sys(err, errno, "cannot remove '%s'", path);
	return parent_sync(c->d, path, err);
}

/* What came to its good end stays as the last one: its job's outcome, should we end right here. */
static int unmark_files(struct change *c, struct err *err)
{
	AUTO_FREE char *path = journal_path(c->d, c->uuid);
	AUTO_FREE char *last = path_of_data(c->d->paths, c->uuid, LIVE_LAST);

	if (c->live->undone)
		return live_journal_remove(c, err);
	if (rename(path, last) < 0 && errno != ENOENT)
		return err_sys(err, errno, "cannot rename '%s'", path);
	return parent_sync(c->d, path, err);
}

static int unmarked(struct change *c, struct err *err)
{
	c->live->marked = false;
	live_point("unmarked");
	return 0;
}

int live_step_unmark(struct change *c, struct err *err)
{
	return c->live->marked ? change_work(c, unmark_files, unmarked, err) : 0;
}

int live_kept_away(const struct vmadmd *d, const char *uuid, struct err *err)
{
	AUTO_FREE char *path = journal_path(d, uuid);
	AUTO_JSON json_t *journal = file_exists(path) ? live_journal(d, uuid) : NULL;
	const char *why = json_get_str(journal, JOURNAL_KEEP_AWAY, NULL);

	return why ? err_set(err, EBUSY, "VM %s must not run here: %.300s", uuid, why) : 0;
}

/* --- steps --- */

int live_nothing_waits(struct change *c, struct err *err)
{
	AUTO_FREE char *path = journal_path(c->d, c->uuid);

	if (!file_exists(path))
		return 0;
	return err_set(err, EBUSY,
		       "VM %s: an operation that was cut short is not tidied up yet; try again in "
		       "a moment",
		       c->uuid);
}

int live_step_lock(struct change *c, struct err *err)
{
	int r = c->live->again ? 0 : live_nothing_waits(c, err);

	if (r < 0)
		return r;
	r = guest_lock_take(c->d, c->uuid, &c->guest_lock, err);
	c->live->running = r > 0;
	return r < 0 ? r : 0;
}

int live_step_job(struct change *c, struct err *err)
{
	const char *id = json_get_str(c->live->journal, "job", "");
	int r;

	if (c->live->again) {
		c->job = job_adopt(c->d, id, NULL, NULL);
		return 0;
	}
	r = change_job(c, NULL, err);
	if (r == 0 && c->live->journal)
		json_put_str(c->live->journal, "job", job_id(c->job));
	return r;
}

int live_step_publish(struct change *c, struct err *err)
{
	snapshots_read(c->d, c->uuid);
	c->seq = guest_publish(live_guest(c));
	return step_seen(c, err);
}

/* --- disks --- */

static struct live_disk *add_disk(struct live *l, const char *path, const char *format)
{
	struct live_disk *disk = &l->disks[l->ndisks];

	if (l->ndisks == VM_DISKS_MAX)
		return NULL;
	l->ndisks++;
	*disk = (struct live_disk){.path = xstrdup(path)};
	(void)snprintf(disk->format, sizeof(disk->format), "%s", format);
	return disk;
}

const struct live_disk *live_disk_by_path(const struct live *l, const char *path)
{
	for (size_t i = 0; i < l->ndisks; i++) {
		if (str_eq(l->disks[i].path, path))
			return &l->disks[i];
	}
	return NULL;
}

/* What can be worked on. */
int live_qcow2_only(const struct change *c, struct err *err)
{
	const struct live *l = c->live;

	for (size_t i = 0; i < l->ndisks; i++) {
		if (!str_eq(l->disks[i].format, "qcow2"))
			return err_set(err, ENOTSUP,
				       "VM %s: disk '%s' is %s, and only qcow2 images hold "
				       "snapshots: convert it (qemu-img convert -O qcow2), make it "
				       "readonly, or take it out",
				       c->uuid, l->disks[i].path,
				       l->disks[i].format[0] ? l->disks[i].format : "unknown");
	}
	if (l->ndisks == 0)
		return err_set(err, ENOTSUP,
			       "VM %s has no disk that can be written: a snapshot needs a qcow2 "
			       "image to be kept in",
			       c->uuid);
	return 0;
}

static int defined_disks(struct change *c, const struct vm *vm, struct err *err)
{
	for (size_t i = 0; i < vm->ndisks; i++) {
		const struct disk *disk = vm->disks[i];
		const char *protocol = disk->path ? image_protocol(disk->path) : NULL;
		struct image_info info = {0};
		int r;

		if (disk->media != MEDIA_DISK || disk->readonly || !disk->path || !*disk->path)
			continue;
		r = protocol ? 0 : image_probe(disk->path, &info, err);
		if (r < 0)
			return err_wrap(err, r, "disks[%zu]", i);
		(void)add_disk(c->live, disk->path,
			       protocol                       ? protocol
			       : disk->format == FORMAT_RAW   ? "raw"
			       : info.format == IMAGE_QCOW2   ? "qcow2"
			       : disk->format == FORMAT_QCOW2 ? "no qcow2 image"
							      : "raw");
	}
	return 0;
}

char *live_vars_path(const struct change *c)
{
	const struct catalog_entry *e = catalog_by_uuid(c->d->catalog, c->uuid);

	return path_of_nvram(c->d->paths, c->uuid, e && e->vm ? e->vm->nvram : NULL);
}

static void vars_of(struct change *c)
{
	AUTO_FREE char *path = live_vars_path(c);

	if (file_exists(path))
		c->live->vars = steal_ptr(path);
}

static int stopped_disks(struct change *c, struct err *err)
{
	struct catalog_entry *e = change_entry(c, err);

	if (!e)
		return -ENOENT;
	if (e->error)
		return err_set(err, EBUSY, "the definition of VM %s is broken: %.300s", c->uuid,
			       e->error);
	if (e->vm->configfile)
		return err_set(err, ENOTSUP,
			       "VM %s: its disks are those of '%s', which is read at a start only: "
			       "start it first",
			       c->uuid, e->vm->configfile);
	vars_of(c);
	return defined_disks(c, e->vm, err);
}

/* What QEMU has open says more than a definition that may have changed since. */
static void on_blocks(struct change *c, const json_t *value)
{
	struct live *l = c->live;
	const json_t *block, *inserted;
	size_t i;

	vars_of(c);
	json_array_foreach (value, i, block) {
		const char *file;
		struct live_disk *disk;

		inserted = json_object_get(block, "inserted");
		file = json_get_str(inserted, "file", "");
		if (!inserted || json_get_bool(inserted, "ro", false) || str_eq(file, l->vars))
			continue;
		disk = add_disk(l, file, json_get_str(inserted, "drv", ""));
		if (disk)
			(void)snprintf(disk->node, sizeof(disk->node), "%s",
				       json_get_str(inserted, "node-name", ""));
	}
	json_decref(l->blocks);
	l->blocks = json_deep_copy(value);
	change_next(c);
}

/* Taken up again: the disks it was about, whatever the definition says by now. */
static int disks_of_entry(struct change *c)
{
	struct live *l = c->live;
	const json_t *entry = l->entry ? l->entry : json_object_get(l->journal, "entry"), *path;
	size_t i;

	vars_of(c);
	json_array_foreach (json_object_get(entry, "disks"), i, path)
		(void)add_disk(l, json_string_value(path), "qcow2");
	return 0;
}

int live_step_nodes(struct change *c, struct err *err)
{
	free_disks(c->live);
	if (c->live->again && !c->live->running)
		return disks_of_entry(c);
	return c->live->running ? live_ask(c, "query-block", NULL, on_blocks, err)
				: stopped_disks(c, err);
}

/* --- taken up again --- */

static const struct {
	const char *op;
	const struct change_kind *kind;
} repairs[] = {
	{"snapshot", &change_snapundo},          {"rollback", &change_rollback},
	{"delete-snapshot", &change_snapdelete}, {"save", &change_save_undo},
	{"restore", &change_restore_undo},       {"migrate", &change_migrate_back},
	{"arrive", &change_arrive_back},         {"plug", &change_plug_back},
	{"backup", &change_backup_undo},
};

static void repair(struct vmadmd *d, const char *uuid)
{
	AUTO_JSON json_t *journal = live_journal(d, uuid);
	struct change_by by;
	struct live *l;

	if (!journal)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(repairs); i++) {
		if (!str_eq(json_get_str(journal, "op", ""), repairs[i].op))
			continue;
		by.uid = (uid_t)json_get_int(journal, "uid", 0);
		by.command = json_get_str(journal, "command", "repair");
		l = live_new();
		l->again = l->marked = true;
		(void)snprintf(l->name, sizeof(l->name), "%s", json_get_str(journal, "name", ""));
		(void)snprintf(l->qemu_job, sizeof(l->qemu_job), "%s",
			       json_get_str(journal, "qemu_job", ""));
		l->journal = steal_ptr(journal);
		log_warn("vm=%s %s was cut short: it is looked after", uuid, repairs[i].op);
		change_order(d, repairs[i].kind, uuid, &by, l, NULL);
		return;
	}
	log_error("vm=%s journal of an unknown operation '%s' left alone", uuid,
		  json_get_str(journal, "op", ""));
}

static int on_repair(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct guest *g = ctx;

	/* What is to be looked after is told by vmstated, which may be telling it just now. */
	if (!feed_client_ready(g->d->states) && clock_ms() < g->d->started_ms + FACTS_MS) {
		(void)timer_set(g->d->event, &g->repair, FACTS_LOOK_MS, on_repair, g);
		return 0;
	}
	g->repairing = false;
	repair(g->d, g->uuid);
	return 0;
}

void live_repair(struct vmadmd *d, const char *uuid, uint64_t delay_ms)
{
	struct guest *g = guest_get(d, uuid);

	g->repairing = true;
	(void)timer_set(d->event, &g->repair, delay_ms, on_repair, g);
}

static void on_thawed(void *ctx, int r, const json_t *value, const struct err *err)
{
}

void live_undo(struct change *c)
{
	struct live *l = c->live;
	struct guest *g = guest_find(c->d, c->uuid);

	if (l->paused && g)
		live_send(g, "cont", NULL);
	if (l->frozen && g)
		(void)agent_thaw(g, on_thawed, NULL, NULL);
	l->paused = l->frozen = false;
	if (!l->marked)
		return;
	/* Its job ends when this has been worked off, not before. */
	if (l->again)
		c->job = NULL;
	live_repair(c->d, c->uuid, l->again ? LIVE_AGAIN_MS : 0);
}

const char *live_keeps_stopped(const struct vmadmd *d, const char *uuid)
{
	for (const struct change *c = d->changes; c; c = c->next) {
		if (c->live && c->guest_lock >= 0 && strcmp(c->uuid, uuid) == 0)
			return c->command;
	}
	return NULL;
}

bool live_repairs(struct vmadmd *d, const char *uuid, const char *job)
{
	AUTO_JSON json_t *journal = live_journal(d, uuid);

	return journal && str_eq(json_get_str(journal, "job", ""), job);
}

bool live_done(struct vmadmd *d, const char *uuid, const char *job)
{
	AUTO_FREE char *path = path_of_data(d->paths, uuid, LIVE_LAST);
	AUTO_JSON json_t *last = NULL;

	return state_read(path, JOURNAL_VERSION, &last, NULL) == 0 &&
	       str_eq(json_get_str(last, "job", NULL), job);
}

void live_start(struct vmadmd *d)
{
	DIR *dir = opendir(d->paths->lib);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)) != NULL) {
		AUTO_FREE char *path = NULL;

		if (!uuid_valid(entry->d_name))
			continue;
		path = journal_path(d, entry->d_name);
		snapshots_read(d, entry->d_name);
		if (file_exists(path))
			live_repair(d, entry->d_name, 0);
	}
	if (dir)
		(void)closedir(dir);
}
