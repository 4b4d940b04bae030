/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration, the side the VM comes to: what QEMU does. It gets everything as descriptors, since it
 * may not be allowed to make sockets of its own: the listener of its NBD server, and the one
 * connection that carries its memory, which we accept.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "net/http.h"
#include "vmadmd/migrate/migrate.h"

#define SERVER   "drover-nbd"
#define LIMIT_MS 60000u /* the other side has this long to connect, and for its grant */

static int listen_at(struct change *c, const char *name, int *ret_fd, struct err *err)
{
	AUTO_FREE char *path = path_of_run(c->d->paths, c->uuid, name);
	int r = sock_listen(path, 0600, ret_fd, err);

	/* Who sends the VM may connect: ssh does so as the user it was told. */
	if (r == 0 && c->uid != geteuid() && lchown(path, c->uid, (gid_t)-1) < 0)
		log_warn("vm=%s '%s' stays with uid %u: %s", c->uuid, path, geteuid(),
			 strerror(errno));
	return r;
}

static void remove_sockets(struct change *c)
{
	static const char *const names[] = {MIGRATE_INCOMING, MIGRATE_NBD};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		AUTO_FREE char *path = path_of_run(c->d->paths, c->uuid, names[i]);

		(void)unlink(path);
	}
}

void arrive_close(struct change *c)
{
	struct arriving *a = c->live->arriving;

	a->source = sd_event_source_disable_unref(a->source);
	a->limit = sd_event_source_disable_unref(a->limit);
	if (a->listener >= 0)
		(void)close(a->listener);
	a->listener = -1;
	remove_sockets(c);
}

/* --- disks that are copied --- */

static void on_exported(struct change *c, const json_t *value)
{
	c->live->arriving->at++;
	change_again(c);
}

/* Numbers are those of the offer's list of disks, as the other side counts. */
static int export_disk(struct change *c, size_t number, const char *path, struct err *err)
{
	const struct live_disk *disk = live_disk_by_path(c->live, path);
	AUTO_FREE char *name = xasprintf(MIGRATE_COPY "%zu", number);

	if (!disk || !disk->node[0])
		return err_set(err, EIO, "QEMU has not opened disk '%s'", path);
	return live_ask(c, "block-export-add",
			json_pack("{s:s, s:s, s:s, s:s, s:b}", "type", "nbd", "id", name,
				  "node-name", disk->node, "name", name, "writable", 1),
			on_exported, err);
}

static void on_server(struct change *c, const json_t *value)
{
	c->live->arriving->at = 0;
	c->live->arriving->serving = true;
	change_again(c);
}

static void on_server_fd(struct change *c, int r, const json_t *value, const struct err *why)
{
	struct err err = *why;

	if (r == 0)
		r = live_ask(c, "nbd-server-start",
			     json_pack("{s:{s:s, s:{s:s}}}", "addr", "type", "fd", "data", "str",
				       SERVER),
			     on_server, &err);
	if (r < 0)
		change_fail(c, -EIO, &err);
}

static int start_server(struct change *c, struct err *err)
{
	AUTO_FD int fd = -1;
	int r = listen_at(c, MIGRATE_NBD, &fd, err);

	return r < 0 ? r
		     : live_try(c, "getfd", json_pack("{s:s}", "fdname", SERVER), fd, on_server_fd,
				err);
}

int arrive_step_export(struct change *c, struct err *err)
{
	struct arriving *a = c->live->arriving;
	const json_t *disks = json_object_get(a->offer, "disks"), *disk;
	size_t image = 0;

	if (json_array_size(a->images) == 0)
		return 0;
	if (!a->serving)
		return start_server(c, err);
	for (size_t i = 0; i < json_array_size(disks); i++) {
		disk = json_array_get(disks, i);
		if (!json_get_bool(disk, "copy", false))
			continue;
		if (image++ == a->at)
			return export_disk(
				c, i,
				json_get_str(json_array_get(a->images, image - 1), "path", ""),
				err);
	}
	return 0;
}

/* --- memory --- */

static void on_incoming(struct change *c, int r, const json_t *value, const struct err *err)
{
	live_point("coming");
	/* What becomes of it QEMU's state tells. */
	if (r == -EREMOTEIO)
		log_warn("vm=%s memory cannot come: %s", c->uuid, err->msg);
}

static void on_stream_fd(struct change *c, int r, const json_t *value, const struct err *err)
{
	if (r == 0)
		(void)live_try(c, "migrate-incoming",
			       json_pack("{s:s}", "uri", "fd:" MIGRATE_STREAM), -1, on_incoming,
			       NULL);
}

static int on_limit(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct change *c = ctx;
	struct err err = {0};

	change_fail(c,
		    err_set(&err, ETIMEDOUT, "the other side was silent for %u s", LIMIT_MS / 1000),
		    &err);
	return 0;
}

static int on_connection(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct change *c = ctx;
	struct arriving *a = c->live->arriving;
	AUTO_FD int stream = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (stream < 0)
		return 0;
	a->source = sd_event_source_disable_unref(a->source);
	timer_stop(a->limit); /* the stream's end is seen by QEMU */
	(void)live_try(c, "getfd", json_pack("{s:s}", "fdname", MIGRATE_STREAM), stream,
		       on_stream_fd, NULL);
	return 0;
}

static void on_watched(void *ctx, const char *name, const json_t *data)
{
	struct change *c = ctx;
	struct err err = {0};

	if (str_eq(name, MONITOR_GONE))
		change_fail(c, err_set(&err, ECONNRESET, "its QEMU ended: it did not come whole"),
			    &err);
	else if (str_eq(name, "MIGRATION") && str_eq(json_get_str(data, "status", ""), "completed"))
		(void)timer_set(c->d->event, &c->live->arriving->limit, LIMIT_MS, on_limit, c);
}

void arrive_unwatch(struct change *c)
{
	struct arriving *a = c->live->arriving;
	struct guest *g = guest_find(c->d, c->uuid);

	if (a->waiting && g)
		monitor_unwatch(g, &a->watch);
	a->waiting = false;
}

int arrive_step_listen(struct change *c, struct err *err)
{
	struct arriving *a = c->live->arriving;
	AUTO_JSON json_t *out = json_object();
	int r = listen_at(c, MIGRATE_INCOMING, &a->listener, err);

	if (r < 0)
		return r;
	(void)sd_event_add_io(c->d->event, &a->source, a->listener, EPOLLIN, on_connection, c);
	(void)timer_set(c->d->event, &a->limit, LIMIT_MS, on_limit, c);
	a->watch = (struct monitor_watch){.event = on_watched, .ctx = c};
	monitor_watch(live_guest(c), &a->watch);
	a->waiting = true;
	live_point("listening");
	json_put_str(out, "session", a->session);
	if (c->req)
		http_reply_json(c->req, 200, out);
	c->req = NULL;
	return STEP_WAIT;
}
