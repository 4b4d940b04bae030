/* SPDX-License-Identifier: Apache-2.0 */
/*
 * States of the supervisor and what the VM object shows for each; causes for which a VM ends.
 * Sources: vmstated(8), states; design, section 5.
 */
#pragma once

enum sup_state {
	SUP_INIT,
	SUP_START_NETWORK,
	SUP_START_STORAGE,
	SUP_RUNNING,
	SUP_STOPPING,
	SUP_STOP_STORAGE,
	SUP_STOP_NETWORK,
	SUP_STOPPED,
	SUP_FAILED,
	SUP_PRESTOP_BEFORE_RESTART,
	SUP_RESTARTING,
	SUP_RESTART_STOPPED,
	SUP_PRESTART_AFTER_RESTART,
	SUP_START_AFTER_RESTART,
	SUP_RESTARTED
};
#define SUP_STATE_COUNT 15

struct sup_state_row {
	const char *label;              /* "START_NETWORK" */
	const char *hook;               /* "start_network", NULL for INIT */
	const char *code;               /* four letters of vmstatedctl status */
	int id;                         /* vmstated's number */
	const char *zone_state, *state; /* of the VM object */
};
extern const struct sup_state_row sup_states[SUP_STATE_COUNT];
int sup_state_from_label(const char *label); /* -EINVAL */

/* Why a VM ended. */
enum end_cause {
	END_GUEST,
	END_ADMIN,
	END_TIMEOUT_FORCED,
	END_CRASH,
	END_PANIC,
	END_OUT_OF_MEMORY,
	END_START_ERROR,
	END_HOOK,
	END_HOST_SHUTDOWN,
	END_HOST_CRASH,
	END_OUTSIDE,
	END_UNKNOWN
};
#define END_CAUSE_COUNT 12
extern const char *const end_cause_names[END_CAUSE_COUNT];
int end_cause_from_name(const char *name); /* -EINVAL */
