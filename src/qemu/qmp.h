/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP client on the caller's sd-event loop. Ids are matched, each command has a deadline, an
 * error reply completes its caller, a QEMU that does not answer harms nobody else.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct err;
struct qmp;

#define QMP_LINE_MAX    (16u << 20) /* bytes of one line from QEMU */
#define QMP_QUEUE_MAX   64          /* commands waiting for an answer */
#define QMP_GREETING_MS 10000u

struct qmp_config {
	/* Greeting seen and capabilities negotiated: commands are answered from here on. */
	void (*ready)(void *ctx, struct qmp *q);
	/* data may be NULL; wall_ms is QEMU's time stamp. */
	void (*event)(void *ctx, struct qmp *q, const char *name, const json_t *data,
		      int64_t wall_ms);
	/* Connection over: -ECONNRESET (QEMU closed it), -EPROTO (garbage), -ETIMEDOUT (no
	 * greeting; the monitor is busy with another client). Pending commands were completed
	 * with -ECONNRESET before. q may be freed inside. */
	void (*closed)(void *ctx, struct qmp *q, int r, const struct err *err);
	void *ctx;
};

/* Connect to the unix socket at path and negotiate. Nothing is called before this returns. */
int qmp_open(sd_event *event, const char *path, const struct qmp_config *config, struct qmp **ret,
	     struct err *err);
/* The same on a connected stream socket, which is the client's from now on, even on failure. */
int qmp_open_fd(sd_event *event, int fd, const struct qmp_config *config, struct qmp **ret,
		struct err *err);
/* Pending commands are dropped without a call. Allowed inside any callback. */
void qmp_free(struct qmp *q);

/*
 * r: 0 with QEMU's "return" (borrowed); -EREMOTEIO with the error's text in err (class first);
 * -ETIMEDOUT: no answer within the deadline (the connection stays, a late answer is dropped);
 * -ECONNRESET.
 */
typedef void (*qmp_done)(void *ctx, int r, const json_t *value, const struct err *err);

/*
 * Queue a command; sent as soon as ready, in order. The deadline runs from here. arguments are
 * borrowed, may be NULL. fd is passed along with it (getfd, add-fd; -1: none): copied, so that the
 * caller keeps and may close its own at once. done may be NULL and is never called before this
 * returns. -ENOBUFS: too many are waiting; -ENOTCONN: the connection is over; -EBADF: no such fd.
 */
int qmp_send(struct qmp *q, const char *command, const json_t *arguments, int fd,
	     uint64_t timeout_ms, qmp_done done, void *ctx);

/*
 * Leave what QEMU writes unread until qmp_unhold or the next qmp_send: answers of many guests then
 * cost one wake-up together. Its end is still told at once; qmp_drain reads all the same.
 */
void qmp_hold(struct qmp *q);
void qmp_unhold(struct qmp *q);

bool qmp_is_ready(const struct qmp *q);
/* Commands without an answer, and since when (clock_ms) the oldest waits; 0 when none. */
size_t qmp_pending(const struct qmp *q, uint64_t *ret_since_ms);

/*
 * Process everything QEMU has already written, without waiting: before a process that ended is
 * judged. Callbacks run; called inside an event, answer or ready callback it does nothing.
 */
void qmp_drain(struct qmp *q);

/* --- the line reader alone, for the fuzzer and the recorder's file --- */
enum qmp_kind { QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };
struct qmp_message {
	enum qmp_kind kind;
	json_t *root;       /* owned */
	const char *name;   /* event name or error class */
	const json_t *body; /* return value, event data or error object */
	json_int_t id;      /* -1: none or not a number */
	int64_t wall_ms;    /* of an event, 0 when QEMU does not know */
};
/* One line without its end. -EPROTO with the reason. */
int qmp_parse(const char *line, size_t len, struct qmp_message *ret, struct err *err);
void qmp_message_done(struct qmp_message *m);
