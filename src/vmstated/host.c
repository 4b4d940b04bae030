/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands for the whole host: shutdown-all stops every guest in reverse order of `after`;
 * upgrade executes the program anew, by the path it was started from. State is written down at
 * every change, so the new program takes up guests, hooks and deadlines as after a SIGKILL; the
 * listening socket and the lock are handed over, so nobody is refused in between.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "net/http.h"
#include "vmstated/net.h"
#include "vmstated/order.h"
#include "vmstated/parts.h"
#include "vmstated/routes.h"

#define UPGRADE_MS       100u /* for the answer to reach its client */
#define UPGRADE_AGAIN_MS 50u  /* while a short-lived child still runs */
#define PATH_MAX_        4096

struct shutdown {
	struct http_request *req; /* NULL: its client left; it goes on */
	int64_t grace_ms;
	json_t *names; /* of those that ran when it began */
	bool busy;
};

void shutdown_free(struct supervisor *sup)
{
	if (!sup->shutdown)
		return;
	json_decref(sup->shutdown->names);
	free(sup->shutdown);
	sup->shutdown = NULL;
}

static void finish(struct supervisor *sup)
{
	struct shutdown *s = sup->shutdown;
	json_t *stopped = json_array(), *failed = json_array();
	AUTO_JSON json_t *j = json_pack("{s:o, s:o}", "stopped", stopped, "failed", failed);

	for (const struct guest *g = sup->guests; g; g = g->next) {
		if (!json_object_get(s->names, g->uuid))
			continue;
		if (g->state == SUP_FAILED)
			(void)json_array_append_new(failed, json_pack("{s:s, s:s}", "name", g->name,
								      "reason",
								      g->failed ? g->failed : ""));
		else
			(void)json_array_append_new(stopped, json_string(g->name));
	}
	log_info("all guests stopped");
	if (s->req)
		http_reply_json(s->req, 200, j);
	shutdown_free(sup);
}

void shutdown_check(struct supervisor *sup)
{
	struct shutdown *s = sup->shutdown;
	size_t left;

	if (!s || s->busy)
		return;
	s->busy = true;
	left = order_stop_next(sup, s->grace_ms);
	s->busy = false;
	if (left == 0)
		finish(sup);
}

static void on_gone(struct http_request *req, void *ctx)
{
	struct supervisor *sup = ctx;

	if (sup->shutdown)
		sup->shutdown->req = NULL;
}

void post_shutdown_all(struct http_request *req, void *ctx)
{
	struct supervisor *sup = ctx;
	AUTO_JSON json_t *body = NULL;
	struct err err = {0};
	const char *text;
	size_t len;
	int r = 0;

	if (routes_refused(sup, req, NULL))
		return;
	text = http_body_text(req, &len);
	if (len)
		r = json_parse_object(text, len, "body", &body, &err);
	if (r == 0 && sup->shutdown)
		r = err_set(&err, EBUSY, "a shutdown of all guests is under way");
	if (r < 0) {
		http_reply_err(req, r, &err);
		return;
	}
	sup->shutdown = xcalloc(1, sizeof(*sup->shutdown));
	*sup->shutdown = (struct shutdown){.req = req,
					   .grace_ms = json_get_int(body, "timeout_ms", -1),
					   .names = json_object()};
	for (const struct guest *g = sup->guests; g; g = g->next) {
		if (g->pid > 0 || !g->settled)
			json_put_bool(sup->shutdown->names, g->uuid, true);
	}
	http_on_gone(req, on_gone, sup);
	shutdown_check(sup);
}

/* --- upgrade --- */

static void hand_over(const char *name, int fd)
{
	char number[16];

	if (fd < 0 || fcntl(fd, F_SETFD, 0) < 0)
		return;
	(void)snprintf(number, sizeof(number), "%d", fd);
	(void)setenv(name, number, 1);
}

int upgrade_inherited(const char *name)
{
	const char *text = getenv(name);
	int fd = text ? (int)strtol(text, NULL, 10) : -1;

	(void)unsetenv(name);
	if (fd < 3 || fcntl(fd, F_GETFD) < 0)
		return -1;
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

static int execute_anew(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct supervisor *sup = userdata;

	if (sync_busy(sup) || net_busy(sup)) {
		(void)timer_set(sup->event, &sup->upgrade_timer, UPGRADE_AGAIN_MS, execute_anew,
				sup);
		return 0;
	}
	for (struct guest *g = sup->guests; g; g = g->next)
		guest_save(g);
	hand_over(UPGRADE_LISTEN_FD, sup->listen_fd);
	hand_over(UPGRADE_LOCK_FD, sup->lock_fd);
	log_info("executing %s anew", sup->program);
	(void)execv(sup->program, sup->argv);
	log_error("cannot execute '%s': %s; going on", sup->program, strerror(errno));
	(void)fcntl(sup->listen_fd, F_SETFD, FD_CLOEXEC);
	(void)fcntl(sup->lock_fd, F_SETFD, FD_CLOEXEC);
	return 0;
}

void upgrade_prepare(struct supervisor *sup, char **argv)
{
	char path[PATH_MAX_];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	sup->argv = argv;
	if (n > 0)
		sup->program = xstrndup(path, (size_t)n);
}

void post_upgrade(struct http_request *req, void *ctx)
{
	static const char answer[] = "{\"accepted\":true}";
	struct supervisor *sup = ctx;
	struct err err = {0};

	if (routes_refused(sup, req, NULL))
		return;
	if (!sup->program || access(sup->program, X_OK) < 0) {
		(void)err_sys(&err, errno, "cannot execute '%s'", sup->program ? sup->program : "");
		http_reply_err(req, -EIO, &err);
		return;
	}
	http_reply(req, 202, HTTP_JSON, answer, sizeof(answer) - 1);
	(void)timer_set(sup->event, &sup->upgrade_timer, UPGRADE_MS, execute_anew, sup);
}
