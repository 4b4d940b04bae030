/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of vmstatedctl: handlers and their options, put together in vmstatedctl.c. */
#pragma once

#include "cli/cli.h"
#include "cli/request.h"

#define OPT_SOCKET 's'

/* Let -s replace the path of vmstated's socket. */
void ctl_socket(struct cli *cli);
/* One request to vmstated: 0 and a reply to free, or the exit code, told. */
int ctl_ask(struct cli *cli, const struct request *like, struct client_reply *ret);

/* vmstatedctl_life.c: what a VM does */
extern const struct cli_option ctl_kill_options[];
int ctl_start(struct cli *cli);
int ctl_stop(struct cli *cli);
int ctl_restart(struct cli *cli);
int ctl_kill(struct cli *cli);
int ctl_failreset(struct cli *cli);
/* vmstatedctl_all.c: what concerns all of them, and vmstated itself */
extern const struct cli_option ctl_shutdown_options[];
int ctl_shutdown_all(struct cli *cli);
int ctl_upgrade(struct cli *cli);
/* vmstatedctl_look.c: what can be seen */
extern const struct cli_option ctl_log_options[];
int ctl_reload(struct cli *cli);
int ctl_status(struct cli *cli);
int ctl_log(struct cli *cli);
int ctl_console(struct cli *cli);
int ctl_completion(struct cli *cli);
