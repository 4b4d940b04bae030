/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of actions; see driver_steps.h. A row of a list is a step; lists end with an empty row.
 * Where the two eras differ, a step says so with WHEN_ERA_5 or WHEN_ERA_6.
 */
#include "one/driver/driver_steps.h"

#include <stddef.h>

#include "base/mem.h"
#include "base/strbuf.h"

#define VMM(n, ...)                                                                                \
	{                                                                                          \
		.driver = STEP_VMM, .name = n, .in = IN_ACTION, __VA_ARGS__                        \
	}
#define VNM(n, ...)                                                                                \
	{                                                                                          \
		.driver = STEP_VNM, .name = n, .in = IN_VNM, __VA_ARGS__                           \
	}
#define TM(n, ...)                                                                                 \
	{                                                                                          \
		.driver = STEP_TM, .log_name = n, __VA_ARGS__                                      \
	}
#define ARGS(...) .params = {__VA_ARGS__}
#define END                                                                                        \
	{                                                                                          \
		.driver = STEP_END                                                                 \
	}

/* clang-format off */

/* Steps that several actions share. */
#define CANCEL(...) VMM("cancel", ARGS(P_DEPLOY_ID, P_HOST), __VA_ARGS__)
#define CLEAN(...)  VNM("clean", ARGS(P_HOST_6), __VA_ARGS__)
#define PRE(...)    VNM("pre", __VA_ARGS__)
#define POST(...)   VNM("post", ARGS(P_DEPLOY_ID, P_HOST_6), __VA_ARGS__)
#define CONTEXT     TM("tm_context", .when = WHEN_TM)
#define RECONFIGURE(...)                                                                           \
	VMM("prereconfigure", ARGS(P_DEPLOY_ID, P_CONTEXT_TARGET), __VA_ARGS__),                   \
	CONTEXT,                                                                                   \
	VMM("reconfigure", ARGS(P_DEPLOY_ID, P_CONTEXT_TARGET, P_CONTEXT_PATH))
#define DETACH_NIC(...)                                                                            \
	VMM("detach_nic", ARGS(P_DEPLOY_ID, P_NIC_MAC), .when = WHEN_NIC, __VA_ARGS__)

static const struct step undo_deploy[] = {
	CLEAN(.when = WHEN_ERA_6),
	END,
};
static const struct step undo_deploy_post[] = {
	CANCEL(),
	CLEAN(.when = WHEN_ERA_6),
	END,
};
static const struct step undo_restore[] = {
	CANCEL(),
	END,
};
static const struct step undo_premigrate[] = {
	TM(NULL, .script = "fail", .in = IN_VM_64, .when = WHEN_ERA_6),
	END,
};
static const struct step undo_migrate[] = {
	TM(NULL, .script = "fail", .in = IN_VM_64),
	END,
};
static const struct step undo_attach_disk[] = {
	TM("tm_detach", .flags = ROLLBACK),
	END,
};
static const struct step undo_attach_nic[] = {
	DETACH_NIC(),
	END,
};
/* Cores from 6.0 take the interface off again when its context cannot be renewed, too. */
static const struct step undo_reconfigure[] = {
	VMM("detach_nic", ARGS(P_DEPLOY_ID, P_NIC_MAC), .when = WHEN_NIC_6),
	END,
};
static const struct step undo_backup[] = {
	TM(NULL, .script = "post", .in = IN_VM_FAILED, .flags = LIVE_BACKUP),
	END,
};

static const struct step deploy[] = {
	CONTEXT,
	PRE(),
	{ STEP_DIR, NULL, .when = WHEN_ERA_6, .undo = undo_deploy },
	{ STEP_PUT, "vm.xml", .in = IN_VM, .when = WHEN_ERA_6, .undo = undo_deploy },
	{ STEP_PUT, "ds.xml", .in = IN_STORE, .when = WHEN_ERA_6, .undo = undo_deploy },
	{ STEP_VMM, "deploy", ARGS(P_DEPLOY_FILE, P_HOST), .in = IN_DEPLOY,
	  .flags = ANSWER | DEPLOYS, .undo = undo_deploy },
	POST(.undo = undo_deploy_post),
	END,
};
static const struct step shutdown[] = {
	VMM("shutdown", ARGS(P_DEPLOY_ID, P_HOST), .flags = ANSWER),
	CLEAN(),
	END,
};
static const struct step cancel[] = {
	CANCEL(.flags = ANSWER),
	CLEAN(),
	END,
};
static const struct step reboot[] = {
	VMM("reboot", ARGS(P_DEPLOY_ID, P_HOST), .flags = ANSWER),
	END,
};
static const struct step reset[] = {
	VMM("reset", ARGS(P_DEPLOY_ID, P_HOST), .flags = ANSWER),
	END,
};
static const struct step save[] = {
	VMM("save", ARGS(P_DEPLOY_ID, P_CHECKPOINT, P_HOST), .flags = ANSWER),
	CLEAN(),
	END,
};
static const struct step restore[] = {
	CONTEXT,
	PRE(),
	VMM("restore", ARGS(P_CHECKPOINT, P_HOST, P_DEPLOY_ID), .flags = ANSWER),
	POST(.undo = undo_restore),
	END,
};
static const struct step migrate[] = {
	TM(NULL, .script = "pre", .in = IN_VM_64, .undo = undo_premigrate),
	PRE(.when = WHEN_MOVES, .flags = ON_MIGR),
	VMM("migrate", ARGS(P_DEPLOY_ID, P_MIGR_HOST, P_HOST), .flags = ANSWER,
	    .undo = undo_migrate),
	CLEAN(.when = WHEN_MOVES, .flags = NO_FAIL),
	POST(.when = WHEN_MOVES, .flags = NO_FAIL | ON_MIGR),
	TM(NULL, .script = "post", .in = IN_VM_64, .flags = NO_FAIL),
	END,
};
static const struct step poll[] = {
	VMM("poll", ARGS(P_DEPLOY_ID, P_HOST), .flags = ANSWER | ONE_SHOT),
	END,
};
static const struct step attach_disk[] = {
	TM("tm_attach"),
	VMM("attach_disk", ARGS(P_DEPLOY_ID, P_DISK_PATH, P_DISK_TARGET, P_DISK_INDEX, P_PAYLOAD),
	    .flags = ANSWER, .undo = undo_attach_disk),
	END,
};
static const struct step detach_disk[] = {
	VMM("detach_disk", ARGS(P_DEPLOY_ID, P_DISK_PATH, P_DISK_TARGET, P_DISK_INDEX),
	    .flags = ANSWER),
	TM("tm_detach"),
	END,
};
static const struct step attach_nic[] = {
	PRE(),
	VMM("attach_nic", ARGS(P_DEPLOY_ID, P_NIC_MAC, P_NIC_BRIDGE, P_NIC_MODEL, P_NIC_DRIVER,
	    P_NIC_TARGET), .when = WHEN_NIC, .flags = ANSWER),
	POST(.undo = undo_attach_nic),
	RECONFIGURE(.undo = undo_reconfigure),
	END,
};
static const struct step detach_nic[] = {
	DETACH_NIC(.flags = ANSWER),
	CLEAN(),
	RECONFIGURE(),
	END,
};
static const struct step update_conf[] = {
	RECONFIGURE(),
	END,
};
/* The word of the core is the name of these three; -l snapshot_create is taken as well. */
static const struct step snapshot_create[] = {
	VMM("snapshotcreate", .script = "snapshot_create", ARGS(P_DEPLOY_ID, P_SNAPSHOT_ID),
	    .flags = ANSWER | ONE_SHOT),
	END,
};
static const struct step snapshot_revert[] = {
	VMM("snapshotrevert", .script = "snapshot_revert", ARGS(P_DEPLOY_ID, P_SNAPSHOT_NAME),
	    .flags = ANSWER | ONE_SHOT, .when = WHEN_ERA_5),
	VMM("snapshotrevert", .script = "snapshot_revert", .log_name = "SNAPSHOTREVERT",
	    ARGS(P_DEPLOY_ID, P_SNAPSHOT_NAME), .when = WHEN_ERA_6),
	POST(.when = WHEN_ERA_6),
	END,
};
static const struct step snapshot_delete[] = {
	VMM("snapshotdelete", .script = "snapshot_delete", ARGS(P_DEPLOY_ID, P_SNAPSHOT_NAME),
	    .flags = ANSWER | ONE_SHOT),
	END,
};
static const struct step disk_snapshot_create[] = {
	TM(NULL, .flags = LIVE),
	END,
};
static const struct step resize_disk[] = {
	TM("tm_resize"),
	VMM("resize_disk", ARGS(P_DEPLOY_ID, P_RESIZE_ID, P_RESIZE_SIZE, P_PAYLOAD, P_HOST),
	    .flags = ANSWER),
	END,
};
static const struct step resize[] = {
	VMM("resize", ARGS(P_DEPLOY_ID), .flags = ANSWER | ONE_SHOT),
	END,
};
static const struct step cleanup[] = {
	CANCEL(.when = WHEN_DEPLOYED, .flags = NO_FAIL),
	CLEAN(.flags = NO_FAIL),
	VMM("cancel", ARGS(P_DEPLOY_ID, P_MIGR_HOST), .when = WHEN_MIGR_DEPLOYED,
	    .flags = NO_FAIL | ON_MIGR),
	CLEAN(.when = WHEN_MIGR_HOST, .flags = NO_FAIL | ON_MIGR),
	TM(NULL, .when = WHEN_TM, .flags = NO_FAIL | EACH_LINE),
	END,
};
static const struct step update_sg[] = {
	VNM("update_sg", ARGS(P_DEPLOY_ID), .flags = ANSWER),
	END,
};
static const struct step update_nic[] = {
	{ STEP_VNM, "update_nic", ARGS(P_DEPLOY_ID, P_NETWORK), .in = IN_VM_64, .flags = ANSWER },
	END,
};
static const struct step backup[] = {
	TM(NULL, .script = "pre", .in = IN_VM, .flags = LIVE_BACKUP, .undo = undo_backup),
	{ STEP_DS, "backup", .in = IN_STORE_ACTION, .flags = ANSWER, .undo = undo_backup },
	TM(NULL, .script = "post", .in = IN_VM, .flags = LIVE_BACKUP),
	END,
};
static const struct step backup_cancel[] = {
	{ STEP_DS, "backup_cancel", .in = IN_STORE_ACTION, .flags = ANSWER },
	END,
};
static const struct step exec[] = {
	VMM("exec", ARGS(P_VM_ID, P_HOST, P_GUEST_COMMAND, P_GUEST_STDIN),
	    .flags = ANSWER | ONE_SHOT | NO_IDS),
	END,
};
static const struct step exec_cancel[] = {
	VMM("exec_cancel", .flags = ANSWER | ONE_SHOT),
	END,
};

static const struct action actions[] = {
	{ "DEPLOY",             deploy },
	{ "SHUTDOWN",           shutdown },
	{ "CANCEL",             cancel },
	{ "REBOOT",             reboot },
	{ "RESET",              reset },
	{ "SAVE",               save },
	{ "RESTORE",            restore },
	{ "MIGRATE",            migrate },
	{ "POLL",               poll },
	{ "ATTACHDISK",         attach_disk },
	{ "DETACHDISK",         detach_disk },
	{ "ATTACHNIC",          attach_nic },
	{ "DETACHNIC",          detach_nic },
	{ "SNAPSHOTCREATE",     snapshot_create },
	{ "SNAPSHOTREVERT",     snapshot_revert },
	{ "SNAPSHOTDELETE",     snapshot_delete },
	{ "DISKSNAPSHOTCREATE", disk_snapshot_create, .live_snapshot = true },
	{ "RESIZEDISK",         resize_disk },
	{ "RESIZE",             resize },
	{ "UPDATECONF",         update_conf },
	{ "CLEANUP",            cleanup },
	{ "UPDATESG",           update_sg,  .prefix = P_SECURITY_GROUP },
	{ "UPDATENIC",          update_nic, .prefix = P_NETWORK },
	{ "BACKUP",             backup },
	{ "BACKUPCANCEL",       backup_cancel },
	{ "EXEC",               exec },
	{ "EXEC_CANCEL",        exec_cancel },
};
/* clang-format on */

const struct action *action_at(unsigned i)
{
	return i < ARRAY_SIZE(actions) ? &actions[i] : NULL;
}

const struct action *action_find(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		if (str_eq(actions[i].word, word))
			return &actions[i];
	return NULL;
}
