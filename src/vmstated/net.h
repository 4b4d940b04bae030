/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network of guests: taps made before QEMU and handed to it, their place in a bridge, their
 * filter. The work itself is done by a process of ours (worker.h) with a deadline; the loop
 * only waits. Order: net_prepare, net_take, later net_change, at the end net_release.
 */
#pragma once

#include <stdbool.h>

struct err;
struct guest;
struct supervisor;

/* Make ready what the guest's NICs need; goes on with launch_ready or launch_failed. */
void net_prepare(struct guest *g);
/* Move the taps made ready into taps[VM_NICS_MAX]; -1 where a NIC has none. */
void net_take(struct guest *g, int *taps);
/* QEMU is gone or never came: take away what its taps leave behind. */
void net_release(struct guest *g);
/* Does that still go on? Then EV_HOOK_DONE comes (again) when it is over. */
bool net_wait(struct guest *g);
/* The definition changed: put what is live of it in force. */
void net_change(struct guest *g);
/* What was plugged in or out counts as started with by now. */
void net_applied(struct guest *g);
/* Taken up from an earlier vmstated. */
void net_adopt(struct guest *g);
/* Put the filters of all running guests in force anew: somebody may have flushed them. */
void net_renew(struct supervisor *sup);
void net_free(struct guest *g);

/* At start: take away what a vmstated that was killed could not. */
void net_audit(struct supervisor *sup);
void net_audit_free(struct supervisor *sup);
/* Does any work go on that a new program would not know of? */
bool net_busy(const struct supervisor *sup);
