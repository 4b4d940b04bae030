/* SPDX-License-Identifier: Apache-2.0 */
/* What can happen to a guest, where it is to go, and how it ended last. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "model/model.h"

/* What can happen to a guest; columns of the state table. */
enum guest_event {
	EV_START,     /* a person, autoboot or the restart policy asks */
	EV_STOP,      /* stop engine armed; target and deadline are in the guest */
	EV_HOOK_DONE, /* the state's hooks ended well */
	EV_HOOK_FAILED,
	EV_LAUNCHED, /* QEMU answered a command */
	EV_EXIT,     /* QEMU ended; cause is in the guest */
	EV_FAILRESET,
};
#define GUEST_EVENT_COUNT 7

/* A start that is not let go: whoever asked for it loads the guest's state and says cont. */
enum guest_hold { HOLD_NOT, HOLD_PAUSED, HOLD_INCOMING };

enum guest_target { TARGET_NONE, TARGET_STOPPED, TARGET_START, TARGET_FAILED };

struct last_exit {
	bool set;
	enum end_cause cause;
	char detail[200];
	int64_t wall_ms;
	bool has_status;
	int status; /* exit status, or 128 + signal */
	int signal;
};
