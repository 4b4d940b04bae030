/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder: a third monitor on a pipe chardev. Its input FIFO is pre-filled with
 * qmp_capabilities, its output is a regular file, so QEMU writes down every event with no client
 * connected, and why a guest ended is known even when nobody was there.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

#define RECORDER_IN   "events.in"
#define RECORDER_OUT  "events.out"
#define RECORDER_KEEP (1u << 20) /* bytes kept of the file; older ones are punched out */

/*
 * Make FIFO and empty file in dir and pre-fill the FIFO. *ret_fd holds the FIFO open and must
 * stay so until QEMU has opened it (has answered a command).
 */
int recorder_prepare(const char *dir, mode_t mode, int *ret_fd, struct err *err);

/* What the file tells about the end of QEMU. */
struct recorder_end {
	bool shutdown; /* a SHUTDOWN was seen; the first counts */
	bool guest;
	char reason[40]; /* "guest-shutdown", "host-qmp-quit", ... */
	bool panicked;   /* GUEST_PANICKED before it */
	unsigned resets; /* RESET events */
	int64_t wall_ms; /* of the SHUTDOWN */
};
/* -ENOENT when there is no file. A last line cut in the middle is ignored. */
int recorder_read(const char *dir, struct recorder_end *ret, struct err *err);

/* Give the space of old events back (FALLOC_FL_PUNCH_HOLE); cheap, call now and then. */
void recorder_trim(const char *dir);
