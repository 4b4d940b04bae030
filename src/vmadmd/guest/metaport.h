/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's end of the metadata service: one connection to vm.ttyb per running VM. */
#pragma once

struct guest;

/* Open or close it as the facts and the definition say. */
void metaport_update(struct guest *g);
void metaport_close(struct guest *g);
