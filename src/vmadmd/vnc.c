/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VNC over TCP. We listen and accept; each accepted viewer is handed to QEMU (getfd, add_client),
 * so nothing is copied and sessions outlive us. Order: the password is told to QEMU first, the
 * listener opens only when QEMU has taken it. An empty password is never sent: QEMU would accept
 * it. The port is kept in our state file, so that it stays over our own restart.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
#include "model/vm.h"
#include "store/catalog.h"
#include "store/write.h"
#include "vmadmd/guest.h"
#include "vmadmd/vmadmd.h"

#define VIEWERS_MAX     16u /* between accept and QEMU's answer, per VM */
#define LISTEN_RETRY_MS 2000u
#define STATE_VERSION   1
#define STATE_FILE      "vmadmd.state"
#define DISPLAY_BASE    5900

struct vnc_waiter {
	void (*done)(void *ctx);
	void *ctx;
	struct vnc_waiter *next;
};

/* A viewer on its way to QEMU. */
struct vnc_viewer {
	struct guest *g;
	int fd;
	char name[24];
};

json_t *vnc_info(const struct guest *g)
{
	json_t *out = json_object();

	if (g->vnc.fd < 0)
		return out;
	json_put_str(out, "host", g->vnc.address);
	json_put_int(out, "port", g->vnc.port);
	if (g->vnc.port >= DISPLAY_BASE)
		json_put_int(out, "display", g->vnc.port - DISPLAY_BASE);
	return out;
}

/* --- the port that was used before our restart --- */

static uint16_t kept_port(const struct guest *g)
{
	AUTO_FREE char *path = path_of_run(g->d->paths, g->uuid, STATE_FILE);
	AUTO_JSON json_t *state = NULL;
	struct err err = {0};
	json_int_t port;
	int r = state_read(path, STATE_VERSION, &state, &err);

	if (r < 0) {
		if (r != -ENOENT)
			log_warn("vm=%s state not read: %s", g->uuid, err.msg);
		return 0;
	}
	port = json_get_int(state, "vnc_port", 0);
	if (json_get_int(state, "pid", 0) != g->qmp_pid || port < 0 || port > UINT16_MAX)
		return 0;
	return (uint16_t)port;
}

static void keep_port(const struct guest *g)
{
	AUTO_FREE char *path = path_of_run(g->d->paths, g->uuid, STATE_FILE);
	AUTO_JSON json_t *state = json_object();
	struct err err = {0};

	json_put_int(state, "pid", g->qmp_pid);
	json_put_int(state, "vnc_port", g->vnc.port);
	if (state_write(path, STATE_VERSION, state, FILE_NO_SYNC, &err) < 0)
		log_warn("vm=%s state not kept, the VNC port will change when we restart: %s",
			 g->uuid, err.msg);
}

static void listener_close(struct guest *g)
{
	sd_event_source_disable_unref(g->vnc.source);
	g->vnc.source = NULL;
	if (g->vnc.fd >= 0)
		(void)close(g->vnc.fd);
	g->vnc.fd = -1;
	replace_str(&g->vnc.address, NULL);
}

static int on_listen_retry(sd_event_source *source, uint64_t usec, void *ctx)
{
	vnc_apply(ctx);
	return 0;
}

/* --- viewers --- */

static void viewer_end(struct vnc_viewer *v)
{
	v->g->vnc.nviewers--;
	(void)close(v->fd);
	free(v);
}

static void on_client_added(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct vnc_viewer *v = ctx;

	if (r < 0)
		log_warn("vm=%s VNC viewer refused by QEMU: %s", v->g->uuid, err_text(err, r));
	viewer_end(v);
}

static void on_fd_passed(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct vnc_viewer *v = ctx;
	AUTO_JSON json_t *arguments = json_object();
	struct err why = {0};

	if (r < 0) {
		log_warn("vm=%s VNC viewer not handed over: %s", v->g->uuid, err_text(err, r));
		viewer_end(v);
		return;
	}
	json_put_str(arguments, "protocol", "vnc");
	json_put_str(arguments, "fdname", v->name);
	json_put_bool(arguments, "skipauth", !v->g->vnc.password && !vnc_guarded(v->g));
	if (monitor_send(v->g, "add_client", arguments, -1, on_client_added, v, &why) < 0) {
		log_warn("vm=%s VNC viewer not handed over: %s", v->g->uuid, why.msg);
		viewer_end(v);
	}
}

static void viewer_start(struct guest *g, int fd)
{
	struct vnc_viewer *v = xcalloc(1, sizeof(*v));
	AUTO_JSON json_t *arguments = json_object();
	struct err err = {0};
	int one = 1;

	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	v->g = g;
	v->fd = fd;
	(void)snprintf(v->name, sizeof(v->name), "vnc-%" PRIu32, (uint32_t)++g->vnc.number);
	g->vnc.nviewers++;
	json_put_str(arguments, "fdname", v->name);
	if (monitor_send(g, "getfd", arguments, fd, on_fd_passed, v, &err) < 0) {
		log_warn("vm=%s VNC viewer not handed over: %s", g->uuid, err.msg);
		viewer_end(v);
	}
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct guest *g = ctx;
	int viewer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (viewer < 0) {
		if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
			return 0;
		log_error("vm=%s VNC viewer not accepted: %s; tried again in %u ms", g->uuid,
			  strerror(errno), LISTEN_RETRY_MS);
		listener_close(g);
		(void)timer_set(g->d->event, &g->vnc.retry, LISTEN_RETRY_MS, on_listen_retry, g);
		return 0;
	}
	if (g->vnc.nviewers >= VIEWERS_MAX) {
		log_warn("vm=%s VNC viewer dropped: QEMU has not taken the last %u yet", g->uuid,
			 VIEWERS_MAX);
		(void)close(viewer);
		return 0;
	}
	log_debug("vm=%s VNC viewer accepted", g->uuid);
	viewer_start(g, viewer);
	return 0;
}

/* --- the listener --- */

static void staged_close(struct guest *g)
{
	if (g->vnc.staged >= 0)
		(void)close(g->vnc.staged);
	g->vnc.staged = -1;
}

void vnc_close(struct guest *g)
{
	bool had = g->vnc.fd >= 0;

	timer_stop(g->vnc.retry);
	listener_close(g);
	replace_str(&g->vnc.password, NULL);
	replace_str(&g->vnc.refused, NULL);
	if (!monitor_ready(g)) {
		staged_close(g);
		g->vnc.staging = false;
		replace_str(&g->vnc.staged_address, NULL);
		replace_str(&g->vnc.file_password, NULL);
		g->vnc.file_read = false;
	}
	g->vnc.complained = false;
	if (had)
		(void)guest_publish(g);
}

static int listen_on(struct guest *g, const char *address, int32_t want, struct err *err)
{
	uint16_t before = want == 0 ? kept_port(g) : 0;

	if (before && sock_listen_tcp(address, before, &g->vnc.fd, &g->vnc.port, NULL) == 0)
		return 0;
	return sock_listen_tcp(address, (uint16_t)want, &g->vnc.fd, &g->vnc.port, err);
}

/* The listener an update has opened already, where it is the one that is wanted. */
static bool take_staged(struct guest *g, const struct vnc_want *want)
{
	bool fits = g->vnc.staged >= 0 && g->vnc.staged_want == want->port &&
		    str_eq(g->vnc.staged_address, want->address);

	if (fits) {
		g->vnc.fd = steal_fd(&g->vnc.staged);
		g->vnc.port = g->vnc.staged_port;
	}
	staged_close(g);
	return fits;
}

static void listener_open(struct guest *g, const struct vnc_want *want)
{
	struct err err = {0};

	if (g->vnc.fd >= 0 && g->vnc.want == want->port && str_eq(g->vnc.address, want->address))
		return; /* nothing changed */
	listener_close(g);
	if (!take_staged(g, want) && listen_on(g, want->address, want->port, &err) < 0) {
		if (!g->vnc.complained)
			log_error("vm=%s VNC not served: %s; tried again until it works", g->uuid,
				  err.msg);
		g->vnc.complained = true;
		(void)timer_set(g->d->event, &g->vnc.retry, LISTEN_RETRY_MS, on_listen_retry, g);
		return;
	}
	g->vnc.want = want->port;
	g->vnc.address = xstrdup(want->address);
	g->vnc.complained = false;
	(void)sd_event_add_io(g->d->event, &g->vnc.source, g->vnc.fd, EPOLLIN, on_accept, g);
	keep_port(g);
	(void)guest_publish(g);
	log_info("vm=%s VNC served address=%s port=%u", g->uuid, want->address, g->vnc.port);
}

/* --- the password --- */

static void tell_waiters(struct guest *g)
{
	struct vnc_waiter *w;

	while (!g->vnc.asking && (w = g->vnc.waiters) != NULL) {
		g->vnc.waiters = w->next;
		w->done(w->ctx);
		free(w);
	}
}

struct password {
	struct guest *g;
	char *text;
};

static void on_password(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct password *p = ctx;
	struct guest *g = p->g;
	bool again = r == 0 || g->vnc.again;

	g->vnc.asking = g->vnc.again = false;
	if (r == 0) {
		replace_str(&g->vnc.password, steal_ptr(p->text));
	} else if (g->vnc.staging) {
		log_info("vm=%s VNC password of an update not taken: %s", g->uuid,
			 err_text(err, r));
	} else if (r != -ECONNRESET) {
		log_error("vm=%s VNC closed: QEMU did not take the password: %s (a VM started "
			  "without one needs a restart)",
			  g->uuid, err_text(err, r));
		vnc_close(g);
		g->vnc.refused = steal_ptr(p->text);
	}
	free(p->text);
	free(p);
	if (again && r != -ECONNRESET)
		vnc_apply(g);
	tell_waiters(g);
}

static void send_password(struct guest *g, const char *text)
{
	struct password *p = xcalloc(1, sizeof(*p));
	AUTO_JSON json_t *arguments = json_object();
	struct err err = {0};

	p->g = g;
	p->text = xstrdup(text);
	json_put_str(arguments, "protocol", "vnc");
	json_put_str(arguments, "password", text);
	g->vnc.asking = true;
	if (monitor_send(g, "set_password", arguments, -1, on_password, p, &err) < 0)
		on_password(p, -ENOTCONN, NULL, &err);
}

void vnc_apply(struct guest *g)
{
	struct catalog_entry *e = catalog_by_uuid(g->d->catalog, g->uuid);
	struct vnc_want want;

	g->vnc.again = g->vnc.asking;
	if (!e || !monitor_ready(g) || g->vnc.asking || g->vnc.staging)
		return; /* without definition all stays as it is; on_password comes back here */
	vnc_wanted(g, e->vm, &want);
	if (want.port < 0) {
		vnc_close(g);
	} else if (want.password && str_eq(want.password, g->vnc.refused)) {
		log_debug("vm=%s VNC stays closed: its password was refused", g->uuid);
	} else if (want.password && !str_eq(want.password, g->vnc.password)) {
		send_password(g, want.password);
	} else {
		if (!want.password)
			replace_str(&g->vnc.password, NULL);
		listener_open(g, &want);
	}
	vnc_want_done(&want);
}

/* --- an update on its way --- */

static int stage_listener(struct guest *g, const struct vnc_want *want, struct err *err)
{
	int r;

	if (want->port < 0 ||
	    (g->vnc.fd >= 0 && g->vnc.want == want->port && str_eq(g->vnc.address, want->address)))
		return 0;
	r = sock_listen_tcp(want->address, (uint16_t)want->port, &g->vnc.staged,
			    &g->vnc.staged_port, err);
	/* Ours at another address may be in the way until the change is written. */
	if (r == -EADDRINUSE && g->vnc.fd >= 0 && g->vnc.port == want->port)
		return 0;
	if (r < 0) {
		err_wrap(err, r, "vnc_port");
		return r == -EADDRINUSE ? -EEXIST : r == -EADDRNOTAVAIL ? -EINVAL : r;
	}
	g->vnc.staged_want = want->port;
	replace_str(&g->vnc.staged_address, xstrdup(want->address));
	return 0;
}

int vnc_stage(struct guest *g, const struct vm *vm, void (*done)(void *ctx), void *ctx,
	      struct err *err)
{
	struct vnc_want want;
	int r;

	if (!monitor_ready(g) || g->vnc.asking)
		return 0; /* applied when QEMU answers */
	vnc_wanted(g, vm, &want);
	r = stage_listener(g, &want, err);
	g->vnc.staging = r == 0;
	if (r == 0 && want.port >= 0 && want.password && !str_eq(want.password, g->vnc.password)) {
		struct vnc_waiter *w = xcalloc(1, sizeof(*w));

		*w = (struct vnc_waiter){done, ctx, g->vnc.waiters};
		g->vnc.waiters = w;
		send_password(g, want.password);
		r = 1;
	}
	vnc_want_done(&want);
	return r;
}

int vnc_staged(struct guest *g, const struct vm *vm, struct err *err)
{
	struct vnc_want want;
	int r = 0;

	vnc_wanted(g, vm, &want);
	if (g->vnc.staging && want.port >= 0 && want.password &&
	    !str_eq(want.password, g->vnc.password))
		r = err_set(err, EIO,
			    "vnc_password: QEMU did not take it, nothing was changed (a VM started "
			    "without VNC password by an earlier version needs a restart)");
	vnc_want_done(&want);
	return r;
}

void vnc_stage_end(struct guest *g)
{
	if (!g->vnc.staging)
		return;
	g->vnc.staging = false;
	replace_str(&g->vnc.refused, NULL);
	vnc_apply(g);
	staged_close(g);
	replace_str(&g->vnc.staged_address, NULL);
}

void vnc_reload(struct guest *g, void (*done)(void *ctx), void *ctx)
{
	struct vnc_waiter *w = xcalloc(1, sizeof(*w));

	*w = (struct vnc_waiter){done, ctx, g->vnc.waiters};
	g->vnc.waiters = w;
	vnc_apply(g);
	tell_waiters(g);
}
