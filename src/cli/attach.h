/* SPDX-License-Identifier: Apache-2.0 */
/* The `console` command of the tools: a VM as a daemon describes it, and its console's socket. */
#pragma once

#include "cli/cli.h"
#include "cli/js.h"

/*
 * Bridge the terminal with the console of the VM whose uuid and state `vm` has. daemon: who said
 * so, for messages. Returns the exit code, told. Source: vmadm(8), "console".
 */
int attach_console(struct cli *cli, struct slice vm, const char *daemon);
