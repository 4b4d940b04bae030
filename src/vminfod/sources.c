/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog and the feeds; see sources.h. */
#include "vminfod/sources.h"

#include <stdlib.h>
#include <string.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "daemon/daemon.h"
#include "net/feed.h"
#include "store/catalog.h"
#include "vminfod/cache.h"
#include "vminfod/disks.h"
#include "vminfod/host.h"
#include "vminfod/links.h"
#include "vminfod/lookout.h"

struct feed {
	struct sources *s;
	enum feed_source from;
	const char *daemon;
	const char *path;
	struct feed_client *client;
	bool up;
	bool awaited;         /* it was there at our start */
	int64_t lost_wall_ms; /* 0: never had it */
	sd_event_source *grace;
};

struct sources {
	sd_event *event;
	const struct paths *paths;
	struct cache *cache;
	struct catalog *catalog;
	struct lookout *lookout;
	struct disks *disks; /* the cache's */
	struct host *host;   /* the cache's */
	struct links *links; /* NULL: this kernel does not tell */
	sd_event_source *files, *looked, *scan_timer, *hold_timer;
	struct feed feeds[FEED_SOURCES];
	struct hold *holds;
	size_t nholds;
	struct scan_log scans[SCANS_KEPT];
	size_t nscans;
	uint64_t round_us; /* when this round of the scan began; 0: none */
	size_t round_lost, round_done, round_slices;
	uint64_t round_scans; /* of the catalog's statistics when it began */
	uint64_t slices;
	uint64_t round_longest_us;
	json_t *round_changes;
	bool hurry; /* somebody asked for this round */
	int64_t born_wall_ms;
	struct scan_error errors[ERRORS_KEPT];
	size_t nerrors;
};

/* --- mutations --- */

static int on_hold_late(sd_event_source *source, uint64_t us, void *ctx);

/* Wake for the earliest deadline. */
static void arm_holds(struct sources *s)
{
	uint64_t now = clock_ms(), first = UINT64_MAX;

	for (size_t i = 0; i < s->nholds; i++) {
		if (s->holds[i].deadline_ms < first)
			first = s->holds[i].deadline_ms;
	}
	if (first == UINT64_MAX)
		timer_stop(s->hold_timer);
	else
		(void)timer_set(s->event, &s->hold_timer, first > now ? first - now : 0,
				on_hold_late, s);
}

static struct hold *find_hold(struct sources *s, const char *uuid)
{
	for (size_t i = 0; i < s->nholds; i++) {
		if (str_eq(s->holds[i].uuid, uuid))
			return &s->holds[i];
	}
	return NULL;
}

static void hold(struct sources *s, const char *uuid, const json_t *cause)
{
	struct hold *h = find_hold(s, uuid);

	if (!uuid_valid(uuid))
		return;
	if (!h) {
		s->holds = xrealloc(s->holds, (s->nholds + 1) * sizeof(*s->holds));
		h = &s->holds[s->nholds++];
		memcpy(h->uuid, uuid, sizeof(h->uuid));
	}
	h->deadline_ms = clock_ms() + HOLD_MS;
	catalog_hold(s->catalog, uuid);
	cache_begin(s->cache, uuid, cause);
	arm_holds(s);
}

static void release(struct sources *s, const char *uuid)
{
	struct hold *h = find_hold(s, uuid);
	char copy[UUID_LEN + 1];

	if (!h)
		return;
	memcpy(copy, h->uuid, sizeof(copy));
	*h = s->holds[--s->nholds];
	cache_ending(s->cache, copy);
	catalog_release(s->catalog, copy);
	/* Success is told on this: never by the kernel's word alone that there was an event. */
	if (catalog_verify(s->catalog, copy))
		log_warn("vm=%s changed by vmadmd, and no event told of it", copy);
	cache_end(s->cache, copy);
	arm_holds(s);
}

static int on_hold_late(sd_event_source *source, uint64_t us, void *ctx)
{
	struct sources *s = ctx;
	uint64_t now = clock_ms();

	for (size_t i = 0; i < s->nholds;) {
		char uuid[UUID_LEN + 1];

		if (s->holds[i].deadline_ms > now) {
			i++;
			continue;
		}
		memcpy(uuid, s->holds[i].uuid, sizeof(uuid));
		log_warn("vm=%s change by vmadmd did not end within %u s, its files are shown as "
			 "they are",
			 uuid, HOLD_MS / 1000);
		release(s, uuid);
	}
	arm_holds(s);
	return 0;
}

/* --- feeds --- */

/* A new vmadmd has undone what the old one left half done. */
static void release_all(struct sources *s)
{
	while (s->nholds > 0) {
		char uuid[UUID_LEN + 1];

		memcpy(uuid, s->holds[0].uuid, sizeof(uuid));
		release(s, uuid);
	}
}

static void on_ready(struct feed *f)
{
	timer_stop(f->grace);
	cache_feed_ready(f->s->cache, f->from);
	log_info("feed of %s complete", f->daemon);
}

static void on_line(void *ctx, const char *type, const json_t *line)
{
	struct feed *f = ctx;
	const char *uuid = json_get_str(line, "uuid", "");

	if (str_eq(type, FEED_VM))
		cache_facts(f->s->cache, f->from, uuid, json_object_get(line, "facts"));
	else if (str_eq(type, FEED_GONE))
		cache_facts(f->s->cache, f->from, uuid, NULL);
	else if (str_eq(type, FEED_READY))
		on_ready(f);
	else if (f->from == FEED_OF_VMADMD && str_eq(type, FEED_BEGIN))
		hold(f->s, uuid, json_object_get(line, "cause"));
	else if (f->from == FEED_OF_VMADMD && str_eq(type, FEED_COMMIT))
		release(f->s, uuid);
}

static int on_grace(sd_event_source *source, uint64_t us, void *ctx)
{
	struct feed *f = ctx;

	log_warn("%s is away, what it last said is shown with its age", f->daemon);
	cache_feed_lost(f->s->cache, f->from, f->lost_wall_ms, true);
	return 0;
}

static void on_link(void *ctx, bool up)
{
	struct feed *f = ctx;

	f->up = up;
	if (up) {
		/* Before its snapshot: whatever was withheld for the one before is settled. */
		if (f->from == FEED_OF_VMADMD)
			release_all(f->s);
		cache_feed_up(f->s->cache, f->from);
		return;
	}
	f->lost_wall_ms = clock_wall_ms();
	cache_feed_lost(f->s->cache, f->from, f->lost_wall_ms, false);
	(void)timer_set(f->s->event, &f->grace, GRACE_MS, on_grace, f);
}

static int connect_feed(struct feed *f, struct err *err)
{
	struct feed_client_config config = {.path = f->path,
					    .name = "vminfod",
					    .confirms = true,
					    .line = on_line,
					    .link = on_link,
					    .ctx = f};

	return feed_client_new(f->s->event, &config, &f->client, err);
}

static bool settled(const struct feed *f)
{
	return !feed_client_connected(f->client) || feed_client_ready(f->client);
}

int sources_connect(struct sources *s, uint64_t timeout_ms, struct err *err)
{
	uint64_t deadline = clock_ms() + timeout_ms;
	int r = 0;

	for (size_t i = 0; i < FEED_SOURCES && r == 0; i++)
		r = connect_feed(&s->feeds[i], err);
	while (r == 0 && !(settled(&s->feeds[0]) && settled(&s->feeds[1]))) {
		uint64_t now = clock_ms();

		if (now >= deadline || sd_event_get_state(s->event) == SD_EVENT_FINISHED)
			break;
		if (sd_event_run(s->event, (deadline - now) * 1000) < 0)
			break;
	}
	return r;
}

json_t *sources_feeds(const struct sources *s)
{
	json_t *j = json_object();

	for (size_t i = 0; i < FEED_SOURCES; i++) {
		const struct feed *f = &s->feeds[i];
		json_t *row = json_object();
		char buf[ISO_TIME_LEN];

		json_put_bool(row, "connected", f->up);
		json_put_bool(row, "ready", f->client && feed_client_ready(f->client));
		if (f->lost_wall_ms && !f->up)
			json_put_str(row, "lost", clock_iso(f->lost_wall_ms, buf, sizeof(buf)));
		(void)json_object_set_new(j, f->daemon, row);
	}
	return j;
}

/* --- files --- */

static void keep_error(struct sources *s, const char *text)
{
	if (s->nerrors == ERRORS_KEPT) {
		free(s->errors[0].text);
		memmove(&s->errors[0], &s->errors[1], --s->nerrors * sizeof(s->errors[0]));
	}
	s->errors[s->nerrors++] = (struct scan_error){xstrdup(text), clock_us()};
}

static void on_problem(void *ctx, const char *file, const char *text)
{
	struct sources *s = ctx;

	if (text && str_eq(file, s->paths->etc))
		keep_error(s, text);
	if (text)
		log_warn("file=%s problem=\"%s\"", file, text);
	else
		log_info("file=%s problem solved", file);
}

static void on_changed(void *ctx, struct catalog_entry *e, enum catalog_change what)
{
	cache_on_catalog(((struct sources *)ctx)->cache, e, what);
}

static int on_files(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct sources *s = ctx;

	catalog_sync(s->catalog);
	if (catalog_doubtful(s->catalog) && !s->hurry)
		sources_scan(s);
	return 0;
}

static int on_lookout(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	lookout_sync(((struct sources *)ctx)->lookout);
	return 0;
}

/* --- the scan --- */

static void end_round(struct sources *s)
{
	struct scan_log *log;

	if (s->nscans == SCANS_KEPT) {
		json_decref(s->scans[0].changes);
		memmove(&s->scans[0], &s->scans[1], --s->nscans * sizeof(s->scans[0]));
	}
	log = &s->scans[s->nscans++];
	*log = (struct scan_log){.started_us = s->round_us,
				 .ended_us = clock_us(),
				 .lost = s->round_lost,
				 .slices = s->round_slices,
				 .longest_us = s->round_longest_us,
				 .changes = steal_ptr(s->round_changes)};
	s->round_us = 0;
	s->round_lost = s->round_done = s->round_slices = 0;
	s->round_longest_us = 0;
	s->hurry = false;
}

/* What one slice found, beside what the round found before; bounded, as it is only for people. */
static void keep_changes(struct sources *s, json_t *found)
{
	const char *name;
	json_t *list;

	if (!s->round_changes) {
		s->round_changes = found;
		return;
	}
	json_object_foreach (found, name, list) {
		json_t *all = json_object_get(s->round_changes, name);

		if (json_array_size(all) < CHANGES_KEPT)
			(void)json_array_extend(all, list);
	}
	json_decref(found);
}

static size_t scan_total(const struct sources *s)
{
	size_t files = catalog_count(s->catalog), images = disks_count(s->disks);

	return files > images ? files : images;
}

/* What was found between the two is the scan's. */
static void keep_found(struct sources *s, size_t lost, uint64_t took)
{
	keep_changes(s, cache_scan_end(s->cache));
	if (lost)
		log_warn("scan found %zu changes that no event told of", lost);
	if (took > s->round_longest_us)
		s->round_longest_us = took;
	s->round_lost += lost;
	s->round_slices++;
	s->slices++;
}

/* Has this round seen everything? */
static bool round_complete(const struct sources *s)
{
	return catalog_stats(s->catalog)->scans != s->round_scans &&
	       s->round_done >= disks_count(s->disks);
}

/* Compare for SLICE_US, as readers wait meanwhile; returns how far it came. */
static size_t scan_slice(struct sources *s)
{
	uint64_t start = clock_us(), took;
	size_t lost = 0, done = 0;

	if (!s->round_us) {
		s->round_us = start;
		s->round_scans = catalog_stats(s->catalog)->scans;
		catalog_scan_anew(s->catalog);
	}
	cache_scan_begin(s->cache);
	do {
		if (catalog_stats(s->catalog)->scans == s->round_scans)
			lost += catalog_scan(s->catalog, SLICE_STEP);
		lost += disks_scan(s->disks, SLICE_STEP);
		done += SLICE_STEP;
		s->round_done += SLICE_STEP;
		took = clock_us() - start;
	} while (took < SLICE_US && !round_complete(s));
	keep_found(s, lost, took);
	if (round_complete(s))
		end_round(s);
	return done;
}

static int on_scan(sd_event_source *source, uint64_t us, void *ctx)
{
	struct sources *s = ctx;
	size_t done = scan_slice(s), total = scan_total(s);
	uint64_t delay = ROUND_MS * done / (total > done ? total : done);

	(void)timer_set(s->event, &s->scan_timer, s->hurry ? 1 : delay, on_scan, s);
	return 0;
}

void sources_scan(struct sources *s)
{
	s->round_us = 0;
	s->round_done = 0;
	s->hurry = true;
	(void)timer_set(s->event, &s->scan_timer, 0, on_scan, s);
}

size_t sources_scans(const struct sources *s, const struct scan_log **ret)
{
	*ret = s->scans;
	return s->nscans;
}

size_t sources_errors(const struct sources *s, const struct scan_error **ret)
{
	*ret = s->errors;
	return s->nerrors;
}

size_t sources_holds(const struct sources *s, const struct hold **ret)
{
	*ret = s->holds;
	return s->nholds;
}

const char *sources_host_problem(const struct sources *s)
{
	return s->host ? host_problem(s->host) : NULL;
}

json_t *sources_host(const struct sources *s)
{
	json_t *j = json_copy((json_t *)(uintptr_t)host_facts(s->host));
	int64_t lost = s->links ? links_lost(s->links) : s->born_wall_ms;
	char buf[ISO_TIME_LEN];

	(void)json_object_set_new(j, "links", s->links ? links_json(s->links) : json_array());
	if (lost)
		(void)json_object_set_new(
			j, "unknown",
			json_pack("{s:s}", "links", clock_iso(lost, buf, sizeof(buf))));
	return j;
}

void sources_sync(struct sources *s)
{
	catalog_sync(s->catalog);
	if (catalog_doubtful(s->catalog) && !s->hurry)
		sources_scan(s);
	lookout_sync(s->lookout);
	for (size_t i = 0; i < FEED_SOURCES; i++) {
		if (s->feeds[i].client)
			feed_client_drain(s->feeds[i].client);
	}
}

/* Lost events: what this answer is made of must be known again, the rest can wait. */
void sources_settle(struct sources *s, const char *uuid)
{
	uint64_t start;
	size_t lost;

	if (!catalog_doubtful(s->catalog))
		return;
	start = clock_us();
	cache_scan_begin(s->cache);
	if (uuid && catalog_by_uuid(s->catalog, uuid))
		lost = catalog_verify(s->catalog, uuid);
	else
		lost = catalog_repair(s->catalog, true);
	keep_found(s, lost, clock_us() - start);
}

uint64_t sources_slices(const struct sources *s)
{
	return s->slices;
}

struct catalog *sources_catalog(struct sources *s)
{
	return s->catalog;
}

static int load(struct sources *s, struct err *err)
{
	struct catalog_config config = {.paths = s->paths,
					.metadata = true,
					.sliced = true,
					.changed = on_changed,
					.problem = on_problem,
					.ctx = s};
	struct err links_err = {0};
	int r = catalog_new(&config, &s->catalog, err);

	s->round_us = clock_us();
	if (r == 0)
		r = lookout_new(&s->lookout, err);
	if (r < 0)
		return r;
	s->disks = disks_new(s->lookout, cache_on_disk, s->cache);
	s->host = host_new(s->paths, s->lookout, catalog_host_uuid(s->catalog), cache_on_host,
			   s->cache);
	cache_use(s->cache, s->disks, s->host);
	s->born_wall_ms = clock_wall_ms();
	if (links_new(s->event, &s->links, &links_err) < 0)
		log_warn("%s", links_err.msg);
	r = catalog_load(s->catalog, err);
	if (r < 0)
		return r;
	end_round(s);
	r = sd_event_add_io(s->event, &s->files, catalog_fd(s->catalog), EPOLLIN, on_files, s);
	if (r >= 0)
		r = sd_event_add_io(s->event, &s->looked, lookout_fd(s->lookout), EPOLLIN,
				    on_lookout, s);
	if (r >= 0)
		r = timer_set(s->event, &s->scan_timer, ROUND_MS, on_scan, s);
	return r < 0 ? err_sys(err, -r, "cannot watch the definitions") : 0;
}

int sources_new(sd_event *event, const struct paths *paths, struct cache *cache,
		struct sources **ret, struct err *err)
{
	struct sources *s = xcalloc(1, sizeof(*s));
	int r;

	s->event = sd_event_ref(event);
	s->paths = paths;
	s->cache = cache;
	s->feeds[FEED_OF_VMSTATED] = (struct feed){.s = s,
						   .from = FEED_OF_VMSTATED,
						   .daemon = "vmstated",
						   .path = paths->vmstated_feed};
	s->feeds[FEED_OF_VMADMD] = (struct feed){
		.s = s, .from = FEED_OF_VMADMD, .daemon = "vmadmd", .path = paths->vmadmd_feed};
	r = load(s, err);
	if (r < 0) {
		sources_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void sources_free(struct sources *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < FEED_SOURCES; i++) {
		feed_client_free(s->feeds[i].client);
		(void)sd_event_source_disable_unref(s->feeds[i].grace);
	}
	(void)sd_event_source_disable_unref(s->files);
	(void)sd_event_source_disable_unref(s->looked);
	cache_drop_sources(s->cache);
	lookout_free(s->lookout);
	links_free(s->links);
	(void)sd_event_source_disable_unref(s->scan_timer);
	(void)sd_event_source_disable_unref(s->hold_timer);
	catalog_free(s->catalog);
	for (size_t i = 0; i < s->nscans; i++)
		json_decref(s->scans[i].changes);
	for (size_t i = 0; i < s->nerrors; i++)
		free(s->errors[i].text);
	json_decref(s->round_changes);
	(void)sd_event_unref(s->event);
	free(s->holds);
	free(s);
}
