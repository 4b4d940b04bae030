/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /status; see status.h. The original worked off a queue of tasks; here an event is applied when
 * it is taken, and the queue is what vmadmd's changes under way withhold.
 */
#include "vminfod/status.h"

#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/vm.h"
#include "net/http.h"
#include "store/catalog.h"
#include "vminfod/cache.h"
#include "vminfod/events.h"
#include "vminfod/sources.h"
#include "vminfod/stamp.h"

static void put_ago(json_t *j, const char *key, uint64_t since_us)
{
	char buf[DURATION_LEN];

	json_put_str(j, key, duration_text((clock_us() - since_us) * 1000, buf, sizeof(buf)));
}

static void put_stamp(json_t *j, const char *key, uint64_t us)
{
	char buf[STAMP_LEN];

	json_put_str(j, key, stamp_text(us * 1000, buf, sizeof(buf)));
}

/* The second number of statm, in pages. */
static json_int_t resident_bytes(void)
{
	AUTO_FREE char *text = NULL;
	char *rest;

	if (file_read("/proc/self/statm", 4096, &text, NULL, NULL, NULL) < 0)
		return 0;
	(void)strtoul(text, &rest, 10);
	return (json_int_t)strtoul(rest, NULL, 10) * sysconf(_SC_PAGESIZE);
}

static json_t *memory(void)
{
	struct mallinfo2 heap = mallinfo2();
	json_t *j = json_object();

	json_put_int(j, "rss", resident_bytes());
	json_put_int(j, "heapTotal", (json_int_t)heap.arena + (json_int_t)heap.hblkhd);
	json_put_int(j, "heapUsed", (json_int_t)heap.uordblks + (json_int_t)heap.hblkhd);
	return j;
}

/* What waits: the changes that are withheld until vmadmd has made them whole. */
static json_t *queue(const struct sources *sources)
{
	const struct hold *holds;
	size_t n = sources_holds(sources, &holds);
	json_t *j = json_object(), *queued = json_array();

	for (size_t i = 0; i < n; i++) {
		uint64_t since_us = (holds[i].deadline_ms - HOLD_MS) * 1000;
		AUTO_FREE char *text = xasprintf("refresh %s after its change", holds[i].uuid);
		json_t *row = json_object();

		json_put_str(row, "description", text);
		put_stamp(row, "created_at", since_us);
		put_ago(row, "created_ago", since_us);
		(void)json_array_append_new(queued, row);
	}
	put_stamp(j, "now", clock_us());
	json_put_bool(j, "paused", false);
	json_put_bool(j, "idle", n == 0);
	(void)json_object_set_new(j, "vasync_queue",
				  json_pack("{s:i, s:i, s:I, s:{}, s:o}", "concurrency", 1,
					    "npending", 0, "nqueued", (json_int_t)n, "pending",
					    "queued", queued));
	return j;
}

static json_t *refresh_errors(const struct sources *sources)
{
	const struct scan_error *errors;
	size_t n = sources_errors(sources, &errors);
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *row = json_object();

		json_put_str(row, "err", errors[i].text);
		put_stamp(row, "time", errors[i].us);
		put_ago(row, "ago", errors[i].us);
		(void)json_array_append_new(list, row);
	}
	return list;
}

static json_t *problems(const struct sources *sources, const struct catalog *catalog)
{
	const struct catalog_problem *p;
	size_t n = catalog_problems(catalog, &p);
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *row = json_object();

		json_put_str(row, "file", p[i].file);
		json_put_str(row, "text", p[i].text);
		json_put_str(row, "name", p[i].name);
		(void)json_array_append_new(list, row);
	}
	if (sources_host_problem(sources)) {
		json_t *row = json_object();

		json_put_str(row, "file", "host.json");
		json_put_str(row, "text", sources_host_problem(sources));
		(void)json_array_append_new(list, row);
	}
	return list;
}

static json_t *files(const struct sources *sources, const struct catalog *catalog)
{
	const struct catalog_stats *s = catalog_stats(catalog);
	json_t *j = json_object();

	json_put_int(j, "events", (json_int_t)s->events);
	json_put_int(j, "reloads", (json_int_t)s->reloads);
	json_put_int(j, "overflows", (json_int_t)s->overflows);
	json_put_int(j, "lost", (json_int_t)s->lost);
	json_put_int(j, "scans", (json_int_t)s->scans);
	json_put_int(j, "slices", (json_int_t)sources_slices(sources));
	json_put_bool(j, "doubtful", catalog_doubtful(catalog));
	return j;
}

static json_t *events(const struct hub *hub)
{
	json_t *j = json_object();
	struct hub_stats s;

	hub_stats(hub, &s);
	json_put_int(j, "records", (json_int_t)s.records);
	json_put_int(j, "listeners", (json_int_t)s.listeners);
	json_put_int(j, "listenersFull", (json_int_t)s.full);
	json_put_int(j, "listenersStalled", (json_int_t)s.stalled);
	json_put_int(j, "queuedRecords", (json_int_t)s.queued);
	json_put_int(j, "queuedBytes", (json_int_t)s.queued_bytes);
	json_put_int(j, "seq", (json_int_t)s.seq);
	json_put_int(j, "keptRecords", (json_int_t)s.kept);
	json_put_int(j, "keptBytes", (json_int_t)s.kept_bytes);
	json_put_int(j, "replayed", (json_int_t)s.replayed);
	json_put_int(j, "gaps", (json_int_t)s.gaps);
	return j;
}

static void put_ours(json_t *j, const struct status_of *of)
{
	struct catalog *catalog = sources_catalog(of->sources);
	const struct hold *holds;

	json_put_str(j, "version", DROVER_VERSION);
	(void)json_object_set_new(j, "feeds", sources_feeds(of->sources));
	json_put_int(j, "mutations", (json_int_t)sources_holds(of->sources, &holds));
	(void)json_object_set_new(j, "files", files(of->sources, catalog));
	(void)json_object_set_new(j, "events", events(of->hub));
	json_put_int(j, "connections", (json_int_t)http_server_connections(of->http));
	(void)json_object_set_new(j, "problems", problems(of->sources, catalog));
}

static json_t *refresh_log(const struct sources *sources)
{
	const struct scan_log *logs;
	size_t n = sources_scans(sources, &logs);
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *row = logs[i].changes
				      ? json_copy(logs[i].changes)
				      : json_pack("{s:[], s:[]}", "cacheChanges", "vmChanges");
		char took[DURATION_LEN];

		put_stamp(row, "started", logs[i].started_us);
		put_stamp(row, "ended", logs[i].ended_us);
		json_put_str(row, "took",
			     duration_text((logs[i].ended_us - logs[i].started_us) * 1000, took,
					   sizeof(took)));
		put_ago(row, "endedAgo", logs[i].ended_us);
		json_put_int(row, "lost", (json_int_t)logs[i].lost);
		json_put_int(row, "slices", (json_int_t)logs[i].slices);
		json_put_int(row, "longestUs", (json_int_t)logs[i].longest_us);
		(void)json_array_append_new(list, row);
	}
	return list;
}

static json_t *watcher(struct catalog *catalog)
{
	json_t *j = json_object();
	json_t *watching = json_array();

	json_put_bool(j, "running", true);
	json_put_int(j, "watcher_pid", getpid());
	for (size_t i = 0; i < catalog_count(catalog); i++) {
		const char *file = catalog_at(catalog, i)->vm->file;

		if (file)
			(void)json_array_append_new(watching, json_string(file));
	}
	(void)json_object_set_new(j, "watching", watching);
	(void)json_object_set_new(j, "not_yet_watching", json_array());
	(void)json_object_set_new(j, "pending_actions", json_object());
	return j;
}

json_t *status_make(const struct status_of *of, bool full)
{
	json_t *j = json_object();
	const struct scan_log *logs;
	size_t n = sources_scans(of->sources, &logs);
	char date[ISO_TIME_LEN];

	json_put_int(j, "pid", getpid());
	put_ago(j, "uptime", of->started_us);
	(void)json_object_set_new(j, "memory", memory());
	json_put_str(j, "state", "running");
	json_put_str(j, "status", "working");
	json_put_int(j, "numVms", (json_int_t)cache_count(of->cache));
	json_put_str(j, "curDate", clock_iso(clock_wall_ms(), date, sizeof(date)));
	put_stamp(j, "curTime", clock_us());
	(void)json_object_set_new(j, "queue", queue(of->sources));
	if (n > 0)
		put_ago(j, "lastRefresh", logs[n - 1].ended_us);
	else
		(void)json_object_set_new(j, "lastRefresh", json_null());
	(void)json_object_set_new(j, "refreshErrors", refresh_errors(of->sources));
	(void)json_object_set_new(j, "eventsListeners", hub_status(of->hub));
	if (full) {
		(void)json_object_set_new(j, "refreshLog", refresh_log(of->sources));
		(void)json_object_set_new(j, "fswatcher", watcher(sources_catalog(of->sources)));
		(void)json_object_set_new(j, "host", sources_host(of->sources));
	}
	put_ours(j, of);
	return j;
}
