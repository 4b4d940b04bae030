/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every daemon's main() shares: options, the lock and pid file, the event loop with its
 * signals, telling the caller the truth about the start.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/log.h"
#include "base/paths.h"

struct err;

struct daemon_options {
	const char *program;
	struct paths paths;
	bool foreground;
	enum log_level level;
	enum log_format format;
};

/* A row per option of a program beside the common ones. */
struct daemon_flag {
	char letter;          /* 'c', or 0 for a long option only */
	const char *name;     /* "check" */
	const char *argument; /* "DIR" in the usage text, NULL for a flag */
	int (*set)(void *ctx, const char *value, struct err *err);
	const char *doc;
};

/*
 * Parse argv: -h, -f, -v, --root DIR, --log text|json, --version and the program's rows. Returns
 * 1 to go on; 0 after -h or --version (printed, exit 0); -EINVAL after a usage error was printed
 * on stderr (exit EXIT_USAGE).
 */
int daemon_options(struct daemon_options *o, int argc, char **argv, const struct daemon_flag *flags,
		   size_t nflags, void *ctx);
void daemon_options_done(struct daemon_options *o);

/*
 * Detach unless o->foreground: the calling process stays until daemon_ready() or the child's
 * end and exits with its result, its message on stderr. Call before anything is opened.
 */
int daemon_detach(const struct daemon_options *o, struct err *err);

/*
 * Take the daemon's lock, path + content "PID\n". -EALREADY with "PROGRAM is already running
 * (pid N, FILE)" when another process holds it; a stale file is no obstacle. The lock lives as
 * long as *ret_fd.
 */
int daemon_lock(const char *program, const char *path, int *ret_fd, struct err *err);

/*
 * The default loop: SIGPIPE ignored; SIGTERM and SIGINT end it; SIGHUP calls reload (may be
 * NULL); SIGCHLD blocked for pidfds; descriptors limit raised; watchdog when systemd asks.
 */
int daemon_loop(sd_event **ret_event, void (*reload)(void *ctx), void *ctx, struct err *err);

/*
 * Come before others for a core, where we may and nobody chose a place for us: who watches guests
 * must not wait behind them. By the nice value, and by that of our session's autogroup if we lead
 * the session. Programs started by child_start() do not inherit it.
 */
void daemon_ahead(void);

/* Tell systemd (NOTIFY_SOCKET) and the waiting parent that we serve. */
void daemon_ready(void);

#define DAEMON_SOCKETS_MAX 16 /* of systemd's that we look at */

/*
 * The socket at path that systemd listens on for us (LISTEN_FDS), else our own by sock_listen().
 * *ret_own: whether the file is ours to remove at the end.
 */
int daemon_listen(const char *path, mode_t mode, int *ret_fd, bool *ret_own, struct err *err);

/* A TCP socket of systemd's, whatever its address and port, else sock_listen_tcp(). */
int daemon_listen_tcp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port,
		      struct err *err);

/* (Re)arm a one-shot timer, also for another handler; may be called in one. Accuracy 1 ms. */
int timer_set(sd_event *event, sd_event_source **source, uint64_t delay_ms,
	      sd_event_time_handler_t fn, void *ctx);
void timer_stop(sd_event_source *source);
