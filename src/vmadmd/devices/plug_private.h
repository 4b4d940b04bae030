/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of plug.c share: a plan being made, and the commands it consists of. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "model/vm.h"
#include "vmadmd/devices/machine.h"
#include "vmadmd/devices/plug.h"

struct argv;

#define MIB (UINT64_C(1) << 20)

struct plug {
	struct guest *g;
	struct vm *old, *new;
	const json_t *journal; /* of one that was cut short, else NULL */
	bool force;
	struct machine machine;
	bool asking, working;
	int stopped; /* while asking */
	struct err why;
	struct trans *trans;
	json_t *names, *covered;
	trans_done done;
	void *ctx;
};

/* --- plug.c --- */
const struct disk *plug_disk_in(const struct vm *vm, const struct disk *disk);
bool plug_disk_differs(const struct disk *a, const struct disk *b);
bool plug_limits_differ(const struct disk *a, const struct disk *b);
const char *plug_path(const struct disk *d); /* "" without one */
/* The element of that name and key has its part in the plan. */
void plug_touch(struct plug *p, const char *kind, const char *name, const char *key);
/* A command and what takes it back (NULL: nothing does); all but the words are taken. */
void plug_step(struct plug *p, const char *command, json_t *args, const char *undo,
	       json_t *undo_args, const char *what);
/* All that argv (qemu/argv.h) makes; in false: unmade, in the other order. only: this option. */
void plug_make(struct plug *p, const struct argv *argv, bool in, const char *only,
	       const char *what);

/* --- plug_disk.c --- */
int plug_disk_in_steps(struct plug *p, const struct disk *d, struct err *err);
int plug_disk_out_steps(struct plug *p, const struct disk *d, struct err *err);
int plug_disk_change_steps(struct plug *p, const struct disk *before, const struct disk *d,
			   struct err *err);

/* --- plug_nic.c --- */
int plug_nic_in_steps(struct plug *p, const struct nic *n, struct err *err);
int plug_nic_out_steps(struct plug *p, const struct nic *n, struct err *err);
void plug_nic_change_steps(struct plug *p, const struct nic *before, const struct nic *n);
