/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a guest's hardware comes from, its definition or a bhyve_config(5) file, and what QEMU
 * inherits for it.
 */
#pragma once

#include <stdbool.h>

#include "model/vm.h"
#include "qemu/argv.h"

struct err;
struct bhyve;
struct guest;
struct vm;

#define INHERITED_MAX 72

struct inherited {
	struct qemu_fds fds;
	char *vars, *seed;
};

/* --- inherit.c --- */
/* Whatever the result, inherited_done() is to be called. */
int inherited_prepare(struct guest *g, struct inherited *ret, struct err *err);
void inherited_done(struct inherited *in);
size_t inherited_list(const struct inherited *in, int list[INHERITED_MAX]);

/* --- hardware.c --- */
/* Before the hooks: read the configfile, if any, and write FILE.generated. */
int hardware_load(struct guest *g, struct err *err);
void hardware_free(struct guest *g);
/* After the start hooks: is there what the hardware needs? */
int hardware_check_host(struct guest *g, struct err *err);
int hardware_argv(struct guest *g, const struct qemu_fds *fds, struct argv *ret, struct err *err);
enum hardware_wait { WAITS_NOT, WAITS_VIEWER, WAITS_DEBUGGER };
/* What a configfile lets the guest wait for before it runs. */
enum hardware_wait hardware_waits(const struct guest *g);
/* Password of a configfile's frame buffer that the definition does not set; NULL: none. */
const char *hardware_vnc_password(const struct guest *g);
/* Name of the tap of NIC i, there or to be made; false without. */
bool hardware_tap(const struct guest *g, size_t i, char name[NIC_TAP_MAX]);
size_t hardware_consoles(const struct guest *g);
size_t hardware_consoles_of(const struct vm *vm, const struct bhyve *bhyve);
/* The firmware that needs a private copy of its variables; NULL: none. */
const char *hardware_private_vars(const struct guest *g);
