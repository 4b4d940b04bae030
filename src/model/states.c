/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and numbers of the supervisor's states, what the VM object shows for each, and the causes
 * for which a VM ends. Sources: vmstated(8), states; design, section 5.
 */
#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "model/model.h"
#include "model/props.h"

/* clang-format off */
const struct sup_state_row sup_states[SUP_STATE_COUNT] = {
	[SUP_INIT] = { "INIT", NULL, "INIT", 0, "installed", "stopped" },
	[SUP_START_NETWORK] = { "START_NETWORK", "start_network", "STNW", 10, "ready", "ready" },
	[SUP_START_STORAGE] = { "START_STORAGE", "start_storage", "SAST", 20, "ready", "ready" },
	[SUP_RUNNING] = { "RUNNING", "running", "RUNN", 100, "running", "running" },
	[SUP_STOPPING] = { "STOPPING", "stopping", "STOP", 102, "running", "stopping" },
	[SUP_STOP_STORAGE] = { "STOP_STORAGE", "stop_storage", "SOST", 150,
			       "shutting_down", "shutting_down" },
	[SUP_STOP_NETWORK] = { "STOP_NETWORK", "stop_network", "SONW", 200, "down", "down" },
	[SUP_STOPPED] = { "STOPPED", "stopped", "STPD", 300, "installed", "stopped" },
	[SUP_FAILED] = { "FAILED", "failed", "FAIL", 400, "installed", "failed" },
	[SUP_PRESTOP_BEFORE_RESTART] = { "PRESTOP_BEFORE_RESTART", "prestop_before_restart", "PRER",
					 160, "ready", "ready" },
	[SUP_RESTARTING] = { "RESTARTING", "restarting", "REST", 210, "ready", "ready" },
	[SUP_RESTART_STOPPED] = { "RESTART_STOPPED", "restart_stopped", "RSTP", 310,
				  "ready", "ready" },
	[SUP_PRESTART_AFTER_RESTART] = { "PRESTART_AFTER_RESTART", "prestart_after_restart", "RPRE",
					 11, "ready", "ready" },
	[SUP_START_AFTER_RESTART] = { "START_AFTER_RESTART", "start_after_restart", "RAST", 21,
				      "ready", "ready" },
	[SUP_RESTARTED] = { "RESTARTED", "restarted", "RRUN", 101, "ready", "ready" },
};
/* clang-format on */

const char *const end_cause_names[END_CAUSE_COUNT] = {
	[END_GUEST] = "guest",
	[END_ADMIN] = "admin",
	[END_TIMEOUT_FORCED] = "timeout-forced",
	[END_CRASH] = "crash",
	[END_PANIC] = "panic",
	[END_OUT_OF_MEMORY] = "out-of-memory",
	[END_START_ERROR] = "start-error",
	[END_HOOK] = "hook",
	[END_HOST_SHUTDOWN] = "host-shutdown",
	[END_HOST_CRASH] = "host-crash",
	[END_OUTSIDE] = "outside",
	[END_UNKNOWN] = "unknown",
};

int sup_state_from_label(const char *label)
{
	for (size_t i = 0; label && i < SUP_STATE_COUNT; i++) {
		if (strcmp(sup_states[i].label, label) == 0)
			return (int)i;
	}
	return -EINVAL;
}

int end_cause_from_name(const char *name)
{
	return enum_value(end_cause_names, END_CAUSE_COUNT, name);
}
