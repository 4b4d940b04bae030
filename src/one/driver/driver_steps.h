/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of actions: what is run for each word of the core, in which order, with which
 * arguments and standard input, and what undoes it. Everything else only walks it. Source: fact
 * sheet, 4.1 and 4.5, and the recorded traces of the stock driver.
 */
#pragma once

#include <stdbool.h>

enum step_driver {
	STEP_END, /* closes a list */
	STEP_VMM, /* vmm/DIR/SCRIPT, on the host */
	STEP_VNM, /* vnm/VN_MAD/SCRIPT on the host, once per network driver of the VM */
	STEP_TM,  /* tm/TM_MAD/COMMAND on the front-end, as the message says */
	STEP_DS,  /* datastore/DS_MAD/SCRIPT on the front-end */
	STEP_DIR, /* make the VM's directory, beside the deployment file */
	STEP_PUT, /* write standard input to file NAME of that directory */
};

/* An argument; where it comes from is in param_rows[] of driver_plan.c. */
enum param {
	P_NONE,
	P_DEPLOY_ID, /* of the message, or what deploy answered */
	P_DEPLOY_FILE,
	P_HOST,
	P_HOST_6, /* only cores from 6.0 give it */
	P_MIGR_HOST,
	P_CHECKPOINT,
	P_DISK_PATH,
	P_DISK_TARGET,
	P_DISK_INDEX,
	P_RESIZE_ID,
	P_RESIZE_SIZE,
	P_PAYLOAD,
	P_NIC_MAC,
	P_NIC_BRIDGE,
	P_NIC_MODEL,
	P_NIC_DRIVER,
	P_NIC_TARGET,
	P_CONTEXT_TARGET,
	P_CONTEXT_PATH,
	P_SNAPSHOT_ID,
	P_SNAPSHOT_NAME,
	P_VM_ID,
	P_GUEST_COMMAND,
	P_GUEST_STDIN,
	P_SECURITY_GROUP,
	P_NETWORK,
};
#define PARAMS      27
#define STEP_PARAMS 7

enum step_in {
	IN_NONE,
	IN_ACTION, /* the message; base64 where the script runs on the front-end */
	IN_DEPLOY, /* the deployment file; base64 on the front-end */
	IN_VNM,    /* base64 of what a network driver needs of the VM */
	IN_VM,     /* <VM> */
	IN_VM_64,
	IN_VM_FAILED, /* <VM> with <BACKUP_RESULT>FAILURE */
	IN_STORE,     /* <DATASTORE> */
	IN_STORE_ACTION,
};
#define STEP_INS 9

/* When a step belongs to the action at all. */
enum step_when {
	WHEN_ALWAYS,
	WHEN_ERA_5,
	WHEN_ERA_6,
	WHEN_TM,        /* the message has a TM_COMMAND */
	WHEN_DEPLOYED,  /* it has a DEPLOY_ID */
	WHEN_MIGR_HOST, /* it has a second host */
	WHEN_MIGR_DEPLOYED,
	WHEN_NIC,   /* the interface is no alias */
	WHEN_NIC_6, /* and the core is from 6.0 on */
	WHEN_MOVES, /* the VM changes its host */
};
#define STEP_WHENS 10

enum step_flag {
	NO_FAIL = 1 << 0,   /* a failure is logged and the action goes on */
	ANSWER = 1 << 1,    /* its output is the action's answer */
	ONE_SHOT = 1 << 2,  /* a connection of its own, may be retried, no line about its success */
	NO_IDS = 1 << 3,    /* VM id and host are not appended to the arguments */
	ON_MIGR = 1 << 4,   /* on MIGR_HOST, not HOST */
	ROLLBACK = 1 << 5,  /* TM_COMMAND_ROLLBACK instead of TM_COMMAND */
	EACH_LINE = 1 << 6, /* every line of TM_COMMAND is a step */
	LIVE = 1 << 7,      /* the command gets _live */
	LIVE_BACKUP = 1 << 8, /* _live when the VM runs */
	DEPLOYS = 1 << 9,     /* its output is the deploy id for what follows */
};

struct step {
	enum step_driver driver;
	const char *name;     /* as in -l and log lines; NULL: the command of the TM_COMMAND */
	const char *script;   /* NULL: the name; TM: what stands before the command ("pre") */
	const char *log_name; /* in log lines, where it is another */
	enum param params[STEP_PARAMS];
	enum step_in in;
	enum step_when when;
	unsigned flags;
	const struct step *undo; /* run when this step fails */
};

struct action {
	const char *word;
	const struct step *steps;
	enum param prefix;  /* stands before the answer */
	bool live_snapshot; /* needs a pair in LIVE_DISK_SNAPSHOTS */
};

/* The row of an upper-case word, NULL when there is none. */
const struct action *action_find(const char *word);
/* Row i, NULL behind the last. */
const struct action *action_at(unsigned i);
