/* SPDX-License-Identifier: Apache-2.0 */
/* What net.c (the NICs of a start) and net_plug.c (those of a running machine) share. */
#pragma once

#include <jansson.h>
#include <stddef.h>

struct err;
struct guest;
struct nic;
struct strbuf;

/* --- net.c --- */
/* An item of the worker's "make"; n NULL: the tap is there and only opened. */
json_t *net_plan_nic(const char *tap, size_t i, const struct nic *n);
/* Append what filters and limits one NIC of ours. */
void net_rules(struct strbuf *sb, const char *tap, const struct nic *n);
/* Take the taps a worker has sent, by their index; taps[VM_NICS_MAX]. */
void net_receive(int reply, int *taps);
/* -EADDRINUSE when another running guest has nics[i]'s address in the same network. */
int net_check_mac(const struct guest *g, size_t i, const struct nic *n, struct err *err);

/* It has more than its definition says: at its end all of the host's filters are looked at. */
void net_plugged(struct guest *g);

/* --- net_plug.c --- */
/* QEMU is gone: what was being plugged is taken back. */
void net_plug_end(struct guest *g);
/* So is the guest: only the answer is given. */
void net_plug_free(struct guest *g);
