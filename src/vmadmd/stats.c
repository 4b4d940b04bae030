/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /stats: counters of all running VMs. All monitors are asked at once, every QEMU has the same
 * short deadline, and the answer has every VM: one that does not answer is there with what was
 * seen of it last, and its age. What the kernel counts (CPU time, resident memory, taps) is read
 * when the answer is made, a hanging QEMU's too. Requests that come while a sample is under way
 * share it. A monitor that still owes us an answer is not asked again.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "vmadmd/auth.h"
#include "vmadmd/guest.h"
#include "vmadmd/info.h"
#include "vmadmd/stats.h"
#include "vmadmd/vmadmd.h"

#define SAMPLE_MS 1000u
#define PROC_MAX  4096u

#define STAT_UTIME 14 /* fields of /proc/PID/stat, proc(5) */
#define STAT_STIME 15
#define STAT_RSS   24

#define NET_RX_BYTES 0 /* columns of /proc/net/dev, proc(5) */
#define NET_TX_BYTES 8
#define NET_MAX      (1u << 22) /* of thousands of interfaces */

struct waiter {
	struct stats *s;
	struct http_request *req; /* NULL: the client left */
	struct waiter *next;
};

struct stats {
	struct vmadmd *d;
	struct waiter *waiters;
	size_t missing; /* VMs of this sample that have not answered */
	bool sampling;
	uint64_t round;
	sd_event_source *timer, *ended;
};

enum query { QUERY_BLOCK, QUERY_CPUS, QUERY_BALLOON };
#define QUERY_COUNT 3

static const char *const queries[QUERY_COUNT] = {
	[QUERY_BLOCK] = "query-blockstats",
	[QUERY_CPUS] = "query-cpus-fast",
	[QUERY_BALLOON] = "query-balloon",
};

struct query_ctx {
	struct stats *s;
	struct guest *g;
	enum query query;
	uint64_t round; /* the sample it was asked for; an answer that comes late is kept too */
};

/* --- what QEMU says --- */

static json_t *block_of(const json_t *value)
{
	static const char *const members[] = {"rd_bytes", "wr_bytes", "rd_operations",
					      "wr_operations"};
	AUTO_JSON json_t *mapped = info_map(info_row("blockstats"), value);
	json_t *out = json_array();
	json_t *device;
	size_t i;

	json_array_foreach (mapped, i, device) {
		const json_t *stats = json_object_get(device, "stats");
		json_t *one = json_object();

		json_put_str(one, "device", json_get_str(device, "device", ""));
		for (size_t j = 0; j < ARRAY_SIZE(members); j++)
			json_put_int(one, members[j], json_get_int(stats, members[j], 0));
		json_array_append_new(out, one);
	}
	return out;
}

static void threads_of(struct guest_stats *st, const json_t *value)
{
	const json_t *cpu;
	size_t i;

	st->nthreads = 0;
	json_array_foreach (value, i, cpu) {
		if (st->nthreads < STATS_VCPUS_MAX)
			st->threads[st->nthreads++] = (pid_t)json_get_int(cpu, "thread-id", 0);
	}
}

static void keep(struct guest *g, enum query query, const json_t *value)
{
	struct guest_stats *st = g->stats;

	switch (query) {
	case QUERY_BLOCK:
		json_decref(st->block);
		st->block = block_of(value);
		break;
	case QUERY_CPUS:
		threads_of(st, value);
		break;
	case QUERY_BALLOON:
		st->balloon = json_get_int(value, "actual", -1);
		break;
	}
}

static void sample_end(struct stats *s);

static int on_all_answered(sd_event_source *source, void *ctx)
{
	sample_end(ctx);
	return 0;
}

static void on_answer(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct query_ctx *q = ctx;
	struct guest_stats *st = q->g->stats;
	struct stats *s = q->s;

	st->pending--;
	st->broken = st->broken || (r < 0 && r != -EREMOTEIO);
	if (r == 0)
		keep(q->g, q->query, value);
	if (st->pending == 0) {
		if (!st->broken)
			st->sampled_ms = clock_ms();
		if (s->sampling && q->round == s->round && --s->missing == 0)
			(void)sd_event_source_set_enabled(s->ended, SD_EVENT_ONESHOT);
	}
	free(q);
}

static void ask(struct guest *g, void *ctx)
{
	struct stats *s = ctx;
	struct guest_stats *st = g->stats;
	struct err err = {0};

	if (!guest_runs(g))
		return;
	if (!st)
		st = g->stats = xcalloc(1, sizeof(*st));
	if (st->pending > 0 || g->qmp_silent)
		return; /* it still owes us the last answers, or does not greet */
	st->broken = false;
	st->balloon = -1;
	for (enum query i = 0; i < QUERY_COUNT; i++) {
		struct query_ctx *q = xcalloc(1, sizeof(*q));

		*q = (struct query_ctx){s, g, i, s->round};
		if (monitor_send(g, queries[i], NULL, -1, on_answer, q, &err) < 0)
			free(q);
		else
			st->pending++;
	}
	if (st->pending > 0)
		s->missing++;
}

void guest_stats_free(struct guest *g)
{
	if (g->stats)
		json_decref(g->stats->block);
	free(g->stats);
	g->stats = NULL;
}

/* --- what the kernel says --- */

static char *proc_read(char *buf, size_t size, const char *path)
{
	FILE *f = fopen(path, "re");
	size_t n = f ? fread(buf, 1, size - 1, f) : 0;

	buf[n] = '\0';
	if (f)
		(void)fclose(f);
	return n > 0 ? buf : NULL;
}

/* Field n of a stat file, counted from 1 as proc(5) does; rest begins behind the name's ")". */
static int64_t stat_field(const char *rest, unsigned n)
{
	for (unsigned at = 2; at < n && rest; at++) {
		rest = strchr(rest, ' ');
		rest = rest ? rest + 1 : NULL;
	}
	return rest ? strtoll(rest, NULL, 10) : 0;
}

/* utime + stime of a stat file in nanoseconds, -1 when it cannot be read; *ret_rss in bytes. */
static int64_t stat_read(const char *path, int64_t *ret_rss)
{
	char buf[PROC_MAX];
	const char *at = proc_read(buf, sizeof(buf), path);
	int64_t tick = INT64_C(1000000000) / sysconf(_SC_CLK_TCK);

	at = at ? strrchr(at, ')') : NULL;
	if (!at)
		return -1;
	if (ret_rss)
		*ret_rss = stat_field(at, STAT_RSS) * sysconf(_SC_PAGESIZE);
	return (stat_field(at, STAT_UTIME) + stat_field(at, STAT_STIME)) * tick;
}

static void put_process(json_t *out, const struct guest *g, const struct guest_stats *st)
{
	pid_t pid = (pid_t)json_get_int(g->facts, FACT_PID, 0);
	AUTO_FREE char *path = xasprintf("/proc/%d/stat", (int)pid);
	json_t *cpu = json_object(), *memory = json_object();
	int64_t rss, ns = stat_read(path, &rss);

	if (ns >= 0) {
		json_put_int(cpu, "time_ns", ns);
		json_put_int(memory, "rss_bytes", rss);
	}
	if (st->nthreads > 0) {
		json_t *vcpus = json_array();

		for (size_t i = 0; i < st->nthreads; i++) {
			AUTO_FREE char *task =
				xasprintf("/proc/%d/task/%d/stat", (int)pid, (int)st->threads[i]);
			json_t *one = json_object();

			ns = stat_read(task, NULL);
			if (ns >= 0)
				json_put_int(one, "time_ns", ns);
			json_array_append_new(vcpus, one);
		}
		json_object_set_new(cpu, "vcpus", vcpus);
	}
	if (st->balloon >= 0)
		json_put_int(memory, "balloon_bytes", st->balloon);
	json_object_set_new(out, "cpu", cpu);
	json_object_set_new(out, "memory", memory);
}

/* Column n (from 0) of an interface's line of /proc/net/dev, -1: it has none. */
static int64_t counter_of(const char *table, const char *tap, unsigned n)
{
	size_t len = strlen(tap);
	const char *at = table;

	while (at && (at = strstr(at, tap)) != NULL) {
		if (at > table && strchr("\n ", at[-1]) && at[len] == ':')
			break;
		at += len;
	}
	at = at ? at + len + 1 : NULL;
	for (; at && n > 0; n--) {
		at += strspn(at, " ");
		at += strcspn(at, " \n");
	}
	return at && *at ? strtoll(at, NULL, 10) : -1;
}

static void put_counter(json_t *out, const char *member, int64_t value)
{
	if (value >= 0)
		json_put_int(out, member, value);
}

/*
 * The tap's view is the guest's, turned round. User-mode networks count nothing. The table is of
 * our own network namespace, /sys need not be.
 */
static json_t *net_of(const struct vm *vm, const char *table)
{
	json_t *list = json_array();

	for (size_t i = 0; vm && i < vm->nnics; i++) {
		char tap[NIC_TAP_MAX];
		json_t *one;

		if (!vm_nic_tap(vm, vm->nics[i], tap))
			continue;
		one = json_object();
		json_put_str(one, "device", tap);
		put_counter(one, "rx_bytes", counter_of(table, tap, NET_TX_BYTES));
		put_counter(one, "tx_bytes", counter_of(table, tap, NET_RX_BYTES));
		json_array_append_new(list, one);
	}
	return list;
}

/* --- the answer --- */

struct answer {
	const struct sock_peer *peer;
	bool all;
	char *net; /* /proc/net/dev */
	json_t *vms;
};

static void put_vm(struct guest *g, void *ctx)
{
	static const struct guest_stats none = {.balloon = -1};
	struct answer *a = ctx;
	const struct guest_stats *st = g->stats ? g->stats : &none;
	const struct catalog_entry *e = catalog_by_uuid(g->d->catalog, g->uuid);
	json_t *out;

	if (!guest_runs(g))
		return;
	if (!a->all && (!e || auth_check(a->peer, e->vm, false, "stats", NULL) < 0))
		return;
	out = json_object();
	json_put_str(out, "uuid", g->uuid);
	if (st->sampled_ms > 0)
		json_put_int(out, "age_ms", (json_int_t)(clock_ms() - st->sampled_ms));
	put_process(out, g, st);
	if (st->block)
		json_object_set(out, "block", st->block);
	json_object_set_new(out, "net", net_of(e ? e->vm : NULL, a->net));
	json_array_append_new(a->vms, out);
}

static void reply(struct stats *s, struct http_request *req)
{
	const struct sock_peer *peer = http_peer(req);
	struct answer a = {.peer = peer, .vms = json_array()};
	AUTO_JSON json_t *out = json_object();

	(void)file_read("/proc/self/net/dev", NET_MAX, &a.net, NULL, NULL, NULL);
	a.all = auth_may_look(peer, s->d->has_reader ? s->d->reader : (uid_t)-1);
	guests_each(s->d, put_vm, &a);
	free(a.net);
	json_object_set_new(out, "vms", a.vms);
	http_reply_json(req, 200, out);
}

static void sample_end(struct stats *s)
{
	struct waiter *w;

	s->sampling = false;
	timer_stop(s->timer);
	while ((w = s->waiters) != NULL) {
		s->waiters = w->next;
		if (w->req)
			reply(s, w->req);
		free(w);
	}
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *ctx)
{
	sample_end(ctx);
	return 0;
}

static void on_gone(struct http_request *req, void *ctx)
{
	((struct waiter *)ctx)->req = NULL;
}

void handle_stats(struct http_request *req, void *ctx)
{
	struct vmadmd *d = ctx;
	struct stats *s = d->stats;
	struct waiter *w = xcalloc(1, sizeof(*w));

	if (!s) {
		s = d->stats = xcalloc(1, sizeof(*s));
		s->d = d;
		(void)sd_event_add_defer(d->event, &s->ended, on_all_answered, s);
		(void)sd_event_source_set_enabled(s->ended, SD_EVENT_OFF);
	}
	*w = (struct waiter){s, req, s->waiters};
	s->waiters = w;
	http_on_gone(req, on_gone, w);
	if (s->sampling)
		return;
	s->sampling = true;
	s->missing = 0;
	s->round++;
	guests_each(d, ask, s);
	if (s->missing == 0)
		(void)sd_event_source_set_enabled(s->ended, SD_EVENT_ONESHOT);
	else
		(void)timer_set(d->event, &s->timer, SAMPLE_MS, on_deadline, s);
}

void stats_free(struct vmadmd *d)
{
	struct stats *s = d->stats;
	struct waiter *w;

	if (!s)
		return;
	while ((w = s->waiters) != NULL) {
		s->waiters = w->next;
		free(w);
	}
	sd_event_source_disable_unref(s->timer);
	sd_event_source_disable_unref(s->ended);
	free(s);
	d->stats = NULL;
}
