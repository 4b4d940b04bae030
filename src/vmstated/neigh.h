/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of guests as the host's neighbour table knows them, by the MACs of their NICs. The
 * kernel tells of every change. One that has not been heard of for a while is asked for; no
 * answer, and it is gone.
 */
#pragma once

#include <jansson.h>

struct guest;
struct supervisor;

void neigh_start(struct supervisor *sup);
void neigh_stop(struct supervisor *sup);
/* A guest was started: it may be known already. */
void neigh_refresh(struct supervisor *sup);
/* Ask for the addresses of all guests that have been silent, now and not only every minutes. */
void neigh_probe(struct supervisor *sup);
/* It does not run any more. */
void neigh_forget(struct guest *g);
/* {MAC: {address: since}}, a new reference; NULL: none is known. */
json_t *neigh_facts(const struct guest *g);
