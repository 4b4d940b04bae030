/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of a creation that are those of a received VM too; see create.c. */
#pragma once

#include "vmadmd/change/change.h"

/* MACs we made for new NICs are made anew as long as another VM has them. True: some were. */
bool create_avoid_macs(struct change *c);
int create_announce(struct change *c, struct err *err);
int create_store(struct change *c, struct err *err);
int create_install(struct change *c, struct err *err);
int create_settle(struct change *c, struct err *err);
int create_answer(struct change *c, struct err *err);
int create_undo_files(struct change *c, struct err *err);
void create_undo(struct change *c);
