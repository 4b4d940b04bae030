/* SPDX-License-Identifier: Apache-2.0 */
/* Limits as values of cgroup v2 files; see limits.h. */
#include "vmstated/limits.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

#include "base/mem.h"
#include "model/vm.h"

/* Values that ask for nothing. Source: vmadm(8). */
#define SHARES_DEFAULT   100
#define PRIORITY_DEFAULT 100
#define LWPS_DEFAULT     2000
#define PHYSICAL_OVER    1024 /* MiB beyond ram */

#define CPU_PERIOD_US 100000
#define WEIGHT_MAX    10000

static void put_number(struct limit *l, uint64_t value)
{
	(void)snprintf(l->value, sizeof(l->value), "%" PRIu64, value);
}

static void cpu_max(const struct vm *vm, struct limit *l)
{
	l->wanted = vm->cpu_cap > 0;
	if (l->wanted)
		(void)snprintf(l->value, sizeof(l->value), "%" PRIu64 " %d",
			       (uint64_t)vm->cpu_cap * CPU_PERIOD_US / 100, CPU_PERIOD_US);
	else
		(void)snprintf(l->value, sizeof(l->value), "max %d", CPU_PERIOD_US);
}

static uint32_t weight(uint32_t shares)
{
	if (shares > WEIGHT_MAX)
		return WEIGHT_MAX;
	return shares ? shares : 1;
}

static void cpu_weight(const struct vm *vm, struct limit *l)
{
	l->wanted = vm->cpu_shares != SHARES_DEFAULT;
	put_number(l, weight(vm->cpu_shares));
}

static void io_weight(const struct vm *vm, struct limit *l)
{
	l->wanted = vm->zfs_io_priority != PRIORITY_DEFAULT;
	put_number(l, weight(vm->zfs_io_priority));
}

static void memory_max(const struct vm *vm, struct limit *l)
{
	l->wanted = vm->max_physical_memory_mib != vm->ram_mib + PHYSICAL_OVER;
	put_number(l, (uint64_t)vm->max_physical_memory_mib << 20);
}

/* max_swap counts memory and swap together; as much as memory is its default and says nothing. */
static void memory_swap_max(const struct vm *vm, struct limit *l)
{
	l->wanted = vm->max_swap_mib > vm->max_physical_memory_mib;
	if (l->wanted)
		put_number(l, (uint64_t)(vm->max_swap_mib - vm->max_physical_memory_mib) << 20);
	else
		(void)snprintf(l->value, sizeof(l->value), "max");
}

/* QEMU without one of its threads is no guest. */
static void memory_oom_group(const struct vm *vm, struct limit *l)
{
	put_number(l, 1);
}

static void pids_max(const struct vm *vm, struct limit *l)
{
	l->wanted = vm->max_lwps != LWPS_DEFAULT;
	put_number(l, vm->max_lwps);
}

static const struct {
	struct limit limit;
	void (*fill)(const struct vm *vm, struct limit *l);
} rows[] = {
	{{"cpu.max", "cpu", "cpu_cap"}, cpu_max},
	{{"cpu.weight", "cpu", "cpu_shares"}, cpu_weight},
	{{"io.weight", "io", "zfs_io_priority"}, io_weight},
	{{"memory.max", "memory", "max_physical_memory"}, memory_max},
	{{"memory.swap.max", "memory", "max_swap"}, memory_swap_max},
	{{"memory.oom.group", "memory", "max_physical_memory"}, memory_oom_group},
	{{"pids.max", "pids", "max_lwps"}, pids_max},
};
_Static_assert(ARRAY_SIZE(rows) == LIMITS_MAX, "limits.h says how many limits there are");

void limits_of(const struct vm *vm, struct limit list[LIMITS_MAX])
{
	for (size_t i = 0; i < LIMITS_MAX; i++) {
		list[i] = rows[i].limit;
		rows[i].fill(vm, &list[i]);
	}
}
