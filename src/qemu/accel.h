/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is /dev/kvm worth using? Opening it or reaching HLT proves nothing; only speed means KVM.
 * Source: qemu facts section 7, docs/decisions.
 */
#pragma once

struct err;

#define ACCEL_PROBE_MS    1000   /* deadline of the child that measures */
#define ACCEL_LOOPS       200000 /* iterations of the 64-bit loop, best of three */
#define ACCEL_NS_PER_LOOP 10.0   /* slower is no KVM */

/*
 * Make a VM and a vCPU with the KVM ioctls and time the loop. Blocks (for ever, on some hosts):
 * run it in a child with a deadline. *ret_ns: nanoseconds per iteration. -ENOENT, -EACCES, ...
 * with the reason when KVM cannot be opened or fails.
 */
int accel_measure(double *ret_ns, struct err *err);
