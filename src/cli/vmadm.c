/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadm: make, change, run and look at virtual machines. This file is the table of commands;
 * changes go to vmadmd (signals to vmstated), reads to vminfod.
 */
#include "cli/vmadm.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/events.h"
#include "cli/payload.h"

/* clang-format off */
static const struct command commands[] = {
	{ "create", NULL, cmd_create, 0, 0, change_options, false, "[--dry-run] [-f FILE]",
	  "Make a VM from a JSON payload, and start it when autoboot is set." },
	{ "update", NULL, cmd_update, 1, CLI_ANY, change_options, false,
	  "[--dry-run] VM [-f FILE | KEY=VALUE ...]",
	  "Change a VM; says for each change whether it holds at once or from the next start." },
	{ "edit", NULL, cmd_edit, 1, 1, NULL, false, "VM",
	  "Edit what can be changed of a VM in $EDITOR; it is judged before it counts." },
	{ "diff", NULL, cmd_diff, 1, 1, payload_options, false, "VM [-f FILE]",
	  "Print what an update payload, or a VM object, would change." },
	{ "validate", NULL, cmd_validate, 1, 2, payload_options, false,
	  "create [-f FILE] | update [kvm | VM] [-f FILE]",
	  "Judge a payload; for an update alone, or against the VM it is meant for." },
	{ "get", "json", cmd_get, 1, 1, get_options, false, "[--pending] VM",
	  "Print the VM object as JSON, or what its next start will change." },
	{ "list", NULL, cmd_list, 0, CLI_ANY, list_options, false,
	  "[-p] [-H | -h] [-o FIELD,...] [-s FIELD,...] [KEY=VALUE ...]",
	  "List VMs as a table." },
	{ "lookup", NULL, cmd_lookup, 0, CLI_ANY, lookup_options, false,
	  "[-j | -1] [-o FIELD,...] [KEY=VALUE ...]",
	  "Print the uuids of the VMs that match all filters; all VMs without one." },
	{ "start", "boot", cmd_start, 1, CLI_ANY, dry_options, false,
	  "[--dry-run] VM [order=ORDER] [disk=PATH,MODEL] [cdrom=PATH,MODEL]",
	  "Start a VM. order: c disk, d cdrom, n network, for example order=dc or once=d. Order and "
	  "media\n      count for this boot only." },
	{ "stop", "halt", cmd_stop, 1, 1, cli_stop_options, false, "VM [-F] [-t SEC]",
	  "Ask the guest to power off; it is forced when its time is over." },
	{ "reboot", NULL, cmd_reboot, 1, 1, cli_stop_options, false, "VM [-F] [-t SEC]",
	  "Stop and start; with -F reset the machine in place." },
	{ "delete", "destroy", cmd_delete, 1, 1, dry_options, false, "[--dry-run] VM",
	  "Stop a VM and remove its definition and its disks." },
	{ "info", NULL, cmd_info, 1, CLI_ANY, NULL, false, "VM [TYPE ...]",
	  "Print what the running machine says of itself, as JSON. Types: all, block, blockstats, "
	  "chardev,\n      cpus, kvm, pci, spice, status, version, vnc." },
	{ "events", NULL, cmd_events, 0, 1, event_options, false, "[-fjr] [VM]",
	  "Print changes of all VMs or of one as they happen." },
	{ "why", NULL, cmd_why, 1, 1, NULL, false, "VM",
	  "Print what a VM is doing, how it last ended, who wanted that, and the log about it." },
	{ "bundle", NULL, cmd_bundle, 1, 1, bundle_options, false, "[-o FILE] VM",
	  "Write what a bug report about a VM needs, without secrets, into a tar archive." },
	{ "doctor", NULL, cmd_doctor, 0, 0, doctor_options, false, "[-f FILE]",
	  "Tell what stands in the way of virtual machines on this host, a line each with what to do;\n"
	  "      the exit status is 1 when anything is bad." },
	{ "console", NULL, cmd_console, 1, 1, NULL, false, "VM",
	  "Connect to the VM's console; leave with Ctrl-]." },
	{ "sysrq", NULL, cmd_sysrq, 1, CLI_ANY, NULL, false, "VM nmi | screenshot",
	  "Send a non-maskable interrupt, or take a picture of the screen." },
	{ "kill", NULL, cmd_kill, 1, 1, kill_options, true, "[-s SIGNAL | -SIGNAL] VM",
	  "Send a signal to the VM's process; SIGTERM unless another is given." },
	{ "attach", NULL, cmd_attach, 2, CLI_ANY, NULL, false, "VM disk | nic KEY=VALUE ...",
	  "Add a disk or a NIC; a VM that runs gets it at once." },
	{ "detach", NULL, cmd_detach, 3, 3, NULL, false, "VM disk | nic NAME",
	  "Take a disk (name or path) or a NIC (name or MAC) out; a guest that runs must let go of it." },
	{ "resize-disk", NULL, cmd_resize_disk, 3, 3, NULL, false, "VM DISK SIZE",
	  "Enlarge a disk; a guest that runs sees it at once." },
	{ "medium", NULL, cmd_medium, 2, 3, medium_options, false, "[-F] VM DRIVE [FILE]",
	  "Put a file into a CD drive; without FILE eject what is in it." },
	{ "pause", NULL, cmd_pause, 1, 1, NULL, false, "VM", "Stop the processors of a VM." },
	{ "resume", NULL, cmd_resume, 1, 1, NULL, false, "VM",
	  "Let a VM go on that was paused, or stopped by an error of a disk." },
	{ "agent", NULL, cmd_agent, 2, CLI_ANY, NULL, false,
	  "VM ping | addresses | freeze | thaw | set-time | exec -- PROGRAM [WORD ...]",
	  "Ask the agent in the guest; exec runs a program there and prints what it wrote." },
	{ "create-snapshot", NULL, cmd_create_snapshot, 2, 2, snapshot_options, false,
	  "[--memory | --no-memory] VM NAME",
	  "Take a snapshot of all disks, the firmware's variables, and the memory of a VM that runs." },
	{ "rollback-snapshot", NULL, cmd_rollback_snapshot, 2, 2, snapshot_options, false,
	  "[--memory | --no-memory] VM NAME",
	  "Go back to a snapshot, and go on from its memory; without, a VM that runs starts anew." },
	{ "delete-snapshot", NULL, cmd_delete_snapshot, 2, 2, NULL, false, "VM NAME",
	  "Delete a snapshot; the others stay, in any order." },
	{ "list-snapshots", NULL, cmd_list_snapshots, 1, 1, NULL, false, "VM",
	  "List the snapshots of a VM, newest first." },
	{ "backup", "send", cmd_backup, 1, 2, NULL, false, "VM [FILE | -]",
	  "Write a whole VM as a stream to a file or standard output, while it runs or is stopped." },
	{ "receive", NULL, cmd_receive, 0, 0, receive_options, false, "[-f FILE] [-z POOL]",
	  "Make a VM of such a stream, with the uuid it had; it is not started." },
	{ "save", NULL, cmd_save, 2, 2, NULL, false, "VM FILE",
	  "Write memory and devices of a VM that runs into a file, and stop it." },
	{ "restore", NULL, cmd_restore, 2, 2, restore_options, false, "[--force] VM FILE",
	  "Start a VM with the memory of a file, where it was when it was saved." },
	{ "migrate", NULL, cmd_migrate, 1, 2, migrate_options, false,
	  "[--copy-disks] [--bandwidth MIB] [--downtime MS] VM DESTINATION | --force-here VM",
	  "Let a VM that runs go on elsewhere: unix:/ROOT, tls://HOST:PORT or "
	  "ssh://[USER@]HOST[:PORT][/ROOT]." },
	{ "reprovision", NULL, cmd_reprovision, 1, CLI_ANY, payload_options, false,
	  "VM [-f FILE | image=IMAGE | image_uuid=UUID]",
	  "Make the boot disk of a VM anew from an image; the other disks stay. A VM that runs is stopped\n"
	  "      by force and started again." },
	{ "install", NULL, cmd_install, 1, 1, NULL, false, "VM",
	  "Make the disks a definition asks for that are not there yet, without a start." },
	{ "image", NULL, cmd_image, 1, 3, image_options, false,
	  "import [-n NAME] [FILE | -] | list | get IMAGE | delete IMAGE | export IMAGE [FILE]",
	  "Manage the images disks are made from; an import shows its progress and its SHA-256 is kept." },
	{ "jobs", NULL, cmd_jobs, 0, 2, NULL, false, "[JOB] | watch JOB | cancel JOB",
	  "List work that takes a while, print one job, follow it to its end, or end it." },
	{ "completion", NULL, cmd_completion, 1, 1, NULL, false, "bash | names",
	  "Print the completion script for bash, or the words it completes VMs with." },
	{ "help", NULL, cmd_help, 0, 1, NULL, false, "[COMMAND | properties]",
	  "Explain a command, or print the properties a VM can have." },
};

static const struct tool vmadm = {
	.name = "vmadm",
	.doc = "Manage the virtual machines of this host. VM is a uuid, a name, an alias that only one\n"
	       "VM has, or the first characters of a uuid (four or more).",
	.commands = commands,
	.ncommands = ARRAY_SIZE(commands),
	.texts = {
		.unknown_command = "Invalid command: \"@\".",
		.missing = "Invalid or missing UUID for @",
	},
};
/* clang-format on */

int main(int argc, char **argv)
{
	return cli_main(&vmadm, argc, argv);
}
