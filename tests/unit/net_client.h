/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of src/net/: a temporary directory, a real loop, and plain sockets to talk to the
 * server under test in the same process. Everything has a deadline.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"

#define LIMIT_MS 5000

struct place {
	char dir[32];
	char *path;
	sd_event *event;
};

static inline void place_init(struct place *p)
{
	(void)snprintf(p->dir, sizeof(p->dir), "/tmp/net-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	p->path = path_join(p->dir, "x.sock");
	assert_int_equal(sd_event_new(&p->event), 0);
}

static inline void place_done(struct place *p)
{
	(void)sd_event_unref(p->event);
	(void)dir_remove_tree(p->dir, NULL);
	free(p->path);
}

/* Turn the loop once, waiting at most a moment. */
static inline void turn(struct place *p)
{
	assert_true(sd_event_run(p->event, 20000) >= 0);
}

/* Turn the loop until cond holds. */
#define UNTIL(p, cond)                                                                             \
	do {                                                                                       \
		uint64_t until_ = clock_ms() + LIMIT_MS;                                           \
		while (!(cond)) {                                                                  \
			assert_true(clock_ms() < until_);                                          \
			turn(p);                                                                   \
		}                                                                                  \
	} while (0)

static inline int dial(struct place *p)
{
	int fd;

	assert_int_equal(sock_connect(p->path, &fd, NULL), 0);
	return fd;
}

static inline void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Read what is there: false once the peer has closed. */
static inline bool hear(int fd, struct strbuf *sb)
{
	char buf[65536];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		strbuf_add(sb, buf, (size_t)n);
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* Loop until text has come on fd. */
static inline void await_text(struct place *p, int fd, struct strbuf *sb, const char *text)
{
	uint64_t until = clock_ms() + LIMIT_MS;

	for (;;) {
		bool open = hear(fd, sb);

		if (sb->data && memmem(sb->data, sb->len, text, strlen(text)))
			return;
		if (!open || clock_ms() > until) {
			print_message("# wanted '%s', have '%s'\n", text, sb->data ? sb->data : "");
			fail();
		}
		turn(p);
	}
}

/* Loop until the server has closed fd. */
static inline void await_close(struct place *p, int fd, struct strbuf *sb)
{
	uint64_t until = clock_ms() + LIMIT_MS;

	while (hear(fd, sb)) {
		assert_true(clock_ms() < until);
		turn(p);
	}
}

/* One whole exchange on a new connection that the server closes. */
static inline char *ask(struct place *p, const char *request)
{
	struct strbuf sb = {0};
	int fd = dial(p);

	say(fd, request);
	await_close(p, fd, &sb);
	(void)close(fd);
	return strbuf_steal(&sb);
}
