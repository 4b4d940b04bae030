/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The action programs of a host: what the front-end's driver runs as remotes/vmm/drover/ACTION.
 * Each is a row of the table in action.c and a function in one of the action_*.c; they act through
 * vmadmd and look at what vminfod knows. Source: fact sheet, 5.
 */
#pragma once

#include <jansson.h>
#include <libxml/tree.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/paths.h"

struct err;

#define ACTION_INPUT_MAX (64u << 20) /* bytes of standard input */
#define ACTION_WORDS     6

struct action;

/* One call of an action. */
struct call {
	const struct action *action;
	int argc;
	char **argv;         /* behind the action's name */
	const char *remotes; /* "/var/tmp/one": VERSION and etc are there */
	const char *scripts; /* folder of the actions, "" not known */
	struct paths paths;
	char *input; /* standard input, decoded where it was base64; owned */
	size_t input_len;
	xmlDoc *doc;   /* of a message; NULL: none came */
	xmlNode *data; /* its root, NULL as well */
};

struct action {
	const char *name;
	/* Arguments by name, both eras: what is not given is looked for in the message. */
	const char *words;
	int need;                                       /* how many of them must be given */
	int (*run)(struct call *call, struct err *err); /* prints its answer to standard output */
	const char *doc;
};

extern const struct action actions[];
extern const size_t action_count;
const struct action *action_find(const char *name);

/*
 * The argument of that name, "" when it was not given. "host" is that of the message, else the
 * last argument, as one_vmm_sh of old had it in another place. Borrowed from the call.
 */
const char *call_arg(const struct call *call, const char *word);
/* Value in the message, NULL when there is none; caller frees. */
char *call_value(const struct call *call, const char *path);
/* The message's element, or -EINVAL that says which one is missing. */
int call_element(const struct call *call, const char *path, xmlNode **ret, struct err *err);
/* A setting of etc/vmm/DIR/DIRrc (DIR that of the scripts) below the remotes, or the environment's.
 * Caller frees. */
char *call_setting(const struct call *call, const char *name, const char *fallback);
/* The same from a file of lines NAME=VALUE. */
char *file_setting(const char *path, const char *name, const char *fallback);
/* The VM's directory in the system datastore by a file in it; caller frees. */
char *call_dir_of(const char *file);

/* --- action_ask.c --- */
/*
 * One request to vmadmd, answered when it is done. ret (may be NULL): the answer's object. A
 * refusal is -errno with vmadmd's reason. body is taken.
 */
int ask_vmadmd(struct call *call, const char *method, const char *target, json_t *body,
	       json_t **ret, struct err *err);
/*
 * The same for what is a job there, followed to its end also where vmadmd is started anew
 * meanwhile; ret gets its result.
 */
int ask_job(struct call *call, const char *target, json_t *body, json_t **ret, struct err *err);
/* "/vm/ID" with suffix appended as it is; caller frees. */
char *vm_target(const char *id, const char *suffix);
/* The VM object by name, uuid or unique alias; -ENOENT "no VM 'ID' on this host". */
int ask_vm(struct call *call, const char *id, json_t **ret, struct err *err);
/* GET of vminfod or vmadmd (socket of call->paths) as JSON. */
int ask_json(struct call *call, const char *socket, const char *target, json_t **ret,
	     struct err *err);
bool vm_is(const json_t *vm, const char *state);
/* Remove a transient VM and wait until it is gone; another one and none at all are left alone. */
int vm_remove(struct call *call, const json_t *vm, struct err *err);
/* The VM's directory in the system datastore: that of its first disk "disk.N"; NULL, or caller
 * frees. */
char *vm_dir(const json_t *vm);
/* A disk of the VM object by target or path, a NIC by MAC; NULL when there is none. Borrowed. */
json_t *vm_disk(const json_t *vm, const char *word);
json_t *vm_nic(const json_t *vm, const char *mac);

/* --- action_wait.c --- */
enum vm_goal { VM_ENDED, VM_GONE }; /* it runs no more; nobody knows it any more */
/* Until vminfod tells it: 0; -ETIMEDOUT, -ECONNRESET and the like when it does not. */
int vm_await(struct call *call, const char *uuid, enum vm_goal goal, uint64_t limit_ms,
	     struct err *err);

/* --- action_life.c, action_save.c, action_hot.c, action_snapshot.c, action_poll.c --- */
int act_deploy(struct call *call, struct err *err);
int act_shutdown(struct call *call, struct err *err);
int act_cancel(struct call *call, struct err *err);
int act_reboot(struct call *call, struct err *err);
int act_reset(struct call *call, struct err *err);
int act_save(struct call *call, struct err *err);
int act_restore(struct call *call, struct err *err);
int act_migrate(struct call *call, struct err *err);
int act_migrate_local(struct call *call, struct err *err);
int act_attach_disk(struct call *call, struct err *err);
int act_detach_disk(struct call *call, struct err *err);
int act_attach_nic(struct call *call, struct err *err);
int act_detach_nic(struct call *call, struct err *err);
int act_resize(struct call *call, struct err *err);
int act_resize_disk(struct call *call, struct err *err);
int act_prereconfigure(struct call *call, struct err *err);
int act_reconfigure(struct call *call, struct err *err);
int act_snapshot_create(struct call *call, struct err *err);
int act_snapshot_delete(struct call *call, struct err *err);
int act_snapshot_revert(struct call *call, struct err *err);
int act_exec(struct call *call, struct err *err);
int act_exec_cancel(struct call *call, struct err *err);
int act_poll(struct call *call, struct err *err);
int act_xpath(struct call *call, struct err *err);
int act_probe(struct call *call, struct err *err);

/* Of the probe vm_execution: how programs in guests have ended. */
struct view;
struct strbuf;
void print_executions(struct call *call, const struct view *v, struct strbuf *sb);
/* Make a VM of a payload: the caller's, not started; one that is there and does not run goes. */
int vm_make(struct call *call, json_t *payload, struct err *err);
/* Snapshots kept beside the disks become known again; none there is fine. */
int snapshots_take_up(struct call *call, const char *id, const char *dir, struct err *err);
