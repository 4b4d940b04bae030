/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of CPUs as people and the kernel write them: "0-3,8". */
#pragma once

#include <sched.h>

/* -EINVAL for anything but a list of numbers and ranges below CPU_SETSIZE; *ret then stays. */
int cpus_parse(const char *text, cpu_set_t *ret);
