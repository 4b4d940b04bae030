/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmstatedctl: talk to vmstated alone: no other daemon has to run. This file is the table of
 * commands. Source: facts/vmstated section 10, with its defects mended: -h and -s work, exit
 * codes tell.
 */
#include "cli/vmstatedctl.h"

#include "base/mem.h"

/* clang-format off */
static const struct cli_option tool_options[] = {
	{ OPT_SOCKET, 's', "socket", "PATH", "vmstated's socket; default run/vmstated.sock below the root" },
	{ 0 },
};

static const struct command commands[] = {
	{ "start", NULL, ctl_start, 1, 1, NULL, false, "VM",
	  "Start a VM." },
	{ "stop", NULL, ctl_stop, 1, 1, cli_stop_options, false, "[-F] [-t SEC] VM",
	  "Ask the guest to power off; it is forced when its time is over." },
	{ "restart", NULL, ctl_restart, 1, 1, cli_stop_options, false, "[-F] [-t SEC] VM",
	  "Stop and start." },
	{ "kill", NULL, ctl_kill, 1, 1, ctl_kill_options, false, "[-S NAME] VM",
	  "Send a signal to the VM's process; KILL unless another is given." },
	{ "failreset", NULL, ctl_failreset, 1, 1, NULL, false, "VM",
	  "Leave failure mode, so that the VM can be started again." },
	{ "status", NULL, ctl_status, 0, 1, NULL, false, "[VM]",
	  "Print all VMs as a table, or everything about one." },
	{ "reload", NULL, ctl_reload, 0, 0, NULL, false, "",
	  "Read all definitions again; problems are told and make it fail." },
	{ "log", NULL, ctl_log, 1, 1, ctl_log_options, false, "[-f] [-b N] [-n LINES] VM",
	  "Print what the VM's hooks, its process and vmstated wrote to its log." },
	{ "console", NULL, ctl_console, 1, 1, NULL, false, "VM",
	  "Connect to the VM's console; leave with Ctrl-]." },
	{ "shutdown-all", NULL, ctl_shutdown_all, 0, 0, ctl_shutdown_options, false, "[-t SEC]",
	  "Stop all VMs, those that others come after last." },
	{ "upgrade", NULL, ctl_upgrade, 0, 0, NULL, false, "",
	  "Let vmstated run its program anew; guests, consoles and deadlines go on." },
	{ "completion", NULL, ctl_completion, 1, 1, NULL, false, "bash | names",
	  "Print the completion script for bash, or the words it completes VMs with." },
	{ "help", NULL, cli_help, 0, 1, NULL, false, "[COMMAND]",
	  "Print help." },
};

static const struct tool vmstatedctl = {
	.name = "vmstatedctl",
	.doc = "Control the supervisor of virtual machines. VM is a name, a uuid, the first characters\n"
	       "of a uuid (four or more), or an alias that only one VM has.",
	.commands = commands,
	.ncommands = ARRAY_SIZE(commands),
	.options = tool_options,
	.texts = {
		.unknown_command = "Unknown command: @",
		.missing = "Missing arguments",
	},
};
/* clang-format on */

int main(int argc, char **argv)
{
	return cli_main(&vmstatedctl, argc, argv);
}
