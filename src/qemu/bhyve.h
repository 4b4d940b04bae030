/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hardware described by a bhyve_config(5) file: read it, lay what the definition gives over it,
 * and turn the result into QEMU's arguments. Loading says everything that is wrong with a file;
 * the host (files, interfaces, devices) is looked at only by bhyve_check_host, after the hooks
 * that make them. Order of events: bhyve_load, hooks, bhyve_check_host, bhyve_argv.
 * Source: bhyve_config(5), bhyve(8), vmstated(8).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct argv;
struct err;
struct problems;
struct qemu_caps;
struct qemu_fds;
struct vm;

#define BHYVE_FILE_MAX     (1u << 20) /* bytes of a file */
#define BHYVE_CONSOLES_MAX 2          /* serial ports that end in our own sockets by name */

struct bhyve; /* a file, merged; independent of the VM it was loaded with */

/* Of fbuf. QEMU itself listens on vm.vnc in the run directory; viewers come by address and port. */
struct bhyve_vnc {
	const char *address;  /* numeric, "127.0.0.1"; NULL: no frame buffer */
	uint16_t port;        /* 5900 and above */
	const char *password; /* NULL: none. struct vm's vnc_password goes before it */
	bool wait;            /* let the guest go only when the first viewer has come */
};

/* What others must know; strings live as long as the struct bhyve. */
struct bhyve_info {
	const char *uuid; /* the guest's: of the definition where given, else of the file */
	uint32_t ram_mib, vcpus;
	uint32_t sockets, cores, threads;
	const char *bootrom;  /* NULL: SeaBIOS */
	const char *bootvars; /* NULL: with a bootrom, give qemu_fds.vars a private copy */
	size_t consoles;      /* 0: no ttya; 1: ttya; 2: ttya and ttyb, see struct qemu_fds */
	bool wait;            /* gdb.wait: the guest stays paused until a debugger lets it go */
	struct bhyve_vnc vnc;
};

/*
 * Read path and lay over it what vm's definition gave (never what it did not give). All findings
 * go to p, errors first, each at "FILE:LINE" (lines of the definition for what it gave) with text
 * "VARIABLE: ..."; values of passwords are never shown. Relative paths in the file start from the
 * file's folder. *ret, to be freed with bhyve_free, is set only without errors; warnings leave it
 * usable. Returns 0, or -EINVAL, -ENOENT and so on with at least one error in p; -EPERM when
 * others than root and our user may write the file.
 */
int bhyve_load(const char *path, const struct vm *vm, struct bhyve **ret, struct problems *p);
/* The same from a text; path is for messages and relative paths. */
int bhyve_load_text(const char *path, const char *text, const struct vm *vm, struct bhyve **ret,
		    struct problems *p);
void bhyve_free(struct bhyve *b); /* NULL is fine */

const struct bhyve_info *bhyve_info(const struct bhyve *b);

/*
 * The merged file, the ".generated" of vmstated(8): the file's text, a newline, and a line for
 * each thing the definition gave. It may hold a VNC password: write it with mode 0600. Caller
 * frees.
 */
char *bhyve_generated(const struct bhyve *b);

/* Name of the i-th tap interface, in the order of qemu_fds.taps; NULL beyond the last. */
const char *bhyve_tap(const struct bhyve *b, size_t i);

/*
 * Errors for what the file names and this host lacks: disks, firmware, folders, serial lines, tap
 * interfaces, devices to pass through. To be called after the start hooks.
 */
void bhyve_check_host(const struct bhyve *b, struct problems *p);

/*
 * The whole vector, in place of qemu_argv: the VM's identity, accelerator, monitors and extra
 * options are those of vm, everything else is the file's. A tap whose descriptor is not given is
 * opened by QEMU by its name. QEMU must run in the run directory. -ENOTSUP and -EINVAL as there.
 */
int bhyve_argv(const struct bhyve *b, const struct vm *vm, const struct qemu_caps *caps,
	       const struct qemu_fds *fds, struct argv *ret, struct err *err);
