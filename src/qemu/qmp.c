/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QMP client. Order of events: greeting, our qmp_capabilities (id 0), its answer = ready, then
 * commands and their answers by id, events in between, end. One timer carries the nearest
 * deadline; it is armed only while something has one. Callbacks may free the client: it is then
 * emptied at once and its memory goes when the outermost of our functions leaves.
 */
#include "qemu/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"

#define READ_STEP (64u << 10) /* bytes per read, and per wake-up: others get their turn */
#define NEVER     UINT64_MAX

enum state { GREETING, NEGOTIATING, READY, CLOSED };

struct command {
	json_int_t id;
	char *text;
	size_t len, sent;
	int fd;    /* owned copy, -1 */
	bool over; /* timed out half sent: the rest still has to go out */
	uint64_t since_us, deadline_us;
	qmp_done done;
	void *ctx;
};

struct qmp {
	sd_event *event;
	sd_event_source *io, *timer;
	int fd;
	enum state state;
	bool broken;   /* writing failed: read what is left, then it is over */
	bool waiting;  /* EPOLLOUT is on */
	bool held;     /* EPOLLIN is off */
	unsigned busy; /* our functions on the stack that may call back */
	bool dead;     /* freed meanwhile */
	bool reading;  /* lines are being handled: no reading inside, order would suffer */
	uint64_t greeting_us;
	json_int_t next_id;
	json_int_t fd_id; /* command with a descriptor still unanswered, -1: none */
	struct command *queue[QMP_QUEUE_MAX + 1]; /* in order of sending; one for negotiation */
	size_t count;
	struct strbuf in;
	size_t scanned; /* bytes of in known to hold no line end */
	struct qmp_config config;
};

static void command_free(struct command *c)
{
	if (c->fd >= 0)
		(void)close(c->fd);
	free(c->text);
	free(c);
}

static struct command *take(struct qmp *q, size_t i)
{
	struct command *c = q->queue[i];

	q->count--;
	memmove(&q->queue[i], &q->queue[i + 1], (q->count - i) * sizeof(q->queue[0]));
	return c;
}

/* Everything but the memory of q itself. */
static void shut(struct qmp *q)
{
	q->state = CLOSED;
	q->io = sd_event_source_disable_unref(q->io);
	q->timer = sd_event_source_disable_unref(q->timer);
	q->event = sd_event_unref(q->event);
	if (q->fd >= 0)
		(void)close(steal_fd(&q->fd));
	strbuf_done(&q->in);
	q->scanned = 0;
}

/* Around everything that may call back; leave() says whether q is gone. */
static void enter(struct qmp *q)
{
	q->busy++;
}

static bool leave(struct qmp *q)
{
	bool dead = q->dead;

	if (--q->busy == 0 && dead)
		free(q);
	return dead;
}

void qmp_free(struct qmp *q)
{
	if (!q || q->dead)
		return;
	while (q->count > 0)
		command_free(take(q, q->count - 1));
	shut(q);
	q->dead = true;
	if (q->busy == 0)
		free(q);
}

/* --- deadlines --- */

static uint64_t next_deadline(const struct qmp *q)
{
	uint64_t next = q->state == GREETING || q->state == NEGOTIATING ? q->greeting_us : NEVER;

	for (size_t i = 0; i < q->count; i++)
		if (!q->queue[i]->over && q->queue[i]->deadline_us < next)
			next = q->queue[i]->deadline_us;
	return next;
}

static void arm(struct qmp *q)
{
	uint64_t next = next_deadline(q);

	if (!q->timer)
		return;
	if (next == NEVER) {
		(void)sd_event_source_set_enabled(q->timer, SD_EVENT_OFF);
		return;
	}
	(void)sd_event_source_set_time(q->timer, next);
	(void)sd_event_source_set_enabled(q->timer, SD_EVENT_ONESHOT);
}

/* --- the end --- */

/* Complete everybody, then tell the owner. Callers stand between enter and leave. */
static void finish(struct qmp *q, int r, const struct err *err)
{
	struct err lost;

	if (q->state == CLOSED)
		return;
	shut(q);
	(void)err_set(&lost, ECONNRESET, "the connection to QEMU ended: %s", err_text(err, r));
	while (!q->dead && q->count > 0) {
		struct command *c = take(q, 0);

		if (c->done && !c->over)
			c->done(c->ctx, -ECONNRESET, NULL, &lost);
		command_free(c);
	}
	if (!q->dead && q->config.closed)
		q->config.closed(q->config.ctx, q, r, err);
}

/* --- writing --- */

/* The descriptor goes with the first byte, so that a full socket cannot cut between the two. */
static int write_some(struct qmp *q, struct command *c)
{
	ssize_t n;
	int r;

	if (c->fd >= 0 && c->sent == 0) {
		r = sock_send_fds(q->fd, c->text, 1, &c->fd, 1);
		if (r < 0)
			return r;
		c->sent = 1;
		q->fd_id = c->id;
		(void)close(steal_fd(&c->fd));
	}
	while (c->sent < c->len) {
		n = send(q->fd, c->text + c->sent, c->len - c->sent, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			c->sent += (size_t)n;
	}
	return 0;
}

static void want(struct qmp *q, bool write, bool held)
{
	if (q->waiting == write && q->held == held)
		return;
	q->waiting = write;
	q->held = held;
	(void)sd_event_source_set_io_events(q->io, (held ? 0u : (unsigned)EPOLLIN) |
							   (write ? (unsigned)EPOLLOUT : 0u));
}

void qmp_hold(struct qmp *q)
{
	if (q->state != CLOSED)
		want(q, q->waiting, true);
}

void qmp_unhold(struct qmp *q)
{
	if (q->state != CLOSED)
		want(q, q->waiting, false);
}

/*
 * QEMU keeps one set of received descriptors and a second arrival closes the first unless its
 * command was already carried out; so such commands wait for the answer to the one before.
 */
static bool may_send(const struct qmp *q, const struct command *c)
{
	if (c->id != 0 && q->state != READY)
		return false;
	return c->fd < 0 || c->sent > 0 || q->fd_id < 0;
}

/* Never calls back: a failed write only means that reading will find the end. */
static void flush(struct qmp *q)
{
	size_t i = 0;
	int r = 0;

	while (i < q->count && r == 0 && !q->broken) {
		struct command *c = q->queue[i];

		if (c->sent == c->len) {
			i++;
			continue;
		}
		if (!may_send(q, c))
			break;
		r = write_some(q, c);
		if (r == 0 && c->over)
			command_free(take(q, i));
	}
	if (r < 0 && r != -EAGAIN)
		q->broken = true;
	want(q, r == -EAGAIN, q->held);
}

static void enqueue(struct qmp *q, const char *command, const json_t *arguments, struct command *c)
{
	AUTO_JSON json_t *root = json_object();
	char *text;

	json_put_str(root, "execute", command);
	if (arguments)
		(void)json_object_set_new(root, "arguments", json_deep_copy(arguments));
	json_put_int(root, "id", c->id);
	text = json_text(root);
	c->text = xasprintf("%s\n", text);
	c->len = strlen(c->text);
	free(text);
	q->queue[q->count++] = c;
}

int qmp_send(struct qmp *q, const char *command, const json_t *arguments, int fd,
	     uint64_t timeout_ms, qmp_done done, void *ctx)
{
	struct command *c;
	int copy = -1;

	if (q->dead || q->state == CLOSED)
		return -ENOTCONN;
	if (q->count >= QMP_QUEUE_MAX)
		return -ENOBUFS;
	if (fd >= 0 && (copy = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0)
		return -errno;
	c = xcalloc(1, sizeof(*c));
	c->id = q->next_id++;
	c->fd = copy;
	c->since_us = clock_us();
	c->deadline_us = timeout_ms < (NEVER - c->since_us) / 1000 - 1
				 ? c->since_us + timeout_ms * 1000
				 : NEVER - 1;
	c->done = done;
	c->ctx = ctx;
	qmp_unhold(q);
	enqueue(q, command, arguments, c);
	flush(q);
	arm(q);
	return 0;
}

/* Ahead of what was queued before the greeting. */
static void negotiate(struct qmp *q)
{
	struct command *c = xcalloc(1, sizeof(*c));

	c->fd = -1;
	c->since_us = clock_us();
	c->deadline_us = NEVER; /* the greeting's deadline holds until ready */
	q->state = NEGOTIATING;
	enqueue(q, "qmp_capabilities", NULL, c);
	memmove(&q->queue[1], &q->queue[0], (q->count - 1) * sizeof(q->queue[0]));
	q->queue[0] = c;
	flush(q);
}

/* --- reading --- */

static void on_negotiated(struct qmp *q, const struct qmp_message *m)
{
	struct err err;

	if (m->kind == QMP_ERROR) {
		(void)err_set(&err, EPROTO, "QEMU refused the negotiation: %s",
			      json_get_str(m->body, "desc", "no reason given"));
		finish(q, -EPROTO, &err);
		return;
	}
	q->state = READY;
	flush(q);
	arm(q);
	if (q->config.ready)
		q->config.ready(q->config.ctx, q);
}

/* An answer nobody waits for is a late one: its caller was told -ETIMEDOUT. */
static void on_answer(struct qmp *q, const struct qmp_message *m)
{
	struct command *c = NULL;
	struct err err = {0};
	int r = 0;

	for (size_t i = 0; i < q->count && !c; i++)
		if (q->queue[i]->id == m->id && q->queue[i]->sent == q->queue[i]->len)
			c = take(q, i);
	if (m->id >= 0 && m->id == q->fd_id) {
		q->fd_id = -1;
		flush(q);
	}
	if (!c)
		return;
	arm(q);
	if (c->id == 0) {
		on_negotiated(q, m);
	} else if (c->done) {
		if (m->kind == QMP_ERROR)
			r = err_set(&err, EREMOTEIO, "%s: %s", m->name,
				    json_get_str(m->body, "desc", "no reason given"));
		c->done(c->ctx, r, r < 0 ? NULL : m->body, &err);
	}
	command_free(c);
}

static int dispatch(struct qmp *q, const struct qmp_message *m, struct err *err)
{
	if ((m->kind == QMP_GREETING) != (q->state == GREETING))
		return err_set(err, EPROTO, "QEMU %s",
			       m->kind == QMP_GREETING ? "greeted twice"
						       : "spoke before its greeting");
	switch (m->kind) {
	case QMP_GREETING:
		negotiate(q);
		break;
	case QMP_RETURN:
	case QMP_ERROR:
		on_answer(q, m);
		break;
	case QMP_EVENT:
		if (q->config.event)
			q->config.event(q->config.ctx, q, m->name, m->body, m->wall_ms);
		break;
	}
	return 0;
}

static int take_line(struct qmp *q, const char *line, size_t len, struct err *err)
{
	struct qmp_message m;
	int r;

	while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == ' '))
		len--;
	if (len == 0)
		return 0;
	r = qmp_parse(line, len, &m, err);
	if (r < 0)
		return r;
	r = dispatch(q, &m, err);
	qmp_message_done(&m);
	return r;
}

/*
 * All complete lines in the buffer, which is taken out of q meanwhile, since callbacks may free q;
 * what is left is put back.
 */
static int take_lines(struct qmp *q, struct err *err)
{
	AUTO_STRBUF struct strbuf in = q->in;
	size_t start = 0, from = q->scanned;
	int r = 0;

	q->in = (struct strbuf){0};
	q->scanned = 0;
	while (r == 0 && q->state != CLOSED) {
		char *end = memchr(in.data + from, '\n', in.len - from);

		if (!end)
			break;
		r = take_line(q, in.data + start, (size_t)(end - (in.data + start)), err);
		start = from = (size_t)(end - in.data) + 1;
	}
	if (r < 0 || q->state == CLOSED)
		return r;
	strbuf_drop(&in, start);
	if (in.len > QMP_LINE_MAX)
		return err_set(err, EPROTO, "a line from QEMU is longer than %u bytes",
			       QMP_LINE_MAX);
	if (in.len == 0)
		return 0; /* given back: with hundreds of guests it would be most of the heap */
	q->in = in;
	in = (struct strbuf){0};
	q->scanned = q->in.len;
	return 0;
}

/* 1: more may be there; 0: nothing now, or it is over. */
static int read_some(struct qmp *q)
{
	struct err err = {0};
	ssize_t n;
	int r;

	strbuf_reserve(&q->in, READ_STEP);
	n = recv(q->fd, q->in.data + q->in.len, READ_STEP, 0);
	if (n < 0 && errno == EINTR)
		return 1;
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0) {
		r = n < 0 && errno != ECONNRESET
			    ? err_sys(&err, errno, "cannot read from QEMU")
			    : err_set(&err, ECONNRESET, "QEMU closed the connection");
		finish(q, -ECONNRESET, &err);
		return 0;
	}
	q->in.len += (size_t)n;
	q->in.data[q->in.len] = '\0';
	q->reading = true;
	r = take_lines(q, &err);
	q->reading = false;
	if (r < 0)
		finish(q, r, &err);
	return q->state != CLOSED;
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *ctx)
{
	struct qmp *q = ctx;

	enter(q);
	if (revents & EPOLLOUT)
		flush(q);
	if (revents & ~(uint32_t)EPOLLOUT)
		(void)read_some(q);
	(void)leave(q);
	return 0;
}

void qmp_drain(struct qmp *q)
{
	unsigned left = QMP_LINE_MAX / READ_STEP * 4; /* a peer that writes on cannot hold us */

	if (q->dead || q->state == CLOSED || q->reading)
		return;
	enter(q);
	while (left-- > 0 && q->state != CLOSED && read_some(q) > 0)
		;
	(void)leave(q);
}

static void expire(struct qmp *q, size_t i)
{
	struct command *c = q->queue[i];
	qmp_done done = c->done;
	void *ctx = c->ctx;
	struct err err;

	(void)err_set(&err, ETIMEDOUT, "QEMU did not answer within %llu ms",
		      (unsigned long long)((c->deadline_us - c->since_us) / 1000));
	if (c->sent > 0 && c->sent < c->len) {
		c->over = true;
		c->done = NULL;
	} else {
		command_free(take(q, i));
	}
	if (done)
		done(ctx, -ETIMEDOUT, NULL, &err);
}

static bool expire_one(struct qmp *q, uint64_t now)
{
	for (size_t i = 0; i < q->count; i++) {
		if (q->queue[i]->over || q->queue[i]->deadline_us > now)
			continue;
		expire(q, i);
		return true;
	}
	return false;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *ctx)
{
	struct qmp *q = ctx;
	uint64_t now = clock_us();
	struct err err;

	enter(q);
	while (!q->dead && expire_one(q, now))
		;
	if ((q->state == GREETING || q->state == NEGOTIATING) && q->greeting_us <= now) {
		(void)err_set(&err, ETIMEDOUT,
			      q->state == GREETING
				      ? "no greeting within %u ms: another client holds the "
					"monitor, or QEMU hangs"
				      : "no answer to the negotiation within %u ms",
			      QMP_GREETING_MS);
		finish(q, -ETIMEDOUT, &err);
	}
	if (q->state != CLOSED) {
		flush(q); /* what waited behind an expired one */
		arm(q);
	}
	(void)leave(q);
	return 0;
}

/* --- opening --- */

static int add_sources(struct qmp *q)
{
	int r = sd_event_add_io(q->event, &q->io, q->fd, EPOLLIN, on_io, q);

	if (r >= 0)
		r = sd_event_add_time(q->event, &q->timer, CLOCK_BOOTTIME, q->greeting_us, 1000,
				      on_timer, q);
	return r;
}

int qmp_open_fd(sd_event *event, int fd, const struct qmp_config *config, struct qmp **ret,
		struct err *err)
{
	struct qmp *q = xcalloc(1, sizeof(*q));
	int r;

	q->fd = fd;
	q->event = sd_event_ref(event);
	q->config = *config;
	q->next_id = 1;
	q->fd_id = -1;
	q->greeting_us = clock_us() + QMP_GREETING_MS * 1000ull;
	r = add_sources(q);
	if (r < 0) {
		qmp_free(q);
		return err_sys(err, -r, "cannot watch the monitor");
	}
	*ret = q;
	return 0;
}

int qmp_open(sd_event *event, const char *path, const struct qmp_config *config, struct qmp **ret,
	     struct err *err)
{
	int fd, r = sock_connect(path, &fd, err);

	return r < 0 ? r : qmp_open_fd(event, fd, config, ret, err);
}

bool qmp_is_ready(const struct qmp *q)
{
	return q->state == READY;
}

size_t qmp_pending(const struct qmp *q, uint64_t *ret_since_ms)
{
	uint64_t oldest = NEVER;
	size_t n = 0;

	for (size_t i = 0; i < q->count; i++) {
		if (q->queue[i]->over || q->queue[i]->id == 0)
			continue;
		n++;
		if (q->queue[i]->since_us < oldest)
			oldest = q->queue[i]->since_us;
	}
	if (ret_since_ms)
		*ret_since_ms = n > 0 ? oldest / 1000 : 0;
	return n;
}
