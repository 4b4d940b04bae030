/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of autoboot: which VM may start now, given its `after` list and what the others do.
 * Pure. Source: design, section 4, `after`.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"

struct vm;

/* Where a VM named in `after` is. */
enum dep_state {
	DEP_UNKNOWN, /* no such VM */
	DEP_NEVER,   /* it will not come: stopped and not to be booted, or its start failed */
	DEP_COMING,  /* to be started, or starting */
	DEP_RUNNING,
	DEP_READY,
};

typedef enum dep_state (*dep_lookup)(void *ctx, const char *name);

struct boot_verdict {
	bool go;
	bool counts;         /* waits for one that runs but is not ready: its time counts */
	struct strbuf notes; /* what was not waited for, and why; "" when all is well */
};

/* Judge a VM. waited_ms: how long it has counted. The caller ends ret->notes. */
void boot_judge(const struct vm *vm, uint64_t waited_ms, dep_lookup lookup, void *ctx,
		struct boot_verdict *ret);
