/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmstated: supervises guests. Start: options, lock, definitions, adoption of what runs, then the
 * sockets, then ready. End: the guests run on, a new vmstated takes them up.
 * Source: vmstated(8), design 1-6.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/status.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "net/feed.h"
#include "net/http.h"
#include "store/catalog.h"
#include "vmstated/cgroup.h"
#include "vmstated/check.h"
#include "vmstated/neigh.h"
#include "vmstated/net.h"
#include "vmstated/order.h"
#include "vmstated/parts.h"
#include "vmstated/routes.h"
#include "vmstated/supervisor.h"
#include "vmstated/worker.h"

#define SCAN_MS    60000u /* a slice of the safety net */
#define SCAN_FILES 200u

struct settings {
	char *etc, *pidfile, *socket, *guest_uids, *cgroup;
	bool autostart, check;
	bool has_reader; /* of our feed, beside root and us */
	uid_t reader;
	char **argv;
};

static int set_etc(void *ctx, const char *value, struct err *err)
{
	replace_str(&((struct settings *)ctx)->etc, xstrdup(value));
	return 0;
}

static int set_pidfile(void *ctx, const char *value, struct err *err)
{
	replace_str(&((struct settings *)ctx)->pidfile, xstrdup(value));
	return 0;
}

static int set_socket(void *ctx, const char *value, struct err *err)
{
	replace_str(&((struct settings *)ctx)->socket, xstrdup(value));
	return 0;
}

static int set_guest_uids(void *ctx, const char *value, struct err *err)
{
	replace_str(&((struct settings *)ctx)->guest_uids, xstrdup(value));
	return 0;
}

static int set_feed_user(void *ctx, const char *value, struct err *err)
{
	struct settings *s = ctx;

	s->has_reader = true;
	return feed_find_reader(value, &s->reader, err);
}

static int set_cgroup(void *ctx, const char *value, struct err *err)
{
	if (value[0] != '/')
		return err_set(err, EINVAL, "cgroup: '%s' is not an absolute path", value);
	replace_str(&((struct settings *)ctx)->cgroup, xstrdup(value));
	return 0;
}

static int set_autostart(void *ctx, const char *value, struct err *err)
{
	((struct settings *)ctx)->autostart = true;
	return 0;
}

static int set_check(void *ctx, const char *value, struct err *err)
{
	((struct settings *)ctx)->check = true;
	return 0;
}

static const struct daemon_flag flags[] = {
	{'c', "config", "DIR", set_etc, "configuration directory, instead of ROOT/etc/vmstated"},
	{'p', "pidfile", "FILE", set_pidfile,
	 "lock and pid file, instead of ROOT/run/vmstated.pid"},
	{'s', "socket", "PATH", set_socket, "control socket, instead of ROOT/run/vmstated.sock"},
	{0, "guest-uids", "FIRST-LAST", set_guest_uids, "users for QEMU, one per VM (root only)"},
	{0, "feed-user", "NAME", set_feed_user, "user vminfod runs as, who may read our feed"},
	{0, "cgroup", "DIR", set_cgroup,
	 "folder of a cgroup v2 hierarchy for guests, instead of drover.slice"},
	{0, "check", NULL, set_check, "print all problems of all definitions, start nothing"},
	{0, "autostart", NULL, set_autostart, "start VMs with autostart, where vmadmd is not used"},
};

static int on_files(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	catalog_sync(((struct supervisor *)userdata)->catalog);
	return 0;
}

static int on_scan(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct supervisor *sup = userdata;
	size_t lost = catalog_scan(sup->catalog, SCAN_FILES);

	supervisor_trim_records(sup);
	cgroup_sweep(sup);
	if (lost)
		log_warn("scan found %zu changes no event told of", lost);
	(void)timer_set(sup->event, &sup->scan_timer, SCAN_MS, on_scan, sup);
	return 0;
}

static void on_reload(void *ctx)
{
	struct supervisor *sup = ctx;

	log_info("reload asked for by signal");
	(void)catalog_scan(sup->catalog, SIZE_MAX);
	net_renew(sup);
	neigh_probe(sup);
}

static int make_dirs(const struct paths *p, struct err *err)
{
	const struct {
		const char *path;
		mode_t mode;
	} dirs[] = {{p->etc, 0755}, {p->lib, 0755}, {p->run, 0755}, {p->log, 0755}};

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		int r = dir_make(dirs[i].path, dirs[i].mode, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int load(struct supervisor *sup, struct err *err)
{
	struct catalog_config config = {.paths = &sup->paths,
					.changed = supervisor_on_change,
					.problem = supervisor_on_problem,
					.ctx = sup};
	int r = catalog_new(&config, &sup->catalog, err);

	if (r == 0)
		r = catalog_load(sup->catalog, err);
	if (r == 0)
		r = sd_event_add_io(sup->event, &sup->catalog_source, catalog_fd(sup->catalog),
				    EPOLLIN, on_files, sup);
	return r < 0 ? r : 0;
}

static int serve(struct supervisor *sup, const struct settings *s, struct err *err)
{
	struct feed_server_config feed = {.path = sup->paths.vmstated_feed,
					  .daemon = "vmstated",
					  .snapshot = supervisor_snapshot,
					  .ctx = sup,
					  .has_reader = s->has_reader,
					  .reader = s->reader};
	int r = load(sup, err);

	if (r == 0)
		r = accel_start(sup, err);
	if (r == 0)
		r = feed_server_new(sup->event, &feed, &sup->feed, err);
	if (r < 0)
		return r;
	net_audit(sup);
	supervisor_adopt(sup);
	neigh_start(sup);
	sup->serving = true;
	r = routes_start(sup, err);
	if (r < 0)
		return r;
	(void)timer_set(sup->event, &sup->scan_timer, SCAN_MS, on_scan, sup);
	if (sup->autostart)
		order_autostart(sup);
	log_info("serving vms=%zu root=%s", catalog_count(sup->catalog), sup->paths.root);
	daemon_ready();
	r = sd_event_loop(sup->event);
	return r < 0 ? err_sys(err, -r, "the event loop failed") : 0;
}

static void finish(struct supervisor *sup)
{
	sup->closing = true;
	http_server_free(sup->http);
	sup->http = NULL;
	shutdown_free(sup);
	order_free(sup);
	supervisor_free_guests(sup);
	feed_server_free(sup->feed);
	accel_free(sup);
	sync_free(sup);
	net_audit_free(sup);
	neigh_stop(sup);
	sd_event_source_disable_unref(sup->connect_timer);
	sd_event_source_disable_unref(sup->pulse_timer);
	sd_event_source_disable_unref(sup->hold_timer);
	sd_event_source_disable_unref(sup->owed_timer);
	sd_event_source_disable_unref(sup->upgrade_timer);
	sd_event_source_disable_unref(sup->scan_timer);
	sd_event_source_disable_unref(sup->catalog_source);
	catalog_free(sup->catalog);
	sd_event_unref(sup->event);
}

/* Our own lock, when we executed ourselves anew; else taken now. */
static int take_lock(struct supervisor *sup, const char *program, struct err *err)
{
	sup->lock_fd = upgrade_inherited(UPGRADE_LOCK_FD);
	if (sup->lock_fd >= 0)
		return 0;
	return daemon_lock(program, sup->paths.pidfile, &sup->lock_fd, err);
}

static int run(struct daemon_options *o, const struct settings *s, struct err *err)
{
	struct supervisor sup = {
		.paths = o->paths, .autostart = s->autostart, .started_ms = clock_ms()};
	int r = make_dirs(&sup.paths, err);

	sup.lock_fd = -1;
	if (r == 0 && s->guest_uids)
		r = owner_set_range(&sup, s->guest_uids, err);
	cgroup_set_base(&sup, s->cgroup);
	upgrade_prepare(&sup, s->argv);
	if (r == 0)
		r = take_lock(&sup, o->program, err);
	if (r == 0)
		r = clock_boot_id(sup.boot_id, sizeof(sup.boot_id));
	if (r == 0)
		r = daemon_loop(&sup.event, on_reload, &sup, err);
	daemon_ahead();
	if (r == 0)
		r = serve(&sup, s, err);
	finish(&sup);
	if (sup.lock_fd >= 0) {
		(void)unlink(sup.paths.pidfile);
		(void)close(sup.lock_fd);
	}
	free(sup.program);
	free(sup.cgroup);
	return r;
}

static void override(char **path, char **with)
{
	if (*with)
		replace_str(path, steal_ptr(*with));
}

int main(int argc, char **argv)
{
	struct daemon_options o = {.program = "vmstated"};
	struct settings s = {.argv = argv};
	struct err err = {0};
	int r;

	if (argc == 2 && str_eq(argv[1], "--probe-accelerator"))
		return accel_probe_main();
	if (argc == 3 && str_eq(argv[1], WORKER_ARG))
		return worker_main((int)strtol(argv[2], NULL, 10));
	if (argc == 2 && str_eq(argv[1], "--routes"))
		return routes_print();
	r = daemon_options(&o, argc, argv, flags, ARRAY_SIZE(flags), &s);
	if (r <= 0) {
		daemon_options_done(&o);
		return r == 0 ? EXIT_OK : EXIT_USAGE;
	}
	override(&o.paths.etc, &s.etc);
	override(&o.paths.pidfile, &s.pidfile);
	override(&o.paths.vmstated, &s.socket);
	if (s.check) {
		r = check_run(&o.paths, &err);
		if (r < 0)
			(void)fprintf(stderr, "vmstated: %s\n", err_text(&err, r));
		daemon_options_done(&o);
		return r == 0 ? EXIT_OK : EXIT_FAILED;
	}
	r = 0;
	if (!getenv(UPGRADE_LOCK_FD)) /* else we are detached already, and ourselves anew */
		r = daemon_detach(&o, &err);
	if (r == 0)
		r = run(&o, &s, &err);
	if (r < 0)
		(void)fprintf(stderr, "vmstated: %s\n", err_text(&err, r));
	free(s.guest_uids);
	free(s.cgroup);
	daemon_options_done(&o);
	return r < 0 ? EXIT_FAILED : EXIT_OK;
}
