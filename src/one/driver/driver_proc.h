/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process with pipes for its standard streams, fed and read without ever waiting. The owner
 * polls its descriptors and calls proc_io(); ended ones are handed to a graveyard, which sees
 * them off.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/strbuf.h"

struct err;

#define PROC_POLLS  4           /* descriptors of one */
#define CAPTURE_MAX (64u << 10) /* bytes kept of an output: its beginning and its end */

struct proc {
	pid_t pid; /* leads a process group; 0: there is none */
	int pidfd, in, out, errors;
	struct strbuf input; /* what is still to be written */
	size_t sent;
	struct strbuf output, error_output;
	bool cut; /* some of the output was dropped */
	bool ended;
	int code;         /* when ended: exit code, 128 + signal */
	uint64_t kill_ms; /* in a graveyard: when to lose patience, 0 never */
};

/* Start argv[0], found by PATH. Standard input is what is put into input, then its end. */
int proc_start(struct proc *p, char *const argv[], struct err *err);

/* Fill fds[PROC_POLLS]; returns how many. */
size_t proc_polls(const struct proc *p, struct pollfd *fds);
/* Read, write, and notice the end. keep_input: the input stays open when all is written. */
void proc_io(struct proc *p, bool keep_input);
void proc_close_input(struct proc *p);

/* Processes that are over for us but may not have ended. */
struct graveyard {
	struct proc *procs;
	size_t count;
};

/*
 * Take p, which is empty afterwards. signal: sent to its group at once, 0 for none; patience_ms
 * later its group is killed, 0 for never.
 */
void bury(struct graveyard *g, struct proc *p, int signal, uint64_t patience_ms);
/* Reap and kill what is due; returns when to look again, UINT64_MAX for no time. */
uint64_t graveyard_turn(struct graveyard *g, uint64_t now_ms);
/* Forget all; what runs is left alone. */
void graveyard_done(struct graveyard *g);
