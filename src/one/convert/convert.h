/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs of other managers as ours: libvirt's domain XML, and the object of SmartOS's vmadm. What
 * cannot be taken is told in notes and left out, so that a person can decide; a VM that is wrong
 * even so is an error. Only src/one reads XML, so this is here; vmadm knows nothing of it.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>

struct err;
struct problems;

#define CONVERT_MAX (4u << 20) /* bytes of an input */

struct convert_bridge {
	const char *network; /* name of a libvirt network, or a nic_tag of SmartOS */
	const char *bridge;  /* bridge of this host */
};

struct convert_bridges {
	struct convert_bridge *items;
	size_t count;
};

/*
 * A create payload from text[len]. notes: what was left out or assumed, each with where it stood.
 * -EINVAL or -E2BIG when the text is none of that kind. The caller owns *ret.
 */
int convert_libvirt(const char *text, size_t len, const struct convert_bridges *bridges,
		    json_t **ret, struct problems *notes, struct err *err);
int convert_smartos(const char *text, size_t len, const struct convert_bridges *bridges,
		    json_t **ret, struct problems *notes, struct err *err);
