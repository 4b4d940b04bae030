/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Was a QEMU that died of SIGKILL killed by the kernel for want of memory? Its own memory group
 * counts such kills; the kernel's log names the pid; failing both, the host's count has grown
 * since the guest was started, which another process may have caused.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmstated/parts.h"

#define CGROUP_ROOT "/sys/fs/cgroup"
#define INIT_PID_NS "pid:[4026531836]" /* PROC_PID_INIT_INO: the log's pids are of this space */
#define COUNTS_MAX  65536u
#define RECORD_MAX  8192  /* as the kernel limits one */
#define RECORDS_MAX 65536 /* more than any log holds */
#define US_PER_S    1000000u
#define NS_PER_US   1000
#define UNKNOWN     (-1)

/* The number after "oom_kill " at the begin of a line, UNKNOWN when there is none. */
static int64_t count_in(const char *path)
{
	AUTO_FREE char *text = NULL;
	const char *at;

	if (file_read(path, COUNTS_MAX, &text, NULL, NULL, NULL) < 0)
		return UNKNOWN;
	for (at = strstr(text, "oom_kill "); at; at = strstr(at + 1, "oom_kill ")) {
		if (at == text || at[-1] == '\n')
			return strtoll(at + strlen("oom_kill "), NULL, 10);
	}
	return UNKNOWN;
}

uint64_t host_oom_kills(void)
{
	int64_t count = count_in("/proc/vmstat");

	return count > 0 ? (uint64_t)count : 0;
}

/* Path in the unified hierarchy; the caller frees. */
static char *group_of(const char *proc)
{
	AUTO_FREE char *text = NULL;
	const char *at;

	if (file_read(proc, COUNTS_MAX, &text, NULL, NULL, NULL) < 0)
		return NULL;
	at = str_starts(text, "0::") ? text : strstr(text, "\n0::");
	if (!at)
		return NULL;
	at = strstr(at, "::") + 2;
	return xstrndup(at, strcspn(at, "\n"));
}

/* Of the guest's own group, which nobody else is in; a dead process is in it until reaped. */
static int64_t group_kills(pid_t pid)
{
	AUTO_FREE char *proc = xasprintf("/proc/%d/cgroup", (int)pid);
	AUTO_FREE char *group = group_of(proc);
	AUTO_FREE char *ours = group_of("/proc/self/cgroup");
	AUTO_FREE char *events = NULL;

	if (!group || !ours || str_eq(group, ours))
		return UNKNOWN;
	events = xasprintf(CGROUP_ROOT "%s/memory.events", group);
	return count_in(events);
}

static uint64_t clock_us_of(clockid_t which)
{
	struct timespec ts = {0};

	(void)clock_gettime(which, &ts);
	return (uint64_t)ts.tv_sec * US_PER_S + (uint64_t)ts.tv_nsec / NS_PER_US;
}

/* The start of a process by the clock of the log, which stands still while the host sleeps. */
static uint64_t start_us(uint64_t ticks)
{
	uint64_t per_s = (uint64_t)sysconf(_SC_CLK_TCK);
	uint64_t asleep = clock_us_of(CLOCK_BOOTTIME) - clock_us_of(CLOCK_MONOTONIC);
	uint64_t at = ticks * US_PER_S / per_s;

	return at > asleep ? at - asleep : 0;
}

static bool of_our_pids(void)
{
	char name[sizeof(INIT_PID_NS) + 8] = "";

	return readlink("/proc/self/ns/pid", name, sizeof(name) - 1) > 0 &&
	       str_eq(name, INIT_PID_NS);
}

/* 1: the log says that it was killed; 0: it does not; UNKNOWN: it cannot be read. */
static int log_says(pid_t pid, uint64_t since_us)
{
	AUTO_FD int fd = of_our_pids() ? open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
	AUTO_FREE char *words = xasprintf("Killed process %d (", (int)pid);
	char record[RECORD_MAX + 1];
	int seen = 0;

	for (int i = 0; fd >= 0 && i < RECORDS_MAX; i++) {
		ssize_t n =
			read(fd, record, RECORD_MAX); /* "PRIORITY,NUMBER,MICROSECONDS,...;TEXT" */
		char *at = record;

		if (n < 0 && errno == EPIPE) /* overwritten meanwhile: the next one */
			continue;
		if (n <= 0)
			break;
		seen++;
		record[n] = '\0';
		for (int comma = 0; comma < 2 && at; comma++)
			at = strchr(at + comma, ',');
		if (at && strtoull(at + 1, NULL, 10) >= since_us && strstr(at, words))
			return 1;
	}
	return seen ? 0 : UNKNOWN;
}

bool oom_killed(const struct guest *g)
{
	int64_t group = group_kills(g->pid);
	int said;

	if (group >= 0 || host_oom_kills() <= g->oom_kills)
		return group > 0;
	said = log_says(g->pid, start_us(g->pid_start));
	return said != 0; /* where it cannot be read, the host's count has to do */
}
