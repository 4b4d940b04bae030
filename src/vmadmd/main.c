/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadmd: acts on VMs. Order of the start: options, lock, definitions, tidying up after a change
 * cut short, our feed, vmstated's feed, HTTP, ready; autoboot follows when vmstated's states are
 * known. It serves at once with its peers absent, and may be killed at any moment.
 */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/status.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "daemon/daemon.h"
#include "net/feed.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/disks/images.h"
#include "vmadmd/disks/zfs.h"
#include "vmadmd/guest.h"
#include "vmadmd/guest/leases.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"
#include "vmadmd/migrate/peer_tls.h"
#include "vmadmd/stats.h"
#include "vmadmd/vmadmd.h"
#include "vmadmd/worker.h"

#define PROGRAM     "vmadmd"
#define STATES_MS   500u /* at the start, for the facts of a vmstated that is there */
#define SCAN_MS     10000u
#define SCAN_FILES  64
#define RUN_MODE    0755
#define SOCKET_MODE 0666 /* who may do what is judged per request */

/* --- call-backs of the libraries; ctx is the daemon --- */

static void on_changed(void *ctx, struct catalog_entry *e, enum catalog_change what)
{
	struct vmadmd *d = ctx;
	struct guest *g = guest_find(d, e->uuid);

	if (g && what == CATALOG_CHANGED) {
		vnc_apply(g);
		if (leases_update(g))
			(void)guest_publish(g);
	}
	if (what == CATALOG_NEW)
		zfs_new_vm(d->zfs);
}

static void on_problem(void *ctx, const char *file, const char *text)
{
	if (text)
		log_debug("definition refused file='%s': %s", file, text);
}

static int on_files(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	catalog_sync(((struct vmadmd *)ctx)->catalog);
	return 0;
}

static int on_scan(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct vmadmd *d = ctx;
	size_t lost = catalog_scan(d->catalog, SCAN_FILES);

	(void)malloc_trim(0); /* what a burst of requests left free */
	if (lost > 0)
		log_warn("scan found %zu changes no event told of", lost);
	(void)timer_set(d->event, &d->scan, SCAN_MS, on_scan, d);
	return 0;
}

static void reload(void *ctx)
{
	struct vmadmd *d = ctx;

	log_info("definitions read again, differences=%zu",
		 catalog_scan(d->catalog, CATALOG_VMS_MAX));
	if (d->zfs)
		zfs_poll(d->zfs);
}

/* Before each request: what vmstated and editors have done by now is taken in. */
static void before_request(void *ctx)
{
	struct vmadmd *d = ctx;

	feed_client_drain(d->states);
	catalog_sync(d->catalog);
}

static void snapshot_one(struct guest *g, void *ctx)
{
	AUTO_JSON json_t *facts = guest_own_facts(g);

	if (json_object_size(facts) > 0)
		feed_snapshot_vm(ctx, g->uuid, facts);
}

static void snapshot(struct feed_server *s, void *ctx)
{
	guests_each(ctx, snapshot_one, s);
}

/* --- the start --- */

static int set_no_fsync(void *ctx, const char *value, struct err *err)
{
	((struct vmadmd *)ctx)->sync = FILE_NO_SYNC;
	return 0;
}

static int add_socket(void *ctx, const char *value, struct err *err)
{
	struct vmadmd *d = ctx;

	if (!*value)
		return err_set(err, EINVAL, "socket: is empty (want a path)");
	if (d->nsockets == SOCKETS_MAX)
		return err_set(err, E2BIG, "socket: is given too often (want at most %d)",
			       SOCKETS_MAX);
	d->sockets[d->nsockets++] = value;
	return 0;
}

static int set_feed_user(void *ctx, const char *value, struct err *err)
{
	struct vmadmd *d = ctx;

	d->has_reader = true;
	return feed_find_reader(value, &d->reader, err);
}

static int add_lease_file(void *ctx, const char *value, struct err *err)
{
	return leases_add_file(ctx, value, err);
}

static int set_tls(void *ctx, const char *value, struct err *err)
{
	return peer_server_new(ctx, value, &((struct vmadmd *)ctx)->peers, err);
}

static const struct daemon_flag flags[] = {
	{'s', "socket", "PATH", add_socket,
	 "control socket, instead of ROOT/run/vmadmd.http; may be given several times"},
	{0, "feed-user", "NAME", set_feed_user, "user vminfod runs as, who may read our feed"},
	{0, "lease-file", "PATH", add_lease_file,
	 "leases of a DHCP server on this host, instead of ROOT/" LEASE_FILE
	 "; may be given several times"},
	{0, "tls", "ADDRESS:PORT", set_tls,
	 "take VMs that migrate here over TLS (certificates: ROOT/etc/vmadmd/tls)"},
	{0, "no-fsync", NULL, set_no_fsync,
	 "do not wait for the disk on changes of definitions (benchmarks only)"},
};

static int open_definitions(struct vmadmd *d, struct err *err)
{
	const struct catalog_config config = {.paths = d->paths,
					      .metadata = true,
					      .changed = on_changed,
					      .problem = on_problem,
					      .ctx = d};
	int r = catalog_new(&config, &d->catalog, err);

	if (r < 0)
		return r;
	r = workers_await(d, err);
	if (r == 0)
		r = store_recover(d->paths, err);
	if (r == 0)
		r = catalog_load(d->catalog, err);
	if (r < 0)
		return r;
	marks_clean(d);
	images_clean(d->paths->lib);
	r = sd_event_add_io(d->event, &d->files, catalog_fd(d->catalog), EPOLLIN, on_files, d);
	if (r < 0)
		return err_sys(err, -r, "cannot watch the definitions");
	return timer_set(d->event, &d->scan, SCAN_MS, on_scan, d);
}

static int open_feeds(struct vmadmd *d, struct err *err)
{
	const struct feed_server_config server = {.path = d->paths->vmadmd_feed,
						  .daemon = PROGRAM,
						  .snapshot = snapshot,
						  .ctx = d,
						  .has_reader = d->has_reader,
						  .reader = d->reader};
	const struct feed_client_config client = {.path = d->paths->vmstated_feed,
						  .name = PROGRAM,
						  .line = guests_feed_line,
						  .link = guests_feed_link,
						  .ctx = d};
	int r = feed_server_new(d->event, &server, &d->feed, err);

	d->started_ms = clock_ms();
	if (r == 0)
		r = feed_client_new(d->event, &client, &d->states, err);
	return r;
}

static int open_http(struct vmadmd *d, struct err *err)
{
	const struct http_config config = {.routes = vmadmd_routes,
					   .nroutes = vmadmd_nroutes,
					   .ctx = d,
					   .before = before_request};
	int r = http_server_new(d->event, &config, &d->http, err);

	if (d->nsockets == 0)
		d->sockets[d->nsockets++] = d->paths->vmadmd;
	for (size_t i = 0; r == 0 && i < d->nsockets; i++) {
		bool own;
		int fd = -1;

		r = daemon_listen(d->sockets[i], SOCKET_MODE, &fd, &own, err);
		if (r == 0)
			r = http_server_listen(d->http, fd, false, err);
	}
	return r;
}

static void close_all(struct vmadmd *d)
{
	peer_server_free(d->peers);
	http_server_free(d->http);
	workers_finish(d);
	images_free(d);
	change_free_all(d);
	autoboot_free(d);
	ask_free_all(d);
	feed_client_free(d->states);
	guests_free(d);
	stats_free(d);
	jobs_free(d);
	leases_free(d);
	zfs_free(d->zfs);
	feed_server_free(d->feed);
	sd_event_source_disable_unref(d->files);
	sd_event_source_disable_unref(d->scan);
	catalog_free(d->catalog);
	sd_event_unref(d->event);
}

/* With vmstated there, take its facts in before we say that we serve: who asks at once would else
 * be told that all states are unknown. */
static void await_states(struct vmadmd *d)
{
	uint64_t until = clock_ms() + STATES_MS;

	while (feed_client_connected(d->states) && !feed_client_ready(d->states)) {
		uint64_t now = clock_ms();

		if (now >= until || sd_event_run(d->event, (until - now) * 1000) < 0)
			return;
	}
}

static int serve(struct vmadmd *d, struct err *err)
{
	int r = daemon_loop(&d->event, reload, d, err);

	if (r == 0)
		r = open_definitions(d, err);
	if (r == 0)
		r = open_feeds(d, err);
	if (r == 0) {
		jobs_load(d);
		live_start(d);
		leases_start(d);
		r = open_http(d, err);
	}
	if (r == 0 && d->peers)
		r = peer_server_open(d->peers, err);
	if (r < 0)
		return r;
	d->zfs = zfs_new(d);
	autoboot_begin(d);
	await_states(d);
	daemon_ready();
	for (size_t i = 0; i < d->nsockets; i++)
		log_info(PROGRAM " serves on %s vms=%zu", d->sockets[i], catalog_count(d->catalog));
	r = sd_event_loop(d->event);
	return r < 0 ? err_sys(err, -r, "the event loop ended") : 0;
}

static int run(struct vmadmd *d, const struct daemon_options *options, struct err *err)
{
	AUTO_FREE char *run_dir = xstrdup(options->paths.vmadmd);
	AUTO_FREE char *lock_path = NULL;
	AUTO_FD int lock = -1;
	int r = daemon_detach(options, err);

	*strrchr(run_dir, '/') = '\0';
	lock_path = path_join(run_dir, PROGRAM ".pid");
	if (r == 0)
		r = dir_make(run_dir, RUN_MODE, err);
	if (r == 0)
		r = daemon_lock(PROGRAM, lock_path, &lock, err);
	if (r < 0)
		return r;
	r = serve(d, err);
	close_all(d);
	return r;
}

int main(int argc, char **argv)
{
	struct daemon_options options = {.program = PROGRAM};
	struct vmadmd d = {.sync = FILE_SYNC, .uid = geteuid()};
	struct err err = {0};
	int r;

	if (argc == 2 && strcmp(argv[1], "--routes") == 0) {
		http_routes_print(stdout, vmadmd_routes, vmadmd_nroutes);
		return EXIT_OK;
	}
	r = daemon_options(&options, argc, argv, flags, ARRAY_SIZE(flags), &d);

	if (r <= 0) {
		leases_free(&d);
		daemon_options_done(&options);
		return r < 0 ? EXIT_USAGE : EXIT_OK;
	}
	log_setup(PROGRAM, options.format, options.level);
	d.paths = &options.paths;
	r = run(&d, &options, &err);
	if (r < 0)
		(void)fprintf(stderr, PROGRAM ": %s\n", err_text(&err, r));
	leases_free(&d); /* those of options, when nothing was started */
	daemon_options_done(&options);
	return r < 0 ? EXIT_FAILED : EXIT_OK;
}
