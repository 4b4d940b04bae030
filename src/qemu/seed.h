/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NoCloud seed: a volume CIDATA with meta-data, network-config, user-data and vendor-data, from
 * which cloud-init sets up a guest. A VM has one when internal_metadata says
 * cloudinit_datasource=nocloud, or customer_metadata has a key that begins with "cloud-init:".
 * Pure. Source: smartos facts 7.6; docs/decisions/0011.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct err;
struct vm;

#define SEED_FILE "seed.iso" /* in the VM's data directory */

bool seed_wanted(const struct vm *vm);
/* The volume of a finished VM with its metadata; *ret is the caller's. -E2BIG for too much. */
int seed_build(const struct vm *vm, char **ret, size_t *ret_len, struct err *err);
