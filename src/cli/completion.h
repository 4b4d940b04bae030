/* SPDX-License-Identifier: Apache-2.0 */
/* Completion of command lines by bash, from the tables of commands and the names of the VMs. */
#pragma once

#include "cli/cli.h"
#include "cli/js.h"

/*
 * Handler of `completion bash | names`. vms: asks for an array of objects with uuid and name,
 * into *ret_text to free and *ret_vms within it; what it cannot get it leaves out, telling
 * nobody: this runs while a person types.
 */
int completion_run(struct cli *cli,
		   void (*vms)(struct cli *cli, char **ret_text, struct slice *ret_vms));
