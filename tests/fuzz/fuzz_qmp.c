/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what QEMU says. The first byte chooses how long the pieces are and whether the
 * owner frees the client inside a callback; the rest goes through a socket to the client with
 * three commands out, one with a descriptor, and line by line through the parser alone. Every
 * command completes at most once, nothing is called after the end.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "qemu/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define COMMANDS 3

struct owner {
	struct qmp *q;
	bool free_in_event, free_in_done, closed;
	int ready, done[COMMANDS];
};

struct command {
	struct owner *owner;
	int i;
};

/* A broken promise, told before the abort that the fuzzer catches. */
static void require(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "broken: %s\n", what);
	abort();
}

static void on_ready(void *ctx, struct qmp *q)
{
	struct owner *o = ctx;

	require(++o->ready == 1 && !o->closed, "ready once");
}

static void on_event(void *ctx, struct qmp *q, const char *name, const json_t *data,
		     int64_t wall_ms)
{
	struct owner *o = ctx;

	require(o->q && !o->closed && name && wall_ms >= 0, "event");
	require(!data || json_is_object(data), "event data");
	if (o->free_in_event)
		qmp_free(steal_ptr(o->q));
}

static void on_closed(void *ctx, struct qmp *q, int r, const struct err *err)
{
	struct owner *o = ctx;

	require(!o->closed && r < 0 && err->code == -r && err->msg[0], "closed");
	o->closed = true;
}

static void on_done(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct command *c = ctx;

	require(++c->owner->done[c->i] == 1, "completed once");
	require((r == 0) == (value != NULL), "value");
	require(r == 0 || err->msg[0], "reason");
	if (c->owner->free_in_done)
		qmp_free(steal_ptr(c->owner->q));
}

static void parse_lines(const char *text, size_t size)
{
	while (size > 0) {
		const char *nl = memchr(text, '\n', size);
		size_t len = nl ? (size_t)(nl - text) : size;
		struct qmp_message m = {0};
		struct err err = {0};

		if (qmp_parse(text, len, &m, &err) == 0)
			require(m.body || m.kind == QMP_EVENT, "a body");
		else
			require(err.msg[0] && !m.root, "a reason");
		qmp_message_done(&m);
		len += nl ? 1 : 0;
		text += len;
		size -= len;
	}
}

static void feed(struct owner *o, int peer, const uint8_t *data, size_t size, size_t step)
{
	while (size > 0 && o->q && !o->closed) {
		size_t n = size < step ? size : step;
		ssize_t sent = send(peer, data, n, MSG_NOSIGNAL);

		require(sent > 0, "the socket is empty again");
		data += sent;
		size -= (size_t)sent;
		qmp_drain(o->q);
	}
}

static void through_client(const uint8_t *data, size_t size, uint8_t how)
{
	struct owner o = {.free_in_event = how & 0x80, .free_in_done = how & 0x40};
	struct qmp_config config = {on_ready, on_event, on_closed, &o};
	struct command commands[COMMANDS];
	size_t step = (how & 0x3f) == 0x3f ? 65536 : (size_t)(how & 0x3f) + 1;
	sd_event *event = NULL;
	int fds[2];

	require(sd_event_new(&event) >= 0, "a loop");
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0,
		"a socket");
	require(qmp_open_fd(event, fds[0], &config, &o.q, NULL) == 0, "a client");
	for (int i = 0; i < COMMANDS; i++) {
		commands[i] = (struct command){&o, i};
		require(qmp_send(o.q, "getfd", NULL, i == 1 ? fds[1] : -1, 60000, on_done,
				 &commands[i]) == 0,
			"queued");
	}
	feed(&o, fds[1], data, size, step);
	(void)shutdown(fds[1], SHUT_RDWR);
	(void)close(fds[1]);
	if (o.q)
		qmp_drain(o.q);
	require(!o.q || o.closed, "the end is told");
	for (int i = 0; i < COMMANDS && o.q; i++)
		require(o.done[i] == 1, "everybody is told");
	qmp_free(o.q);
	sd_event_unref(event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	parse_lines((const char *)data + 1, size - 1);
	through_client(data + 1, size - 1, data[0]);
	return 0;
}
