/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network links of the host (NICs, bridges, taps), by rtnetlink: listed at the start, then kept
 * as the kernel tells of changes. The socket is opened before powers are given up.
 */
#pragma once

#include <jansson.h>
#include <systemd/sd-event.h>

#define LINKS_MAX 8192u

struct err;
struct links;

/* Asks for the list; it is complete when the loop, or links_json, has taken the answer. */
int links_new(sd_event *event, struct links **ret, struct err *err);
void links_free(struct links *l); /* NULL is fine */

/*
 * [{"name","index","kind"?,"mac"?,"mtu","state","master"?}] by index, with all that the kernel has
 * told until now. The caller owns it.
 */
json_t *links_json(struct links *l);
/* Since when the list cannot be kept, wall clock; 0: it is kept. */
int64_t links_lost(const struct links *l);
