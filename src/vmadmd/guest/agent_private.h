/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of agent.c share. */
#pragma once

#include <systemd/sd-event.h>

#include "base/strbuf.h"
#include "vmadmd/guest.h"
#include "vmadmd/guest/agent.h"

enum agent_state {
	AGENT_DOWN,    /* the guest has not opened its end */
	AGENT_SYNCING, /* it is to repeat a number */
	AGENT_UP,
	AGENT_SILENT, /* it did not; it is asked again now and then */
};

struct agent_request {
	char *line;
	uint64_t timeout_ms;
	monitor_done done;
	void *ctx;
	struct agent_request *next;
};

struct agent {
	struct guest *g;
	int fd;
	json_int_t pid; /* of the QEMU at the other end */
	enum agent_state state;
	bool told;        /* it was open once: it is spoken of */
	int64_t since_ms; /* wall clock */
	json_int_t number;
	sd_event_source *source, *deadline, *retry;
	struct strbuf in, out;
	size_t seen; /* bytes of in without a line's end */
	struct agent_request *queue;
	size_t queued;
	bool busy; /* the first of the queue was sent */
	struct monitor_watch watch;
	/* agent_freeze.c */
	bool frozen, unsure; /* unsure: it refused to freeze */
	sd_event_source *thaw;
	/* agent_duty.c */
	json_t *addresses;    /* {MAC: {address: since}}, NULL: not known */
	uint64_t answered_ms; /* when it last told them */
	sd_event_source *look, *shutdown;
	bool stopping;
};

/* --- agent_duty.c: what is done unasked --- */
void agent_came(struct agent *a); /* it answers (again) */
void agent_left(struct agent *a);
void agent_judge(struct agent *a); /* facts of the VM changed */
void agent_put_addresses(const struct agent *a, json_t *facts, json_t *agent);

/* --- agent_freeze.c --- */
/* Whom we find frozen although we hold nobody: thawed. */
void agent_thaw_found(struct agent *a);
void agent_freeze_forget(struct agent *a);
