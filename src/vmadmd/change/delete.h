/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of a deletion that are those of a VM that runs elsewhere now, too; see delete.c. */
#pragma once

#include "vmadmd/change/change.h"

/* -ENOTSUP naming the file when it defines other VMs beside c->old. */
int delete_check_alone(struct change *c, struct err *err);
int delete_mark(struct change *c, struct err *err);
int delete_announce(struct change *c, struct err *err);
int delete_store(struct change *c, struct err *err);
int delete_forget(struct change *c, struct err *err);
