/* SPDX-License-Identifier: Apache-2.0 */
/* What vminfod answers; see routes.h. Source: smartos facts, section 1. */
#include "vminfod/routes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "vminfod/cache.h"
#include "vminfod/events.h"
#include "vminfod/filter.h"
#include "vminfod/metrics.h"
#include "vminfod/record.h"
#include "vminfod/sources.h"

#define HEARTBEAT_MAX_S 3600u

static struct viewer viewer_of(const struct http_request *req)
{
	const struct sock_peer *peer = http_peer(req);

	return (struct viewer){.all = peer && sock_peer_is_admin(peer), .peer = peer};
}

static void reply_text(struct http_request *req, int status, const char *text)
{
	http_reply(req, status, HTTP_JSON, text, strlen(text));
}

static void get_ping(struct http_request *req, void *ctx)
{
	reply_text(req, 200, "{\"ping\":\"pong\"}");
}

static void get_status(struct http_request *req, void *ctx)
{
	const char *full = http_query(req, "full");
	AUTO_JSON json_t *j = status_make(ctx, full && *full);

	http_reply_json(req, 200, j);
}

static void reply_fields(struct http_request *req)
{
	reply_text(req, 400, "too many fields (at most 64)");
}

/* Arguments of /vms that are no fields of a VM. */
static bool is_own_argument(const char *name)
{
	static const char *const names[] = {"fields"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(name, names[i]))
			return true;
	}
	return false;
}

/* What names no field is left alone, as the original left all arguments alone. */
static int filters_of(const struct http_request *req, struct filters **ret, struct err *err)
{
	const char *name, *value;
	int r = 0;

	for (size_t i = 0; r == 0 && http_query_at(req, i, &name, &value); i++) {
		if (!is_own_argument(name))
			r = filters_add(ret, name, value, err);
		if (r == -ENOENT)
			r = 0;
	}
	return r;
}

static void get_vms(struct http_request *req, void *ctx)
{
	const struct status_of *of = ctx;
	struct viewer who = viewer_of(req);
	struct filters *filters = NULL;
	struct http_body *body;
	struct err err = {0};

	sources_settle(of->sources, NULL);
	if (filters_of(req, &filters, &err) < 0) {
		reply_text(req, 400, err.msg);
	} else if (cache_vms(of->cache, &who, http_query(req, "fields"), filters, &body) < 0) {
		reply_fields(req);
	} else {
		http_reply_body(req, 200, HTTP_JSON, body);
		http_body_unref(body);
	}
	filters_free(filters);
}

static void get_vm(struct http_request *req, void *ctx)
{
	const struct status_of *of = ctx;
	struct viewer who = viewer_of(req);
	const char *uuid = http_param(req, "uuid");
	AUTO_STRBUF struct strbuf sb = {0};
	AUTO_FREE char *text = NULL;

	sources_settle(of->sources, uuid);
	switch (cache_vm(of->cache, &who, uuid, http_query(req, "fields"), &sb)) {
	case 0:
		http_reply(req, 200, HTTP_JSON, sb.data, sb.len);
		return;
	case -ENOENT:
		text = xasprintf("VM Not Found: %s", uuid);
		reply_text(req, 404, text);
		return;
	default:
		reply_fields(req);
	}
}

/* Seconds of ?heartbeat=, 0 when it is absent or no number. */
static unsigned heartbeat_of(const struct http_request *req)
{
	const char *text = http_query(req, "heartbeat");
	unsigned long n = text ? strtoul(text, NULL, 10) : 0;

	return n > HEARTBEAT_MAX_S ? HEARTBEAT_MAX_S : (unsigned)n;
}

static bool wants(const struct http_request *req, const char *name)
{
	const char *text = http_query(req, name);

	return text && *text && !str_eq(text, "0");
}

static void get_events(struct http_request *req, void *ctx)
{
	const struct status_of *of = ctx;
	struct viewer who = viewer_of(req);
	struct hub_wish wish = {.heartbeat_s = heartbeat_of(req),
				.since = http_query(req, "since"),
				.uuids = http_query(req, "uuid"),
				.paths = http_query(req, "path")};
	struct err err = {0};

	wish.wants = (wants(req, "seq") ? WANT_SEQ : 0) | (wants(req, "cause") ? WANT_CAUSE : 0);
	if (hub_check(&wish, &err) < 0) {
		reply_text(req, 400, err.msg);
	} else if (str_eq(http_method(req), "HEAD")) {
		reply_text(req, 200, "");
	} else {
		sources_settle(of->sources, NULL);
		hub_subscribe(of->hub, req, &who, &wish);
	}
}

static void get_metrics(struct http_request *req, void *ctx)
{
	metrics_reply(req, ctx);
}

/* The first part of a path decides; what follows it is not looked at. */
const struct http_route vminfod_routes[VMINFOD_ROUTES] = {
	{"GET", "/ping", get_ping, true, "Whether vminfod is there."},
	{"GET", "/ping/..", get_ping, true, "The same."},
	{"GET", "/status", get_status, true, "What vminfod is doing; full=1 tells more."},
	{"GET", "/status/..", get_status, true, "The same."},
	{"GET", "/vms", get_vms, true,
	 "All VM objects; fields=a,b for just these members, NAME=VALUE or NAME=~REGEX filters."},
	{"GET", "/vms/:uuid", get_vm, true, "One VM object, by uuid or zonename exactly."},
	{"GET", "/vms/:uuid/..", get_vm, true, "The same."},
	{"GET", "/events", get_events, true,
	 "The stream of changes; heartbeat=SECONDS, seq=1, since=BOOT:SEQ, cause=1, uuid=U,U, "
	 "path=P,P."},
	{"GET", "/metrics", get_metrics, true,
	 "Prometheus: states, counters with their age, this daemon."},
	{"GET", "/events/..", get_events, true, "The same."},
};

void routes_before(void *ctx)
{
	struct status_of *of = ctx;
	uint64_t start = clock_us(), took;

	sources_sync(of->sources);
	took = clock_us() - start;
	of->requests++;
	of->sync_us += took;
	if (took > of->sync_max_us)
		of->sync_max_us = took;
}

void routes_fallback(struct http_request *req, void *ctx)
{
	if (strcmp(http_method(req), "GET") != 0 && strcmp(http_method(req), "HEAD") != 0)
		reply_text(req, 400, "");
	else
		reply_text(req, 404, "Unsupported URL Path");
}
