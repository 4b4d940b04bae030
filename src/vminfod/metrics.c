/* SPDX-License-Identifier: Apache-2.0 */
/* /metrics; see metrics.h. Names follow Prometheus: base units, _total for what only grows. */
#include "vminfod/metrics.h"

#include <errno.h>
#include <jansson.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "net/call.h"
#include "net/http.h"
#include "store/catalog.h"
#include "vminfod/cache.h"
#include "vminfod/events.h"
#include "vminfod/sources.h"
#include "vminfod/status.h"

#define TEXT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define STATS_MS  1500u

/* --- lines --- */

static void put_head(struct strbuf *to, const char *name, const char *type, const char *help)
{
	strbuf_printf(to, "# HELP drover_%s %s\n# TYPE drover_%s %s\n", name, help, name, type);
}

static void put_one(struct strbuf *to, const char *name, const char *type, const char *help,
		    double value)
{
	put_head(to, name, type, help);
	strbuf_printf(to, "drover_%s %.17g\n", name, value);
}

/* name="value", the value escaped as Prometheus has it. */
static void put_label(struct strbuf *to, const char *name, const char *value)
{
	strbuf_printf(to, "%s=\"", name);
	for (const char *p = value; *p; p++) {
		if (*p == '\\' || *p == '"')
			strbuf_putc(to, '\\');
		if (*p == '\n')
			strbuf_puts(to, "\\n");
		else
			strbuf_putc(to, *p);
	}
	strbuf_putc(to, '"');
}

/* --- of the VMs, from vmadmd --- */

enum part { PART_SELF, PART_CPU, PART_VCPU, PART_MEMORY, PART_BLOCK, PART_NET };

static const struct counter {
	enum part part;
	const char *member; /* of that part of the answer */
	const char *name, *type, *help;
	double unit;
} counters[] = {
	{PART_SELF, "age_ms", "vm_stats_age_seconds", "gauge", "Age of what QEMU said.", 1e-3},
	{PART_CPU, "time_ns", "vm_cpu_seconds_total", "counter", "CPU time of the VM.", 1e-9},
	{PART_VCPU, "time_ns", "vm_vcpu_seconds_total", "counter", "CPU time of a vCPU.", 1e-9},
	{PART_MEMORY, "rss_bytes", "vm_memory_rss_bytes", "gauge", "Resident memory.", 1},
	{PART_MEMORY, "balloon_bytes", "vm_memory_balloon_bytes", "gauge", "Memory of the guest.",
	 1},
	{PART_BLOCK, "rd_bytes", "vm_block_read_bytes_total", "counter", "Bytes read.", 1},
	{PART_BLOCK, "wr_bytes", "vm_block_written_bytes_total", "counter", "Bytes written.", 1},
	{PART_BLOCK, "rd_operations", "vm_block_reads_total", "counter", "Read requests.", 1},
	{PART_BLOCK, "wr_operations", "vm_block_writes_total", "counter", "Write requests.", 1},
	{PART_NET, "rx_bytes", "vm_net_received_bytes_total", "counter", "Bytes to the guest.", 1},
	{PART_NET, "tx_bytes", "vm_net_sent_bytes_total", "counter", "Bytes from the guest.", 1},
};

static void put_sample(struct strbuf *to, const struct counter *c, const char *uuid,
		       const char *label, const char *which, const json_t *of)
{
	const json_t *v = json_object_get(of, c->member);

	if (!json_is_number(v))
		return;
	strbuf_printf(to, "drover_%s{", c->name);
	put_label(to, "uuid", uuid);
	if (label) {
		strbuf_putc(to, ',');
		put_label(to, label, which);
	}
	strbuf_printf(to, "} %.17g\n", json_number_value(v) * c->unit);
}

static void put_vcpus(struct strbuf *to, const struct counter *c, const char *uuid,
		      const json_t *list)
{
	const json_t *one;
	size_t i;

	json_array_foreach (list, i, one) {
		char number[24];

		(void)snprintf(number, sizeof(number), "%zu", i);
		put_sample(to, c, uuid, "vcpu", number, one);
	}
}

static void put_devices(struct strbuf *to, const struct counter *c, const char *uuid,
			const json_t *list)
{
	const json_t *one;
	size_t i;

	json_array_foreach (list, i, one)
		put_sample(to, c, uuid, "device", json_get_str(one, "device", ""), one);
}

static void put_counter(struct strbuf *to, const struct counter *c, const json_t *vm)
{
	const char *uuid = json_get_str(vm, "uuid", "");
	const json_t *cpu = json_object_get(vm, "cpu");

	switch (c->part) {
	case PART_SELF:
		put_sample(to, c, uuid, NULL, NULL, vm);
		break;
	case PART_CPU:
		put_sample(to, c, uuid, NULL, NULL, cpu);
		break;
	case PART_VCPU:
		put_vcpus(to, c, uuid, json_object_get(cpu, "vcpus"));
		break;
	case PART_MEMORY:
		put_sample(to, c, uuid, NULL, NULL, json_object_get(vm, "memory"));
		break;
	case PART_BLOCK:
		put_devices(to, c, uuid, json_object_get(vm, "block"));
		break;
	case PART_NET:
		put_devices(to, c, uuid, json_object_get(vm, "net"));
		break;
	}
}

int metrics_put_stats(struct strbuf *to, const char *stats)
{
	AUTO_JSON json_t *j = NULL;
	const json_t *vms, *vm;
	size_t k;

	if (!stats || json_parse_object(stats, strlen(stats), "stats", &j, NULL) < 0)
		return -EPROTO;
	vms = json_object_get(j, "vms");
	if (!json_is_array(vms))
		return -EPROTO;
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		put_head(to, counters[i].name, counters[i].type, counters[i].help);
		json_array_foreach (vms, k, vm)
			put_counter(to, &counters[i], vm);
	}
	return 0;
}

/* --- of the cache and this daemon --- */

static void put_states(struct strbuf *to, struct cache *cache)
{
	struct viewer nobody = {0};
	struct http_body *body;
	AUTO_JSON json_t *list = NULL;
	const json_t *vm;
	const char *text;
	size_t len, i;

	if (cache_vms(cache, &nobody, "uuid,alias,state", NULL, &body) < 0)
		return;
	text = http_body_data(body, &len);
	list = json_loadb(text, len, 0, NULL);
	http_body_unref(body);
	put_head(to, "vm_state", "gauge", "1 for the state a VM is in.");
	json_array_foreach (list, i, vm) {
		strbuf_puts(to, "drover_vm_state{");
		put_label(to, "uuid", json_get_str(vm, "uuid", ""));
		strbuf_putc(to, ',');
		put_label(to, "alias", json_get_str(vm, "alias", ""));
		strbuf_putc(to, ',');
		put_label(to, "state", json_get_str(vm, "state", ""));
		strbuf_puts(to, "} 1\n");
	}
}

static void put_feeds(struct strbuf *to, const struct sources *sources)
{
	AUTO_JSON json_t *feeds = sources_feeds(sources);
	const char *daemon;
	json_t *feed;

	put_head(to, "feed_connected", "gauge", "Whether a daemon tells its facts.");
	json_object_foreach (feeds, daemon, feed)
		strbuf_printf(to, "drover_feed_connected{daemon=\"%s\"} %d\n", daemon,
			      json_get_bool(feed, "ready", false));
}

static void put_daemon(struct strbuf *to, const struct status_of *of)
{
	const struct catalog_stats *files = catalog_stats(sources_catalog(of->sources));
	struct mallinfo2 heap = mallinfo2();
	const struct scan_log *scans;
	const struct hold *holds;
	size_t n = sources_scans(of->sources, &scans);
	struct hub_stats hub;
	const struct {
		const char *name, *type, *help;
		double value;
	} rows[] = {
		{"vms", "gauge", "VMs known.", (double)cache_count(of->cache)},
		{"uptime_seconds", "gauge", "Since the start of vminfod.",
		 (double)(clock_us() - of->started_us) / 1e6},
		{"heap_bytes", "gauge", "Memory in use.", (double)(heap.uordblks + heap.hblkhd)},
		{"connections", "gauge", "Open connections.",
		 (double)http_server_connections(of->http)},
		{"file_events_total", "counter", "Events of the kernel taken.",
		 (double)files->events},
		{"file_reloads_total", "counter", "Definitions read again.",
		 (double)files->reloads},
		{"lost_events_total", "counter", "Changes that no event told of.",
		 (double)files->lost},
		{"overflows_total", "counter", "Overflows of the kernel's queue.",
		 (double)files->overflows},
		{"scans_total", "counter", "Rounds of the scan.", (double)files->scans},
		{"scan_longest_seconds", "gauge", "Longest go of the last scan.",
		 n ? (double)scans[n - 1].longest_us / 1e6 : 0},
		{"withheld_changes", "gauge", "Changes by vmadmd under way.",
		 (double)sources_holds(of->sources, &holds)},
		{"sync_seconds_sum", "counter", "Time readers waited for queued events.",
		 (double)of->sync_us / 1e6},
		{"sync_seconds_count", "counter", "Requests answered.", (double)of->requests},
		{"sync_seconds_max", "gauge", "Longest of these waits.",
		 (double)of->sync_max_us / 1e6},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		put_one(to, rows[i].name, rows[i].type, rows[i].help, rows[i].value);
	hub_stats(of->hub, &hub);
	put_one(to, "records_total", "counter", "Records of changes.", (double)hub.records);
	put_one(to, "listeners", "gauge", "Listeners to changes.", (double)hub.listeners);
	put_one(to, "listeners_full_total", "counter", "Listeners cut off, their queue full.",
		(double)hub.full);
	put_one(to, "listeners_stalled_total", "counter", "Listeners cut off that took nothing.",
		(double)hub.stalled);
	put_one(to, "listener_queue_records", "gauge", "Records that wait for listeners.",
		(double)hub.queued);
	put_one(to, "listener_queue_bytes", "gauge", "Bytes that wait for listeners.",
		(double)hub.queued_bytes);
}

void metrics_put(struct strbuf *to, const struct status_of *of, const char *stats)
{
	size_t before;

	put_states(to, of->cache);
	put_daemon(to, of);
	put_feeds(to, of->sources);
	before = to->len;
	put_one(to, "vm_stats_up", "gauge", "Whether vmadmd told the VMs' counters.", 1);
	if (metrics_put_stats(to, stats) == 0)
		return;
	to->len = before;
	put_one(to, "vm_stats_up", "gauge", "Whether vmadmd told the VMs' counters.", 0);
}

/* --- the request --- */

struct asking {
	struct http_request *req;
	const struct status_of *of;
	struct call *call;
};

static void on_stats(void *ctx, int r, int status, const char *body, size_t len,
		     const struct err *err)
{
	struct asking *a = ctx;
	AUTO_STRBUF struct strbuf sb = {0};

	metrics_put(&sb, a->of, r == 0 && status == 200 ? body : NULL);
	http_reply(a->req, 200, TEXT_TYPE, sb.data, sb.len);
	free(a);
}

static void on_gone(struct http_request *req, void *ctx)
{
	struct asking *a = ctx;

	call_cancel(a->call);
	free(a);
}

void metrics_reply(struct http_request *req, const struct status_of *of)
{
	struct call_request rq = {
		.socket = of->vmadmd, .method = "GET", .target = "/stats", .timeout_ms = STATS_MS};
	struct asking *a = xcalloc(1, sizeof(*a));

	*a = (struct asking){.req = req, .of = of};
	a->call = call_start(of->event, &rq, on_stats, a);
	http_on_gone(req, on_gone, a);
}
