/* SPDX-License-Identifier: Apache-2.0 */
/* Time. Monotonic milliseconds for every decision; the wall clock is for display only. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Milliseconds of CLOCK_BOOTTIME: goes on while the host sleeps, the same for every process. */
uint64_t clock_ms(void);
uint64_t clock_us(void);

/* Wall clock, milliseconds since 1970. */
int64_t clock_wall_ms(void);

/* Tests put their own clock in here; NULL restores the kernel's. */
extern uint64_t (*clock_us_hook)(void);

#define ISO_TIME_LEN 25

/* "2018-04-11T17:28:12.046Z"; buf has ISO_TIME_LEN bytes. Returns buf. */
char *clock_iso(int64_t wall_ms, char *buf, size_t size);

/* This boot of the kernel, as /proc/sys/kernel/random/boot_id says (36 characters); buf >= 37. */
int clock_boot_id(char *buf, size_t size);
