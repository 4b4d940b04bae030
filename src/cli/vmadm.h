/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of vmadm: handlers and their options, put together by the table in vmadm.c. */
#pragma once

#include "cli/cli.h"

/* vmadm_define.c: definitions */
int cmd_create(struct cli *cli);
int cmd_update(struct cli *cli);
int cmd_delete(struct cli *cli);
int cmd_reprovision(struct cli *cli);
int cmd_install(struct cli *cli);
int cmd_get(struct cli *cli);
/* Send an update payload and tell its changes; returns the exit code. */
int update_send(struct cli *cli, const char *id, const char *payload);
/* vmadm_check.c: what would be */
extern const struct cli_option change_options[]; /* -f, --dry-run */
#define OPT_DRY_RUN 'N'
int cmd_validate(struct cli *cli);
int cmd_diff(struct cli *cli);
int dry_create(struct cli *cli, const char *payload);
extern const struct cli_option dry_options[]; /* --dry-run */
int dry_delete(struct cli *cli, const char *id);
int dry_update(struct cli *cli, const char *id, const char *payload);
/* Of an answer {"argv","text"}: the text on stdout, unless --json prints the whole. */
void put_arguments(struct cli *cli, struct slice answer);
extern const struct cli_option get_options[]; /* --pending */
/* vmadm_edit.c */
int cmd_edit(struct cli *cli);
/* vmadm_why.c */
int cmd_why(struct cli *cli);
/* vmadm_doctor.c */
extern const struct cli_option doctor_options[];
int cmd_doctor(struct cli *cli);
/* vmadm_bundle.c */
extern const struct cli_option bundle_options[];
int cmd_bundle(struct cli *cli);
/* vmadm_life.c: what a VM does */
extern const struct cli_option kill_options[];
int cmd_start(struct cli *cli);
int cmd_stop(struct cli *cli);
int cmd_reboot(struct cli *cli);
int cmd_kill(struct cli *cli);
int cmd_sysrq(struct cli *cli);
/* vmadm_agent.c */
int cmd_agent(struct cli *cli);
/* vmadm_image.c */
extern const struct cli_option image_options[];
int cmd_image(struct cli *cli);
/* vmadm_jobs.c */
int cmd_jobs(struct cli *cli);
/* vmadm_look.c: what can be seen */
int cmd_info(struct cli *cli);
int cmd_console(struct cli *cli);
int cmd_events(struct cli *cli);
int cmd_completion(struct cli *cli);
/* vmadm_backup.c */
extern const struct cli_option receive_options[];
int cmd_backup(struct cli *cli);
int cmd_receive(struct cli *cli);
/* vmadm_save.c */
extern const struct cli_option restore_options[];
extern const struct cli_option migrate_options[];
int cmd_save(struct cli *cli);
int cmd_restore(struct cli *cli);
int cmd_migrate(struct cli *cli);
/* vmadm_snapshot.c */
extern const struct cli_option snapshot_options[];
int cmd_create_snapshot(struct cli *cli);
int cmd_rollback_snapshot(struct cli *cli);
int cmd_delete_snapshot(struct cli *cli);
int cmd_list_snapshots(struct cli *cli);
/* vmadm_help.c */
int cmd_help(struct cli *cli);
/* vmadm_list.c */
extern const struct cli_option list_options[], lookup_options[];
int cmd_list(struct cli *cli);
int cmd_lookup(struct cli *cli);
/* vmadm_live.c: hardware of a VM that runs */
extern const struct cli_option medium_options[];
int cmd_attach(struct cli *cli);
int cmd_detach(struct cli *cli);
int cmd_resize_disk(struct cli *cli);
int cmd_medium(struct cli *cli);
int cmd_pause(struct cli *cli);
int cmd_resume(struct cli *cli);
