/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest agent's channel: connection, the first number, commands one after the other; see
 * agent.h. Bytes from the guest are anything: only lines of JSON count, of bounded length, and
 * only while somebody waits for one.
 */
#include "vmadmd/guest/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/names.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "daemon/daemon.h"
#include "store/catalog.h"
#include "vmadmd/guest/agent_private.h"
#include "vmadmd/vmadmd.h"

#define AGENT_CHARDEV "agent" /* names in QEMU's arguments */
#define AGENT_DEVICE  "agent0"
#define RETRY_MS      1000u  /* a lost channel */
#define SILENT_MS     10000u /* between two questions to an agent that does not answer */
#define READ_MAX      65536u
#define RESET         "\xff" /* the agent forgets half a line; before the number it comes back */

static const char *const state_names[] = {
	[AGENT_DOWN] = "down",
	[AGENT_SYNCING] = "up",
	[AGENT_UP] = "up",
	[AGENT_SILENT] = "silent",
};

bool agent_answers(const struct guest *g)
{
	return g && g->agent && g->agent->state == AGENT_UP;
}

void agent_facts(const struct guest *g, json_t *facts)
{
	const struct agent *a = g->agent;
	char since[ISO_TIME_LEN];
	json_t *out;

	if (!a || !a->told)
		return;
	out = json_object();
	json_put_str(out, "state", state_names[a->state]);
	json_put_str(out, "since", clock_iso(a->since_ms, since, sizeof(since)));
	if (a->frozen)
		json_put_bool(out, "frozen", true);
	agent_put_addresses(a, facts, out);
	(void)json_object_set_new(facts, FACT_AGENT, out);
}

/* --- states --- */

static void enter(struct agent *a, enum agent_state state)
{
	bool differs = !str_eq(state_names[a->state], state_names[state]) ||
		       (!a->told && state == AGENT_UP);

	a->state = state;
	if (state == AGENT_UP || state == AGENT_SILENT)
		a->told = true;
	if (!differs || !a->told)
		return;
	a->since_ms = clock_wall_ms();
	log_info("vm=%s guest agent %s", a->g->uuid, state_names[state]);
	(void)guest_publish(a->g);
}

static void request_end(struct agent *a, int r, const json_t *value, const struct err *err)
{
	struct agent_request *q = a->queue;

	a->queue = q->next;
	a->queued--;
	a->busy = false;
	timer_stop(a->deadline);
	q->done(q->ctx, r, value, err);
	free(q->line);
	free(q);
}

/* Whoever waits hears of it; what they ask for meanwhile is refused by the state. */
static void fail_all(struct agent *a, int r, const char *why)
{
	struct err err = {0};

	(void)err_set(&err, -r, "the guest agent of VM %s %s", a->g->uuid, why);
	for (size_t n = a->queued; n > 0 && a->queue; n--)
		request_end(a, r, NULL, &err);
}

/* --- out --- */

/* A channel that broke is told by its next event: nobody's answer comes from in here. */
static void flush(struct agent *a)
{
	ssize_t n = 0;

	if (a->fd < 0)
		return;
	if (a->out.len > 0)
		n = send(a->fd, a->out.data, a->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n > 0)
		strbuf_drop(&a->out, (size_t)n);
	(void)sd_event_source_set_io_events(a->source, EPOLLIN | (a->out.len ? EPOLLOUT : 0));
}

static int on_silence(sd_event_source *source, uint64_t usec, void *ctx);

static int on_sync(sd_event_source *source, uint64_t usec, void *ctx);

static void sync_begin(struct agent *a)
{
	uint32_t number;

	if (a->fd < 0 || getrandom(&number, sizeof(number), 0) != sizeof(number))
		return;
	a->number = number >> 1;
	strbuf_printf(&a->out,
		      RESET "{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%lld}}\n",
		      (long long)a->number);
	(void)timer_set(a->g->d->event, &a->deadline, AGENT_ANSWER_MS, on_silence, a);
	flush(a);
}

static void next_request(struct agent *a)
{
	if (a->state != AGENT_UP || a->busy || !a->queue)
		return;
	a->busy = true;
	strbuf_puts(&a->out, a->queue->line);
	(void)timer_set(a->g->d->event, &a->deadline, a->queue->timeout_ms, on_silence, a);
	flush(a);
}

/* No answer in time: of a command, or to the number. What comes late is thrown away. */
static int on_silence(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct agent *a = ctx;
	struct guest *g = a->g;
	struct err err = {0};

	if (a->state == AGENT_UP) {
		a->state = AGENT_SYNCING;
		sync_begin(a);
		(void)err_set(&err, ETIMEDOUT,
			      "the guest agent of VM %s did not answer within %llu s", g->uuid,
			      (unsigned long long)a->queue->timeout_ms / 1000);
		request_end(a, -ETIMEDOUT, NULL, &err);
		(void)timer_set(g->d->event, &a->deadline, AGENT_ANSWER_MS, on_silence, a);
		return 0;
	}
	enter(a, AGENT_SILENT);
	(void)timer_set(g->d->event, &a->retry, SILENT_MS, on_sync, a);
	fail_all(a, -ETIMEDOUT, "does not answer");
	return 0;
}

static int on_sync(sd_event_source *source, uint64_t usec, void *ctx)
{
	sync_begin(ctx);
	return 0;
}

/* --- in --- */

static void on_number(struct agent *a, const json_t *answer)
{
	const json_t *number = json_object_get(answer, "return");

	if (!json_is_integer(number) || json_integer_value(number) != a->number)
		return;
	timer_stop(a->deadline);
	timer_stop(a->retry);
	enter(a, AGENT_UP);
	agent_came(a);
	next_request(a);
}

static void on_answer(struct agent *a, const json_t *answer)
{
	const json_t *value = json_object_get(answer, "return");
	const json_t *error = json_object_get(answer, "error");
	struct err err = {0};

	if (!a->busy || (!value && !error))
		return;
	if (error)
		(void)err_set(&err, EREMOTEIO, "the guest agent says: %.400s",
			      json_get_str(error, "desc", "error"));
	request_end(a, error ? -EREMOTEIO : 0, value, &err);
	next_request(a);
}

static void on_line(struct agent *a, const char *text, size_t len)
{
	const char *mark = memrchr(text, RESET[0], len);
	json_t *answer;

	if (mark) { /* all before it is of earlier times */
		len -= (size_t)(mark + 1 - text);
		text = mark + 1;
	}
	answer = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(answer) && (a->state == AGENT_SYNCING || a->state == AGENT_SILENT))
		on_number(a, answer);
	else if (json_is_object(answer))
		on_answer(a, answer);
	json_decref(answer);
}

static void take_lines(struct agent *a)
{
	char *end;

	while (a->in.len > a->seen &&
	       (end = memchr(a->in.data + a->seen, '\n', a->in.len - a->seen)) != NULL) {
		size_t len = (size_t)(end - a->in.data);
		AUTO_FREE char *line = xstrndup(a->in.data, len);

		strbuf_drop(&a->in, len + 1);
		a->seen = 0;
		on_line(a, line, len);
	}
	a->seen = a->in.len;
	if (a->in.len == 0 && a->in.cap > READ_MAX)
		strbuf_done(&a->in);
}

static void lost(struct agent *a);

static int on_channel(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct agent *a = ctx;
	char buf[READ_MAX];
	ssize_t n;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			lost(a);
			return 0;
		}
		if (n > 0 && a->in.len + (size_t)n > AGENT_LINE_MAX) {
			log_warn("vm=%s guest agent: a line of more than %u bytes", a->g->uuid,
				 AGENT_LINE_MAX);
			strbuf_done(&a->in);
			a->seen = 0;
			n = 0;
		}
		if (n > 0) {
			strbuf_add(&a->in, buf, (size_t)n);
			take_lines(a);
		}
	}
	if (events & EPOLLOUT)
		flush(a);
	return 0;
}

/* --- open and closed, by QEMU's word --- */

static void opened(struct agent *a)
{
	if (a->state != AGENT_DOWN)
		return;
	a->state = AGENT_SYNCING;
	a->since_ms = clock_wall_ms();
	sync_begin(a);
}

static void closed(struct agent *a)
{
	timer_stop(a->deadline);
	timer_stop(a->retry);
	strbuf_done(&a->out);
	if (a->state == AGENT_DOWN)
		return;
	agent_left(a);
	enter(a, AGENT_DOWN);
	fail_all(a, -ECONNRESET, "has gone");
}

static void on_chardevs(void *ctx, int r, const json_t *value, const struct err *err)
{
	const struct guest *g = ctx;
	const json_t *one;
	size_t i;

	if (r < 0 || !g->agent)
		return;
	json_array_foreach (value, i, one) {
		if (!str_eq(json_get_str(one, "label", ""), AGENT_CHARDEV))
			continue;
		if (json_get_bool(one, "frontend-open", false))
			opened(g->agent);
		else
			closed(g->agent);
	}
}

static void on_event(void *ctx, const char *name, const json_t *data)
{
	struct agent *a = ctx;

	if (str_eq(name, MONITOR_READY))
		(void)monitor_send(a->g, "query-chardev", NULL, -1, on_chardevs, a->g, NULL);
	else if (!str_eq(name, "VSERPORT_CHANGE") ||
		 !str_eq(json_get_str(data, "id", ""), AGENT_DEVICE))
		return;
	else if (json_get_bool(data, "open", false))
		opened(a);
	else
		closed(a);
}

/* --- the connection --- */

static int connect_now(struct agent *a, struct err *err)
{
	AUTO_FREE char *path = path_of_run(a->g->d->paths, a->g->uuid, "vm.agent");
	AUTO_FD int fd = -1;
	int r = sock_connect(path, &fd, err);

	if (r == 0)
		r = sd_event_add_io(a->g->d->event, &a->source, fd, EPOLLIN, on_channel, a);
	if (r < 0)
		return r;
	a->fd = steal_fd(&fd);
	return 0;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct agent *a = ctx;
	struct err err = {0};

	if (connect_now(a, &err) < 0) {
		log_debug("vm=%s agent channel not reached: %s", a->g->uuid, err.msg);
		(void)timer_set(a->g->d->event, &a->retry, RETRY_MS, on_retry, a);
	} else {
		(void)monitor_send(a->g, "query-chardev", NULL, -1, on_chardevs, a->g, NULL);
	}
	return 0;
}

static void disconnect(struct agent *a)
{
	sd_event_source_disable_unref(a->source);
	a->source = NULL;
	if (a->fd >= 0)
		(void)close(a->fd);
	a->fd = -1;
	strbuf_done(&a->in);
	strbuf_done(&a->out);
	a->seen = 0;
}

/* QEMU ended, mostly; else it is there again soon. */
static void lost(struct agent *a)
{
	disconnect(a);
	closed(a);
	(void)timer_set(a->g->d->event, &a->retry, RETRY_MS, on_retry, a);
}

void agent_close(struct guest *g)
{
	struct agent *a = g->agent;

	if (!a)
		return;
	g->agent = NULL;
	monitor_unwatch(g, &a->watch);
	a->state = AGENT_DOWN;
	disconnect(a);
	agent_left(a);
	fail_all(a, -ECONNRESET, "has gone: the VM stopped running");
	sd_event_source_disable_unref(a->deadline);
	sd_event_source_disable_unref(a->retry);
	sd_event_source_disable_unref(a->thaw);
	sd_event_source_disable_unref(a->look);
	sd_event_source_disable_unref(a->shutdown);
	json_decref(a->addresses);
	free(a);
}

void agent_update(struct guest *g)
{
	bool runs = guest_runs(g);
	struct agent *a = g->agent;

	if (a && (!runs || a->pid != json_get_int(g->facts, FACT_PID, 0))) {
		bool told = a->told;

		agent_close(g);
		if (told && catalog_by_uuid(g->d->catalog, g->uuid))
			(void)guest_publish(g);
	}
	if (runs && !g->agent) {
		a = g->agent = xcalloc(1, sizeof(*a));
		a->g = g;
		a->fd = -1;
		a->pid = json_get_int(g->facts, FACT_PID, 0);
		a->watch = (struct monitor_watch){.event = on_event, .ctx = a};
		monitor_watch(g, &a->watch);
		(void)on_retry(NULL, 0, a);
	}
	if (g->agent)
		agent_judge(g->agent);
}

int agent_ask(struct guest *g, const char *command, const json_t *arguments, uint64_t timeout_ms,
	      monitor_done done, void *ctx, struct err *err)
{
	struct agent *a = g->agent;
	AUTO_JSON json_t *line = json_object();
	AUTO_FREE char *text = NULL;
	struct agent_request *q, **at;

	if (!a || a->state == AGENT_DOWN || a->state == AGENT_SILENT)
		return err_set(err, ENOTCONN,
			       a && a->state == AGENT_SILENT
				       ? "the guest agent of VM %s does not answer"
				       : "VM %s has no guest agent that runs: install "
					 "qemu-guest-agent in the guest",
			       g->uuid);
	if (a->queued >= AGENT_QUEUE_MAX)
		return err_set(err, EBUSY, "%zu commands wait for the guest agent of VM %s",
			       a->queued, g->uuid);
	json_put_str(line, "execute", command);
	if (arguments)
		(void)json_object_set(line, "arguments", (json_t *)(uintptr_t)arguments);
	text = json_text(line);
	q = xcalloc(1, sizeof(*q));
	*q = (struct agent_request){.line = xasprintf("%s\n", text),
				    .timeout_ms = timeout_ms,
				    .done = done,
				    .ctx = ctx};
	for (at = &a->queue; *at;)
		at = &(*at)->next;
	*at = q;
	a->queued++;
	next_request(a);
	return 0;
}
