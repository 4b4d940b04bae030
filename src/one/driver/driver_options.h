/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the driver was told: by its arguments, by the files the stock wrapper sources (defaultrc,
 * vmm_execrc), and by the core's own record of its configuration ($VAR/config). Source: fact
 * sheet of the contract, 1.1, 1.5, 4.2, 8.3.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct err;

#define DRIVER_THREADS     15
#define DRIVER_THREADS_MAX 1000
#define DRIVER_LISTED_MAX  128 /* names in one list */

/* "action" or "action=script" of a list. */
struct listed {
	char *name;
	char *script; /* NULL: named like the action */
};

struct list {
	struct listed items[DRIVER_LISTED_MAX];
	size_t count;
};

struct driver_options {
	char *program; /* one_vmm_exec, one_vmm_sh, one_vmm_ssh */
	char *dir;     /* below vmm/ of the remotes */
	char *shell;
	unsigned retries, threads, timeout_s; /* timeout 0: none */
	bool parallel;
	bool help;
	struct list local;
	struct list delegate; /* connections that forward the agent */
	bool delegate_given;  /* else "migrate", and only with cores from 6.0 */
	int nice;             /* INT_MIN: as we were started */
	bool debug;           /* ONE_MAD_DEBUG: talk goes to a file of that log directory */
	char *var, *log, *remotes, *remote_dir; /* /var/lib/one, /var/log/one, ... */
	char *live_snapshots;                   /* LIVE_DISK_SNAPSHOTS: "kvm-qcow2 kvm-ssh" */
	char *local_networks;                   /* VNMAD_LOCAL_ACTIONS: "elastic-post" */
};

#define AUTO_OPTIONS __attribute__((cleanup(driver_options_done)))

/*
 * argv as the core gives it (all in one element) or as a shell does. Environment: ONE_LOCATION.
 * -EINVAL with the reason for a bad option or no directory.
 */
int driver_options_read(int argc, char *const argv[], struct driver_options *o, struct err *err);
void driver_options_done(struct driver_options *o);

/* The row of that name or NULL; case and underscores do not count: snapshot_create, SNAPSHOTCREATE.
 */
const struct listed *list_find(const struct list *list, const char *name);

/* Whether words, separated by blanks, hold word. */
bool words_hold(const char *words, const char *word);
