/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest may use of the host: a control group of its own (cgroup v2) below one folder, CPUs,
 * huge pages. See docs/decisions/0015.
 */
#pragma once

#include <sched.h>

struct err;
struct guest;
struct supervisor;
struct vm;

/* Where guests' groups are: dir, or NULL for drover.slice of the host's hierarchy. */
void cgroup_set_base(struct supervisor *sup, const char *dir);

/*
 * Before QEMU is started: is there what the definition asks for, and a group with its limits.
 * *ret_procs: the file by which a process joins it, NULL without a group; caller frees. Errors
 * name property and what the host lacks.
 */
int cgroup_prepare(struct guest *g, char **ret_procs, struct err *err);

/* The CPUs of cpu_affinity, which is set. -ENXIO when the host lacks one. */
int cgroup_cpus(const struct vm *vm, cpu_set_t *ret, struct err *err);

/* The definition of a running guest changed. */
void cgroup_change(struct guest *g);

/* QEMU is gone: so is its group, when its processes let go of it; else at the next call. */
void cgroup_release(struct guest *g);
/* Try again for all guests that do not run. */
void cgroup_sweep(struct supervisor *sup);
