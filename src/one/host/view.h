/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All VMs of the host as monitoring sees them: one read of vminfod, one of vmadmd's counters, and
 * the counters of the time before, for rates. No process per VM, no question per VM.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct call;
struct err;
struct strbuf;

struct view {
	json_t *vms;
	json_t *stats;  /* by uuid; empty where vmadmd is away */
	json_t *before; /* of the last look: {uuid: [cpu ns, us]} */
	char *memory;   /* file it is kept in */
	bool sure;      /* vmstated told everything: who is not in vms does not run */
};

/* Look. with_stats: counters too. -errno when vminfod cannot be asked: then nothing is known. */
int view_open(struct view *v, struct call *call, bool with_stats, struct err *err);
/* Remembers the counters for the next time. */
void view_done(struct view *v);

/* 'a', 'p', 'e', 'd', or '-' when nobody can tell. Source: fact sheet, 6.1. */
char vm_letter(const json_t *vm);
/* RUNNING, SUSPENDED, FAILURE, POWEROFF or UNKNOWN of monitord. */
const char *vm_state_word(char letter);
/* "one-7" is 7; -1 for a VM the core has not deployed. */
long vm_number(const json_t *vm);
/* What the core calls it by: the name of its own, the uuid of another. Borrowed. */
const char *vm_deploy_id(const json_t *vm);

/* "CPU=1.5", "MEMORY=..", ..., "DISK_SIZE=[..]", each followed by end. */
void put_counters(struct strbuf *sb, const struct view *v, const json_t *vm, char end);
void put_sizes(struct strbuf *sb, const json_t *vm, char end);
/* Sizes of disk snapshots, SNAPSHOT_SIZE=[..]. */
void put_snapshots(struct strbuf *sb, const json_t *vm, char end);
/* A template the core can import the VM by. key: IMPORT_VM_ID or DEPLOY_ID. */
void put_import(struct strbuf *sb, const json_t *vm, const char *hypervisor, const char *key);
