/* SPDX-License-Identifier: Apache-2.0 */
/* Private to deploy*.c: what follows from several members, and the defaults of the core. */
#pragma once

#include "one/deploy/deploy_private.h"

void deploy_finish(struct deploy *d);
void deploy_finish_disk(struct deploy *d, json_t *disk);
void deploy_finish_nic(struct deploy *d, json_t *nic);
/* Remove members that begin with HIDDEN. */
void deploy_finish_hidden(json_t *object);
