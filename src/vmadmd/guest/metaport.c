/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second serial port of a running VM: requests of the metadata service in, answers out. Of a
 * guest at most one request is under way and one answer waits to be taken; nothing more is read
 * meanwhile, so what a guest sends in a flood waits in its own serial port. Its changes go the way
 * of every change, and no faster than PUTS_MAX in PUTS_MS. A port a definition gives to a console
 * of its own is left alone.
 */
#include "vmadmd/guest/metaport.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "daemon/daemon.h"
#include "model/model.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "vmadmd/guest.h"
#include "vmadmd/guest/metadata.h"
#include "vmadmd/vmadmd.h"

#define READ_MAX     65536u
#define REQUESTS_MAX 32 /* in one turn of the loop */
#define PUTS_MAX     50
#define PUTS_MS      10000u
#define RETRY_MS     1000u

/* A change of the guest under way; outlives the port when the guest ends meanwhile. */
struct metadata_put {
	struct metaport *port; /* NULL: gone */
	struct metadata_request request;
};

struct metaport {
	struct guest *g;
	int fd;
	json_int_t pid; /* of the QEMU at its other end */
	sd_event_source *source, *timer;
	struct metadata_in in;
	struct strbuf out;
	struct metadata_put *put; /* NULL: none under way */
	uint64_t window_ms;       /* when the window of changes began */
	int puts;                 /* in it */
};

static void port_listen(struct metaport *p, bool more)
{
	bool out = p->out.len > 0 || more;

	(void)sd_event_source_set_io_events(p->source,
					    (out ? EPOLLOUT : 0) | (out || p->put ? 0 : EPOLLIN));
}

/* false: the other end is gone. */
static bool port_flush(struct metaport *p)
{
	ssize_t n;

	if (p->out.len == 0)
		return true;
	n = send(p->fd, p->out.data, p->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	if (n > 0)
		strbuf_drop(&p->out, (size_t)n);
	if (p->out.len == 0 && p->out.cap > READ_MAX)
		strbuf_done(&p->out);
	return true;
}

/* --- changes --- */

static void port_go(struct metaport *p);

static void on_put(void *ctx, int r, const struct err *err)
{
	struct metadata_put *put = ctx;
	struct metaport *p = put->port;

	if (p) {
		p->put = NULL;
		metadata_answer(&put->request, r < 0 ? METADATA_FAILURE : METADATA_SUCCESS,
				r < 0 ? err_text(err, r) : "OK", &p->out);
	}
	metadata_request_done(&put->request);
	free(put);
	if (p)
		port_listen(p, true); /* goes on from the loop */
}

static void put_start(struct metaport *p, struct metadata_request *r, json_t *payload)
{
	struct vmadmd *d = p->g->d;
	const struct change_by by = {.uid = d->uid,
				     .command = r->command == METADATA_PUT ? "metadata put"
									   : "metadata delete",
				     .kind = CAUSE_GUEST};
	struct metadata_put *put = xcalloc(1, sizeof(*put));

	*put = (struct metadata_put){.port = p, .request = *r};
	*r = (struct metadata_request){0};
	p->put = put;
	p->puts++;
	change_update(d, p->g->uuid, payload, &by, on_put, put);
}

/* --- requests --- */

static json_t *told_object(const struct guest *g, const struct catalog_entry *e)
{
	AUTO_JSON json_t *facts = g->facts ? json_copy(g->facts) : json_object();

	return vm_to_json(e->vm, facts, false);
}

static void serve(struct metaport *p, struct metadata_request *r)
{
	const struct catalog_entry *e = catalog_by_uuid(p->g->d->catalog, p->g->uuid);
	AUTO_STRBUF struct strbuf body = {0};
	AUTO_JSON json_t *object = NULL;
	enum metadata_code code = METADATA_FAILURE;
	struct err err = {0};
	json_t *payload = NULL;

	if (!e) {
		strbuf_puts(&body, "the VM has no definition");
	} else if (r->command == METADATA_KEYS) {
		metadata_keys(e->vm, &body);
		code = METADATA_SUCCESS;
	} else if (r->command == METADATA_GET && r->key) {
		object = str_starts(r->key, "sdc:") ? told_object(p->g, e) : NULL;
		code = metadata_get(e->vm, object, r->key, &body);
	} else if (r->command == METADATA_PUT || r->command == METADATA_DELETE) {
		if (metadata_payload(e->vm, r, &payload, &err) == 0) {
			put_start(p, r, payload);
			return;
		}
		strbuf_puts(&body, err.msg);
	} else {
		strbuf_puts(&body, "Unknown command");
	}
	metadata_answer(r, code, body.data, &p->out);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *ctx)
{
	port_go(ctx);
	return 0;
}

/* Too many changes: the guest waits for the window's end. */
static bool port_rests(struct metaport *p)
{
	uint64_t now = clock_ms();

	if (now >= p->window_ms + PUTS_MS) {
		p->window_ms = now;
		p->puts = 0;
	}
	if (p->puts < PUTS_MAX)
		return false;
	(void)sd_event_source_set_io_events(p->source, 0);
	(void)timer_set(p->g->d->event, &p->timer, p->window_ms + PUTS_MS - now, on_timer, p);
	return true;
}

static void port_lost(struct metaport *p);

static void port_go(struct metaport *p)
{
	struct metadata_request r;
	int count = 0;
	bool more = false;

	if (port_rests(p))
		return;
	catalog_sync(p->g->d->catalog);
	while (p->out.len == 0 && !p->put && count++ < REQUESTS_MAX) {
		more = metadata_next(&p->in, &r);
		if (!more)
			break;
		serve(p, &r);
		metadata_request_done(&r);
		if (!port_flush(p)) {
			port_lost(p);
			return;
		}
	}
	port_listen(p, more);
}

static int on_port(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct metaport *p = ctx;
	char buf[READ_MAX];
	ssize_t n;

	if (!port_flush(p)) {
		port_lost(p);
		return 0;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			port_lost(p);
			return 0;
		}
		if (n > 0)
			metadata_feed(&p->in, buf, (size_t)n);
	}
	port_go(p);
	return 0;
}

/* --- the connection --- */

static int on_retry(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct metaport *p = ctx;
	struct guest *g = p->g;

	metaport_close(g);
	metaport_update(g);
	return 0;
}

/* QEMU ended, mostly; else it is there again soon. */
static void port_lost(struct metaport *p)
{
	(void)sd_event_source_set_enabled(p->source, SD_EVENT_OFF);
	(void)timer_set(p->g->d->event, &p->timer, RETRY_MS, on_retry, p);
}

void metaport_close(struct guest *g)
{
	struct metaport *p = g->metaport;

	if (!p)
		return;
	g->metaport = NULL;
	if (p->put)
		p->put->port = NULL;
	sd_event_source_disable_unref(p->source);
	sd_event_source_disable_unref(p->timer);
	metadata_in_done(&p->in);
	strbuf_done(&p->out);
	(void)close(p->fd);
	free(p);
}

static void port_open(struct guest *g)
{
	AUTO_FREE char *path = path_of_run(g->d->paths, g->uuid, "vm.ttyb");
	AUTO_FD int fd = -1;
	struct err err = {0};
	struct metaport *p;

	if (sock_connect(path, &fd, &err) < 0) {
		log_debug("vm=%s metadata service not reached: %s", g->uuid, err.msg);
		return;
	}
	p = xcalloc(1, sizeof(*p));
	p->g = g;
	p->pid = json_get_int(g->facts, FACT_PID, 0);
	if (sd_event_add_io(g->d->event, &p->source, fd, EPOLLIN, on_port, p) < 0) {
		free(p);
		return;
	}
	p->fd = steal_fd(&fd);
	g->metaport = p;
}

/* Is the second port ours? Not where the definition speaks of a console there. */
static bool port_wanted(const struct guest *g)
{
	const struct catalog_entry *e;

	if (!guest_runs(g))
		return false;
	catalog_sync(g->d->catalog);
	e = catalog_by_uuid(g->d->catalog, g->uuid);
	return e && !e->vm->configfile && e->vm->nconsoles < 2;
}

void metaport_update(struct guest *g)
{
	bool wanted = port_wanted(g);

	if (g->metaport && wanted && g->metaport->pid == json_get_int(g->facts, FACT_PID, 0))
		return;
	metaport_close(g);
	if (wanted)
		port_open(g);
}
