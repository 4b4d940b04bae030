/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadmd's monitor of each running VM: one connection to vm.qmp, opened and closed as vmstated's
 * facts say. Commands with an answer each, and QEMU's events for who watches.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct err;
struct guest;

/* Open, replace or close it as the facts say. */
void monitor_update(struct guest *g);
void monitor_close(struct guest *g);
bool monitor_ready(const struct guest *g);

/* As qmp_done, and -ECONNRESET when the monitor is closed by us: done always runs, once. */
typedef void (*monitor_done)(void *ctx, int r, const json_t *value, const struct err *err);
/*
 * Send a command, connecting first when there is no connection. arguments are borrowed; fd is
 * passed along (-1: none) and may be closed in done. A negative return means done will not run.
 */
int monitor_send(struct guest *g, const char *command, const json_t *arguments, int fd,
		 monitor_done done, void *ctx, struct err *err);

/* The same with a limit of its own, for what takes longer than QMP_ANSWER_MS. */
struct monitor_order {
	const char *command;
	const json_t *arguments;
	int fd;
	uint64_t timeout_ms;
};
int monitor_ask(struct guest *g, const struct monitor_order *order, monitor_done done, void *ctx,
		struct err *err);

/*
 * Events of the monitor, from now until monitor_unwatch, which may be called inside event. name:
 * QEMU's; MONITOR_READY: it was opened (again), so that events may have been missed;
 * MONITOR_GONE: the VM stopped running.
 */
#define MONITOR_READY "ready"
#define MONITOR_GONE  "gone"
struct monitor_watch {
	void (*event)(void *ctx, const char *name, const json_t *data);
	void *ctx;
	struct monitor_watch *next;
};
void monitor_watch(struct guest *g, struct monitor_watch *w);
void monitor_unwatch(struct guest *g, struct monitor_watch *w);
