/* SPDX-License-Identifier: Apache-2.0 */
/* One VM as vmstated sees it, and the program that holds them all. What is done with them: parts.h.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/paths.h"
#include "daemon/child.h"
#include "model/model.h"
#include "model/vm.h"
#include "qemu/argv.h"
#include "vmstated/words.h"

struct bhyve;
struct catalog;
struct catalog_entry;
struct console_relay;
struct err;
struct feed_server;
struct guest;
struct hook_output;
struct hook_run;
struct http_server;
struct order;
struct plug;
struct shutdown;
struct qmp;
struct sync_queue;
struct waiter;

#define BUDGET_MAX    64
#define BOOT_RESETS   2     /* RESET events of the firmware itself ...      */
#define BOOT_RESET_MS 5000u /* ... within this time after power-on or a reboot */

struct guest {
	struct supervisor *sup;
	char uuid[37];
	char *name;                /* as known last; names the log file */
	struct catalog_entry *def; /* NULL when the definition is gone */
	struct bhyve *bhyve;       /* hardware of a configfile, while one is in force */
	struct vm *started;        /* copy of the definition as started, while not stopped */
	enum sup_state state;
	bool settled, restarting; /* no walk under way; the walk is the restart chain */

	/* QEMU */
	struct child *qemu;
	uid_t uid, gid; /* whom QEMU runs as; 0: as we do */
	pid_t pid;
	uint64_t pid_start;
	struct qmp *mon;
	bool launched; /* QMP answered */
	bool apart;    /* taken up, its monitor not connected to yet: adopt.c */
	int recorder_fd;
	off_t log_mark; /* where this start's part of the log begins */
	char accel[8];
	char run_state[24];
	bool reboot_is_shutdown;   /* QEMU's reboot action was switched */
	bool pending;              /* the definition asks for another machine by now */
	json_t *once;              /* what is of this boot only; NULL: nothing */
	uint64_t qmp_silent_since; /* clock_ms, 0: it answers */
	int monitor_tries;
	json_t *found; /* what was written down, until it is told who holds its lock: adopt.c */
	int lock_tries;

	/* stop engine */
	enum guest_target target;
	uint64_t deadline_ms;   /* clock_ms */
	int64_t expire_wall_ms; /* the same, for display */
	bool forced, asked;
	int force_step;
	sd_event_source *stop_timer, *again_timer;
	char asked_by[64];
	bool for_shutdown; /* of the whole host */

	/* record */
	uint32_t zoneid; /* counts starts */
	uint64_t boot_ms;
	int64_t boot_wall_ms, last_reset_wall_ms;
	struct last_exit end;
	bool put_down;              /* we end QEMU for a reason of its own: */
	enum end_cause put_down_as; /* recorded instead of what its end looks like */
	char put_down_why[120];
	uint64_t oom_kills; /* of the host when it was started */
	char *published;    /* facts as told last */
	char *failed;       /* why, NULL when not */
	bool hook_failed;
	unsigned resets, restarts, first_resets;
	uint64_t last_reset_ms;
	uint64_t restart_at_ms;     /* clock_ms of a planned restart, 0: none */
	uint64_t spent[BUDGET_MAX]; /* clock_ms of automatic restarts */
	unsigned nspent;
	sd_event_source *restart_timer, *ready_timer, *launch_timer, *monitor_timer;
	bool ready;
	enum guest_hold hold;
	uint64_t busy_until_ms; /* announced: its monitors may be silent; 0: not */
	unsigned owed;          /* what could not be written down yet: state.c */

	struct hook_run *hooks;       /* running now, or NULL */
	const char *hooks_due;        /* of which state they are not through yet; NULL: none */
	char event[24];               /* what led to this state, for hooks */
	uint64_t hook_ticket;         /* counts hooks that were started */
	struct hook_output *hook_out; /* open while anything may write */
	struct console_relay *console;
	struct net *net;     /* NULL: it had nothing to do yet */
	struct plug *plug;   /* a NIC on its way in or out; NULL: none */
	struct seen *seen;   /* its addresses, neigh.c */
	struct snoop *snoop; /* NULL: addresses of no NIC are learned */
	struct waiter *waiters;
	struct guest *next;
};

/* The program. */
struct supervisor {
	sd_event *event;
	struct paths paths;
	struct catalog *catalog;
	struct feed_server *feed;
	struct http_server *http;
	struct guest *guests, *last_guest;
	size_t undefined; /* guests without a definition */
	struct qemu_caps caps;
	bool caps_known;
	char caps_error[256];
	struct accel_state *accel;
	struct sync_queue *sync;
	struct child *net_audit;
	struct neigh *neigh; /* NULL: not known */
	struct order *order;
	struct shutdown *shutdown;
	uint64_t started_ms;
	char boot_id[40];
	bool autostart, closing, serving, pulsing;
	sd_event_source *catalog_source, *connect_timer, *scan_timer, *upgrade_timer, *pulse_timer,
		*hold_timer, *owed_timer;
	uint64_t owed_delay_ms;    /* 0: nobody owes anything */
	uid_t first_uid, last_uid; /* users for guests; 0: none */
	char *cgroup;              /* folder of guests' groups; NULL: the host has none */
	bool cgroup_given;
	int listen_fd, lock_fd;
	char *program; /* our own file, and how it was called: for upgrade */
	char **argv;
};
