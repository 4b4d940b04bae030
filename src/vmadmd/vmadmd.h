/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadmd inside: the daemon's one context and what its files offer each other. vmadmd acts: it
 * forwards lifecycle to vmstated, talks QMP, hands VNC viewers to QEMU, and makes every change of
 * a definition that is made through us. It knows lifecycle from vmstated's feed, never from
 * vminfod.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/file.h"
#include "base/paths.h"
#include "base/uuid.h"
#include "net/http.h"

struct ask;
struct autoboot;
struct catalog;
struct catalog_entry;
struct change;
struct err;
struct feed_client;
struct feed_server;
struct guest;
struct image_work;
struct job;
struct peer_server;
struct stats;
struct vm;
struct worker;

#define QMP_ANSWER_MS    5000u /* how long QEMU has for one answer */
#define GRACE_MS         500u  /* after our start, for vminfod to find our feed again */
#define MONITOR_RETRY_MS 500u  /* between attempts to reach a monitor */
#define SOCKETS_MAX      8     /* control sockets, -s */

struct vmadmd {
	const struct paths *paths;
	sd_event *event;
	struct catalog *catalog;
	struct feed_server *feed;   /* ours: provisioning, VNC, begin and commit */
	struct feed_client *states; /* vmstated's */
	struct http_server *http;
	sd_event_source *files, *scan;
	void *guests;           /* tsearch(3) tree of struct guest by uuid */
	struct ask *asks;       /* requests to vmstated under way */
	struct change *changes; /* oldest first; one at a time per VM */
	struct worker *workers;
	struct image_work *images; /* under way */
	struct stats *stats;       /* NULL until first asked */
	struct job *jobs;          /* newest first */
	struct autoboot *autoboot;
	struct zfs *zfs;
	struct lease_watch *leases; /* made by the first option or leases_start */
	enum file_sync sync;
	uint64_t started_ms; /* when our feed began to be there */
	uid_t uid;           /* our own user */
	const char *sockets[SOCKETS_MAX];
	size_t nsockets;
	struct peer_server *peers; /* NULL: none is listened to */
	bool has_reader;           /* of our feed, beside root and us */
	uid_t reader;
};

/* --- routes.c --- */
extern const struct http_route vmadmd_routes[];
extern const size_t vmadmd_nroutes;

/* A VM named in a request, which the peer may act on. */
struct target {
	char uuid[UUID_LEN + 1];
	const struct vm
		*vm;  /* borrowed until the next catalog call; NULL: runs without definition */
	uid_t uid;    /* of the caller */
	bool secrets; /* he may see them; false only where one may look at everything */
};

/* Find the VM of ":id" and check the caller; on failure the request has been answered. */
bool target_find(struct vmadmd *d, struct http_request *req, bool admin, struct target *ret);
uid_t request_uid(const struct vmadmd *d, const struct http_request *req);

/* --- ask.c: requests to vmstated --- */
/* r: 0 with vmstated's status and body, or -errno with err. Runs once, from the loop. */
typedef void (*ask_done)(void *ctx, int r, int status, const char *body, const struct err *err);

struct ask_spec {
	const char *uuid, *verb; /* POST /vms/UUID/VERB */
	json_t *body;            /* taken; "caller" is added */
	uid_t uid;
	const char *command; /* "vmadm start" */
	uint64_t timeout_ms;
};

#define ASK_WAIT_MS  2000u    /* how long we wait for a vmstated that is not there */
#define ASK_LIMIT_MS 3600000u /* vmstated has its own deadlines; this only ends the absurd */
void ask_start(struct vmadmd *d, const struct ask_spec *spec, ask_done done, void *ctx);
void ask_free_all(struct vmadmd *d);
/* The error of a reply with a status of 300 and above: its code and message. Returns -errno. */
int ask_error(int status, const char *body, struct err *err);

/* --- actions.c, query.c --- */
void handle_action(struct http_request *req, void *ctx);
void handle_info(struct http_request *req, void *ctx);

/* --- change.c --- */
void handle_create(struct http_request *req, void *ctx);
void handle_update(struct http_request *req, void *ctx);
void handle_delete(struct http_request *req, void *ctx);
void handle_reprovision(struct http_request *req, void *ctx);
void handle_install(struct http_request *req, void *ctx);

/* An update of our own; done(ctx, r, err) runs once, from the loop or before this returns. */
typedef void (*change_done)(void *ctx, int r, const struct err *err);
struct change_by {
	uid_t uid;
	const char *command;
	const char *kind; /* of the cause, CAUSE_COMMAND when NULL; lasts */
};
void change_update(struct vmadmd *d, const char *uuid, json_t *payload, const struct change_by *by,
		   change_done done, void *ctx);
void change_free_all(struct vmadmd *d);

/* --- marks.c: what must be tidied up after a sudden end in a change --- */
enum mark { MARK_CREATE, MARK_UPDATE, MARK_DELETE };
#define MARK_COUNT 3
/* Durable before this returns (unless --no-fsync). content is borrowed. */
int mark_write(struct vmadmd *d, const char *uuid, enum mark mark, const json_t *content,
	       struct err *err);
/* The data directory of a new VM, which appears with MARK_CREATE in it: never without. */
int mark_new(struct vmadmd *d, const char *uuid, const json_t *content, struct err *err);
void mark_remove(struct vmadmd *d, const char *uuid, enum mark mark);
/* Remove the data directory, finished at our next start when we are killed. */
void data_remove(struct vmadmd *d, const char *uuid);
/* At the start, with the catalog loaded: finish or undo what was cut short. */
void marks_clean(struct vmadmd *d);
void mark_clean_update(struct vmadmd *d, const char *uuid); /* of a VM that runs; in a worker */
void lock_forget(const struct vmadmd *d, const char *uuid); /* unless the VM is there */
int parent_sync(const struct vmadmd *d, const char *path, struct err *err); /* its directory */
/* Something that runs holds the VM's lock: 1, else 0 and *ret_fd holds it (-1: no data dir). */
int guest_lock_take(struct vmadmd *d, const char *uuid, int *ret_fd, struct err *err);

/* --- autoboot.c --- */
void autoboot_begin(struct vmadmd *d); /* once per boot of the host, when states are known */
void autoboot_poke(struct vmadmd *d);  /* a state changed */
void autoboot_free(struct vmadmd *d);
