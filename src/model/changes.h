/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the room: what differs between two finished VMs, row by row. */
#pragma once

struct vm;
struct vm_changes;

/* *ret is owned by the caller: vm_changes_done. Order: rows of the VM, elements within theirs. */
void vm_changes_of(const struct vm *old, const struct vm *new, struct vm_changes *ret);
