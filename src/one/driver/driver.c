/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop; see driver.h. One thread and poll(2): this room may use neither the daemons' loop nor
 * libsystemd, and all there is to wait for are pipes, processes and one deadline. A turn reads
 * lines, starts what may start, moves what runs, and writes.
 */
#include "one/driver/driver.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "one/driver/driver_message.h"
#include "one/driver/driver_options.h"
#include "one/driver/driver_proc.h"
#include "one/driver/driver_queue.h"
#include "one/driver/driver_run.h"
#include "one/driver/driver_text.h"

#define READ_SIZE    (64u << 10)
#define HEAD_KEPT    256          /* of a line that is too long */
#define OUT_PATIENCE (256u << 10) /* bytes the core has not read: scripts have to wait */
#define POLL_MAX_MS  (3600 * 1000)
#define OWN_POLLS    2

struct driver {
	const struct driver_options *o;
	int in;
	struct out out;
	struct strbuf line; /* what was read and not yet used */
	size_t scanned;     /* of it without a newline */
	bool too_long;      /* the rest of the line is thrown away */
	bool finalize, ended;
	enum era era; /* of the last line that told */
	struct queue queue;
	struct run **runs;
	size_t run_count;
	struct graveyard graveyard;
	struct pollfd *fds;
	size_t fd_cap;
};

/* --- actions --- */

static bool host_is_busy(const struct driver *d, const char *host)
{
	for (size_t i = 0; i < d->run_count; i++)
		if (str_eq(run_host(d->runs[i]), host))
			return true;
	return false;
}

/* The first in the queue whose host has nothing to do, or SIZE_MAX. */
static size_t next_waiting(const struct driver *d)
{
	size_t count = queue_count(&d->queue);

	if (d->o->parallel)
		return count ? 0 : SIZE_MAX;
	for (size_t i = 0; i < count; i++)
		if (!host_is_busy(d, queue_at(&d->queue, i)->host))
			return i;
	return SIZE_MAX;
}

static void start_waiting(struct driver *d)
{
	while (d->run_count < d->o->threads) {
		size_t i = next_waiting(d);
		struct message m;

		if (i == SIZE_MAX)
			return;
		if (queue_take(&d->queue, i, &m) < 0) {
			out_result(&d->out, m.word, false, m.id,
				   "The driver could not read its queue back from disk");
			message_done(&m);
			continue;
		}
		d->runs[d->run_count++] = run_new(&m, d->o, &d->graveyard);
		message_done(&m);
	}
}

static void move_runs(struct driver *d, uint64_t now, uint64_t *next)
{
	size_t kept = 0;

	for (size_t i = 0; i < d->run_count; i++) {
		if (run_turn(d->runs[i], &d->out, now, next))
			run_free(d->runs[i]);
		else
			d->runs[kept++] = d->runs[i];
	}
	d->run_count = kept;
}

/* --- lines of the core --- */

static void refuse(struct driver *d, const struct message *m, const struct err *err)
{
	log_info("refused word=%s id=%ld: %s", m->word, m->id, err->msg);
	out_result(&d->out, m->word, false, m->id, err->msg);
}

static void cancel(struct driver *d, long id)
{
	AUTO_FREE char *text = xasprintf("Driver command for %ld cancelled", id);
	size_t kept = 0;

	for (size_t i = 0; i < d->run_count; i++) {
		if (run_id(d->runs[i]) == id)
			run_free(d->runs[i]);
		else
			d->runs[kept++] = d->runs[i];
	}
	d->run_count = kept;
	for (size_t i = queue_count(&d->queue); i; i--) {
		struct message m;

		if (queue_at(&d->queue, i - 1)->id != id)
			continue;
		(void)queue_take(&d->queue, i - 1, &m);
		message_done(&m);
	}
	out_log(&d->out, 'I', id, text);
}

/* What still waits is not started any more: nobody would learn what became of it. */
static void finalize(struct driver *d)
{
	struct message m;

	start_waiting(d);
	d->finalize = true;
	while (queue_count(&d->queue)) {
		(void)queue_take(&d->queue, 0, &m);
		out_result(&d->out, m.word, false, m.id,
			   "Not started: the driver was told to end while the action waited");
		message_done(&m);
	}
}

static void take_message(struct driver *d, struct message *m, const struct err *err)
{
	switch (m->kind) {
	case MESSAGE_INIT:
		strbuf_puts(&d->out.lines, "INIT SUCCESS\n");
		break;
	case MESSAGE_FINALIZE:
		finalize(d);
		break;
	case MESSAGE_CANCEL:
		cancel(d, m->id);
		break;
	case MESSAGE_ACTION:
		d->era = m->era;
		log_debug("accepted word=%s id=%ld host=%s", m->word, m->id, m->host);
		queue_push(&d->queue, m);
		break;
	case MESSAGE_REFUSED:
		d->era = m->era;
		refuse(d, m, err);
		break;
	case MESSAGE_NOISE:
		log_warn("ignored a line: %s", err->msg);
		break;
	}
	message_done(m);
}

static void take_line(struct driver *d, const char *line, size_t len)
{
	struct message m;
	struct err err = {0};

	if (len && line[len - 1] == '\r')
		len--;
	if (!len)
		return;
	message_read(line, len, &m, &err);
	take_message(d, &m, &err);
}

/* The line has no end within the bound: answer now, and forget the rest of it. */
static void take_long_line(struct driver *d)
{
	struct message m;
	struct err err = {0};

	message_read_long(d->line.data, HEAD_KEPT, LINE_MAX_BYTES, &m, &err);
	take_message(d, &m, &err);
	strbuf_done(&d->line);
	d->scanned = 0;
	d->too_long = true;
}

static void take_lines(struct driver *d)
{
	size_t start = 0;

	while (d->scanned < d->line.len && !d->finalize) {
		char *from = d->line.data + d->scanned;
		char *end = memchr(from, '\n', d->line.len - d->scanned);

		if (!end) {
			d->scanned = d->line.len;
			break;
		}
		if (!d->too_long)
			take_line(d, d->line.data + start, (size_t)(end - d->line.data) - start);
		d->too_long = false;
		start = d->scanned = (size_t)(end - d->line.data) + 1;
	}
	strbuf_drop(&d->line, d->too_long ? d->line.len : start);
	d->scanned = d->line.len;
	if (!d->line.len)
		strbuf_done(&d->line); /* one long line does not keep the memory */
	if (d->line.len > LINE_MAX_BYTES)
		take_long_line(d);
}

static void read_core(struct driver *d)
{
	ssize_t n;

	strbuf_reserve(&d->line, READ_SIZE);
	n = read(d->in, d->line.data + d->line.len, READ_SIZE);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		d->ended = true;
		return;
	}
	d->line.len += (size_t)n;
	d->line.data[d->line.len] = '\0';
	take_lines(d);
}

/* --- waiting --- */

static size_t fill_fds(struct driver *d)
{
	size_t want = OWN_POLLS + d->run_count * RUN_POLLS + d->graveyard.count * PROC_POLLS;
	size_t n = 0;

	if (want > d->fd_cap) {
		d->fds = xrealloc(d->fds, want * sizeof(*d->fds));
		d->fd_cap = want;
	}
	if (!d->finalize)
		d->fds[n++] = (struct pollfd){.fd = d->in, .events = POLLIN};
	if (d->out.lines.len)
		d->fds[n++] = (struct pollfd){.fd = d->out.fd, .events = POLLOUT};
	for (size_t i = 0; d->out.lines.len < OUT_PATIENCE && i < d->run_count; i++)
		n += run_polls(d->runs[i], d->fds + n);
	for (size_t i = 0; i < d->graveyard.count; i++)
		n += proc_polls(&d->graveyard.procs[i], d->fds + n);
	return n;
}

static void wait_for(struct driver *d, uint64_t now, uint64_t next)
{
	size_t n = fill_fds(d);
	int timeout = next == UINT64_MAX         ? -1
		      : next <= now              ? 0
		      : next - now > POLL_MAX_MS ? POLL_MAX_MS
						 : (int)(next - now);

	if (poll(d->fds, n, timeout) < 0 && errno != EINTR)
		log_error("cannot wait: %s", strerror(errno));
	if (!d->finalize && d->fds[0].revents)
		read_core(d);
}

/* Whether there is nothing left to do. */
static bool is_done(const struct driver *d)
{
	return d->ended || (d->finalize && !d->run_count && !d->out.lines.len);
}

int driver_run(const struct driver_options *o, int in, int out)
{
	struct driver d = {.o = o, .in = in, .out = {.fd = out}, .era = ERA_6};

	queue_init(&d.queue);
	d.runs = xcalloc(o->threads, sizeof(struct run *));
	while (!is_done(&d)) {
		uint64_t now = clock_ms(), next;

		next = graveyard_turn(&d.graveyard, now);
		start_waiting(&d);
		if (d.out.lines.len < OUT_PATIENCE)
			move_runs(&d, now, &next);
		if (queue_count(&d.queue) && next_waiting(&d) != SIZE_MAX &&
		    d.run_count < o->threads)
			next = now; /* a place became free */
		if (out_flush(&d.out) < 0)
			log_warn("nobody reads our answers");
		if (!is_done(&d))
			wait_for(&d, now, next);
	}
	for (size_t i = 0; i < d.run_count; i++)
		run_free(d.runs[i]);
	queue_done(&d.queue);
	free(d.runs);
	free(d.fds);
	graveyard_done(&d.graveyard);
	strbuf_done(&d.line);
	strbuf_done(&d.out.lines);
	return d.ended ? DRIVER_END : DRIVER_OK;
}
