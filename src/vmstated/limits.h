/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of a VM as files of a cgroup v2 group. Pure; tests/system/test_limits.py judges what is
 * written. Source: vmadm(8), cpu_cap and others; the kernel's cgroup-v2.rst.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct vm;

#define LIMITS_MAX 7

struct limit {
	const char *file;       /* "cpu.max" */
	const char *controller; /* "cpu" */
	const char *property;   /* that asks for it */
	bool wanted;            /* it says more than the default: not to have it is an error */
	char value[48];
};

void limits_of(const struct vm *vm, struct limit list[LIMITS_MAX]);
