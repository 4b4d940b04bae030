/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's argument vector as a pure function of the VM, what this host's QEMU can do, and the
 * descriptors it inherits. Golden files in tests/golden/argv judge it. No shell, no secret.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct disk;
struct err;
struct vm;

#define QEMU_PORT_GROUP 8 /* root ports come in slots of so many */

/* What was probed of a QEMU binary and this host, once per binary. */
struct qemu_caps {
	char *binary; /* "/usr/bin/qemu-system-x86_64" */
	int major, minor, micro;
	char *machine; /* newest versioned q35: "pc-q35-7.2" */
	bool kvm;      /* what accel = auto means here */
};

void qemu_caps_done(struct qemu_caps *caps);

/*
 * Caps from the two outputs of the binary: "--version" and "-machine help".
 * -EPROTO when they do not look as expected.
 */
int qemu_caps_parse(const char *binary, const char *version_out, const char *machine_out,
		    struct qemu_caps *ret, struct err *err);

/* Descriptors QEMU inherits, numbers as in the child. -1: not given. */
struct qemu_fds {
	int mon;        /* listening socket of vmstated's monitor */
	int qmp;        /* listening socket of vmadmd's monitor */
	int ttya;       /* listening socket of the first serial port */
	int ttyb;       /* of the second, -1 for none */
	int agent;      /* of the guest agent channel, -1 for none */
	int lock;       /* held, not named in the arguments */
	int taps[32];   /* per NIC, -1: no tap */
	int vhosts[32]; /* per NIC on a tap: the kernel's virtio back end, 0: QEMU's own */
	/*
	 * NVRAM of a firmware image: a private copy of qemu_vars_template(), raw or (name ends in
	 * .qcow2, needed for snapshots) converted. NULL: the firmware's variables are lost.
	 */
	const char *vars;
	const char *seed; /* volume of seed_build(), NULL: none */
};

struct argv {
	char **items; /* NULL-terminated */
	size_t count;
};

void argv_done(struct argv *a);
void argv_add(struct argv *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/*
 * Append the words of text: split at blanks, '...' and "..." group, a backslash (outside '...')
 * makes the next character plain. No expansion of any kind. what: the property, for the error.
 * -EINVAL for an open quote, -E2BIG for more than 256 words; then nothing was appended.
 */
int argv_split(const char *text, const char *what, struct argv *ret, struct err *err);
/* One line per argument group with shell quoting, as people read it (logs, --dry-run). */
char *argv_text(const struct argv *a);

/*
 * Everything after vm_finish(). QEMU is to be started with the VM's run directory as working
 * directory: monitors, VNC ("vm.vnc") and recorder ("events") are relative to it. Starts paused
 * (-S). -ENOTSUP naming the property for what we do not serve (spice_port > 0, an unknown block
 * protocol), -EINVAL for contradictions.
 */
int qemu_argv(const struct vm *vm, const struct qemu_caps *caps, const struct qemu_fds *fds,
	      struct argv *ret, struct err *err);

/*
 * Ids we give; buf >= QEMU_ID_MAX. Disk i: device and top node "disk0", file node "disk0-file",
 * iothread "disk0-thread". NIC i: device "nic0", netdev "nic0-net". Root port i: "port0". i counts
 * in the VM as started: what is plugged in later needs a number never used since.
 */
#define QEMU_ID_MAX 32
const char *qemu_disk_id(size_t i, char *buf, size_t size);
const char *qemu_nic_id(size_t i, char *buf, size_t size);
const char *qemu_port_id(size_t i, char *buf, size_t size);

/*
 * NIC i is on root port i; disks for which qemu_disk_on_port() are on the ports from
 * qemu_disk_port() on, in order. Each kind has whole groups of ports, at least one of them free:
 * what is plugged in at the lowest free port of its kind is there again after the next start.
 * Whoever plugs keeps account of them: QEMU lets two devices onto one port, where the guest does
 * not see the second.
 */
size_t qemu_disk_port(const struct vm *vm);
size_t qemu_ports(const struct vm *vm); /* of both kinds */
bool qemu_disk_on_port(const struct disk *disk);

/* CPUs at the start and at most; members not given follow from the others: one socket. */
struct argv_topology {
	unsigned cpus, most, sockets, cores, threads;
};
struct argv_topology argv_topology(const struct vm *vm);

/* Where a disk or NIC is to be plugged into a machine that runs. */
struct qemu_place {
	size_t number;   /* of its id: disk2, nic2 */
	size_t port;     /* of those on a root port */
	unsigned scsi;   /* target of a SCSI device */
	const char *tap; /* name of the tap's descriptor in QEMU's monitor, NULL: none */
};

/*
 * What makes disks[i] or nics[i] appear at that place, in the order of making, as pairs of an
 * option of the command line ("-blockdev") and its JSON: the same as at a start.
 */
int qemu_disk_argv(const struct vm *vm, size_t i, const struct qemu_place *at, struct argv *ret,
		   struct err *err);
int qemu_nic_argv(const struct vm *vm, size_t i, const struct qemu_place *at, struct argv *ret,
		  struct err *err);

/*
 * The variables file that belongs to a firmware image by its name (OVMF_CODE_4M.fd:
 * OVMF_VARS_4M.fd); NULL when the name holds no "CODE". Caller frees.
 */
char *qemu_vars_template(const char *bootrom);
