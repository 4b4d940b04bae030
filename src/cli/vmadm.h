/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of vmadm: handlers and their options, put together by the table in vmadm.c. */
#pragma once

#include "cli/cli.h"

/* vmadm_define.c: definitions */
int cmd_create(struct cli *cli);
int cmd_update(struct cli *cli);
int cmd_delete(struct cli *cli);
int cmd_get(struct cli *cli);
/* vmadm_life.c: what a VM does */
extern const struct cli_option kill_options[];
int cmd_start(struct cli *cli);
int cmd_stop(struct cli *cli);
int cmd_reboot(struct cli *cli);
int cmd_kill(struct cli *cli);
int cmd_sysrq(struct cli *cli);
/* vmadm_look.c: what can be seen */
int cmd_info(struct cli *cli);
int cmd_console(struct cli *cli);
int cmd_events(struct cli *cli);
int cmd_help(struct cli *cli);
/* vmadm_list.c */
extern const struct cli_option list_options[], lookup_options[];
int cmd_list(struct cli *cli);
int cmd_lookup(struct cli *cli);
