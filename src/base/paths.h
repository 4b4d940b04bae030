/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where everything lies: one root, every path derived from it, so that tests and unprivileged
 * users run the whole suite in a folder. Options of the originals override single members.
 */
#pragma once

struct err;

struct paths {
	char *root;         /* "/" or an absolute folder without trailing slash */
	char *etc;          /* <root>/etc/vmstated: a directory per VM */
	char *lib;          /* <root>/var/lib/vmstated: data that outlives the boot */
	char *run;          /* <root>/run/vmstated: a directory per VM, gone with the boot */
	char *log;          /* <root>/var/log/vmstated */
	char *pidfile;      /* <root>/run/vmstated.pid */
	char *vmstated;     /* <root>/run/vmstated.sock */
	char *vmadmd;       /* <root>/run/vmadmd.http */
	char *vminfod;      /* <root>/run/vminfod.http */
	char *vminfod_addr; /* <root>/run/vminfod.addr: "127.0.0.1:PORT" */
	char *vmstated_feed;
	char *vmadmd_feed;
};

#define AUTO_PATHS __attribute__((cleanup(paths_done)))

/* root NULL: the environment's DROVER_ROOT, else "/". Made absolute; it need not exist. */
int paths_init(struct paths *p, const char *root, struct err *err);
void paths_done(struct paths *p);

/* Files of one VM; caller frees. */
char *path_of_run(const struct paths *p, const char *uuid, const char *file);
char *path_of_data(const struct paths *p, const char *uuid, const char *file);
/* The variables of its firmware: given, the definition's, or the place where NULL has them. */
char *path_of_nvram(const struct paths *p, const char *uuid, const char *given);
