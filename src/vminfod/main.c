/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vminfod: knows the VMs of the host and tells of every change. Start: options, lock,
 * definitions, what the other daemons say, then the sockets, then ready. It owns no file but its
 * sockets, the lock and the address; killed at any moment it starts anew from nothing.
 * Source: smartos facts 1-3, design 2 and 8.
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
#include "base/sock.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "net/http.h"
#include "vminfod/cache.h"
#include "vminfod/confine.h"
#include "vminfod/events.h"
#include "vminfod/routes.h"
#include "vminfod/sources.h"

#define TCP_ADDRESS "127.0.0.1"
#define TCP_PORT    9090u
#define CONNECT_MS  500u /* for the snapshots of daemons that are there */

struct settings {
	char *etc, *socket;
	long port; /* -1: the default */
	struct confine_user user;
};

static int set_user(void *ctx, const char *value, struct err *err)
{
	struct settings *s = ctx;

	replace_str(&s->user.name, NULL);
	return confine_find_user(value, &s->user, err);
}

static int set_etc(void *ctx, const char *value, struct err *err)
{
	replace_str(&((struct settings *)ctx)->etc, xstrdup(value));
	return 0;
}

static int set_socket(void *ctx, const char *value, struct err *err)
{
	replace_str(&((struct settings *)ctx)->socket, xstrdup(value));
	return 0;
}

static int set_port(void *ctx, const char *value, struct err *err)
{
	char *end;
	long port = strtol(value, &end, 10);

	if (*end || end == value || port < 0 || port > 65535)
		return err_set(err, EINVAL, "'%s' is not a port (want 0 to 65535, 0: any free one)",
			       value);
	((struct settings *)ctx)->port = port;
	return 0;
}

static const struct daemon_flag flags[] = {
	{'c', "config", "DIR", set_etc, "configuration directory, instead of ROOT/etc/vmstated"},
	{'s', "socket", "PATH", set_socket, "unix socket, instead of ROOT/run/vminfod.http"},
	{'p', "port", "PORT", set_port,
	 "TCP port at 127.0.0.1, instead of 9090 (with a root other than /: any free one)"},
	{'u', "user", "NAME", set_user, "run as this user, keeping of root's powers only reading"},
};

struct info {
	struct daemon_options *options;
	const struct settings *settings;
	const char *folder; /* of the sockets */
	sd_event *event;
	char *lock_path, *addr_path;
	bool has_socket, has_addr;
	struct status_of of;
};

static void on_reload(void *ctx)
{
	struct info *info = ctx;

	log_info("comparing all files with the disk");
	if (info->of.sources)
		sources_scan(info->of.sources);
}

/* The cache is made before the hub: nothing is told while it loads. */
static void on_event(void *ctx, const struct cache_event *ev)
{
	struct info *info = ctx;

	if (info->of.hub)
		hub_event(info->of.hub, ev);
}

static bool listening(void *ctx)
{
	struct info *info = ctx;

	return info->of.hub && hub_listening(info->of.hub);
}

static int listen_unix(struct info *info, struct err *err)
{
	int fd;
	int r = daemon_listen(info->options->paths.vminfod, 0666, &fd, &info->has_socket, err);

	if (r < 0)
		return r;
	return http_server_listen(info->of.http, fd, false, err);
}

static int listen_tcp(struct info *info, struct err *err)
{
	bool host = str_eq(info->options->paths.root, "/");
	long wanted = info->settings->port;
	uint16_t port = wanted >= 0 ? (uint16_t)wanted : (uint16_t)(host ? TCP_PORT : 0);
	AUTO_FREE char *line = NULL;
	int fd;
	int r = daemon_listen_tcp(TCP_ADDRESS, port, &fd, &port, err);

	if (r < 0)
		return r;
	r = http_server_listen(info->of.http, fd, true, err);
	if (r < 0)
		return r;
	line = xasprintf(TCP_ADDRESS ":%u\n", port);
	r = file_write(info->addr_path, line, strlen(line), 0644, FILE_NO_SYNC, err);
	info->has_addr = r == 0;
	log_info("listening on " TCP_ADDRESS ":%u and %s", port, info->options->paths.vminfod);
	return r;
}

static int listen_all(struct info *info, struct err *err)
{
	struct http_config config = {.routes = vminfod_routes,
				     .nroutes = VMINFOD_ROUTES,
				     .ctx = &info->of,
				     .before = routes_before,
				     .fallback = routes_fallback};
	int r = http_server_new(info->event, &config, &info->of.http, err);

	if (r == 0)
		r = listen_unix(info, err);
	return r < 0 ? r : listen_tcp(info, err);
}

static int serve(struct info *info, struct err *err)
{
	struct cache_config config = {.paths = &info->options->paths,
				      .event = on_event,
				      .listening = listening,
				      .ctx = info};
	int r;

	info->of.cache = cache_new(&config);
	r = sources_new(info->event, config.paths, info->of.cache, &info->of.sources, err);
	if (r == 0)
		r = sources_connect(info->of.sources, CONNECT_MS, err);
	if (r < 0)
		return r;
	cache_start(info->of.cache);
	info->of.event = info->event;
	info->of.vmadmd = info->options->paths.vmadmd;
	info->of.hub = hub_new(info->event, info->of.cache);
	r = listen_all(info, err);
	if (r < 0)
		return r;
	r = confine(&info->settings->user, info->folder, err);
	if (r < 0)
		return r;
	log_info("serving vms=%zu root=%s", cache_count(info->of.cache), config.paths->root);
	daemon_ready();
	r = sd_event_loop(info->event);
	/* -ESTALE: asked to end before the loop began. */
	return r < 0 && r != -ESTALE ? err_sys(err, -r, "the event loop failed") : 0;
}

static void finish(struct info *info)
{
	http_server_free(info->of.http);
	sources_free(info->of.sources);
	hub_free(info->of.hub);
	cache_free(info->of.cache);
	sd_event_unref(info->event);
	if (info->has_socket)
		(void)unlink(info->options->paths.vminfod);
	if (info->has_addr)
		(void)unlink(info->addr_path);
}

/* <root>/run, the folder of all sockets. */
static char *run_folder(const struct paths *p)
{
	return xstrndup(p->run, strlen(p->run) - strlen("/vmstated"));
}

static int run(struct daemon_options *o, const struct settings *s, struct err *err)
{
	AUTO_FREE char *folder = run_folder(&o->paths);
	struct info info = {.options = o,
			    .settings = s,
			    .folder = folder,
			    .lock_path = path_join(folder, "vminfod.pid"),
			    .addr_path = o->paths.vminfod_addr,
			    .of = {.started_us = clock_us()}};
	AUTO_FD int lock = -1;
	int r = dir_make(folder, 0755, err);

	if (r == 0)
		r = daemon_lock(o->program, info.lock_path, &lock, err);
	if (r == 0)
		r = daemon_loop(&info.event, on_reload, &info, err);
	if (r == 0)
		r = serve(&info, err);
	finish(&info);
	if (lock >= 0)
		(void)unlink(info.lock_path);
	free(info.lock_path);
	return r;
}

static void override(char **path, char **with)
{
	if (*with)
		replace_str(path, steal_ptr(*with));
}

int main(int argc, char **argv)
{
	struct daemon_options o = {.program = "vminfod"};
	struct settings s = {.port = -1};
	struct err err = {0};
	int r;

	if (argc == 2 && str_eq(argv[1], "--routes")) {
		http_routes_print(stdout, vminfod_routes, VMINFOD_ROUTES);
		return EXIT_OK;
	}
	r = daemon_options(&o, argc, argv, flags, ARRAY_SIZE(flags), &s);

	if (r <= 0) {
		daemon_options_done(&o);
		free(s.user.name);
		return r == 0 ? EXIT_OK : EXIT_USAGE;
	}
	override(&o.paths.etc, &s.etc);
	override(&o.paths.vminfod, &s.socket);
	r = daemon_detach(&o, &err);
	if (r == 0)
		r = run(&o, &s, &err);
	if (r < 0)
		(void)fprintf(stderr, "vminfod: %s\n", err_text(&err, r));
	daemon_options_done(&o);
	free(s.user.name);
	return r < 0 ? EXIT_FAILED : EXIT_OK;
}
