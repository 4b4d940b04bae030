/* SPDX-License-Identifier: Apache-2.0 */
/* Private to convert*.c: the rows of a domain, and what only they need. */
#pragma once

#include "one/convert/convert.h"
#include "one/deploy/deploy_private.h"

extern const struct deploy_dialect convert_dialect;

deploy_take take_boot, take_feature;

extern const struct deploy_word words_end[], words_restart[], words_crash[], words_device[],
	words_interface[], words_link[];

/* The bridge given for a network, or NULL. */
const char *convert_bridge(const struct convert_bridges *bridges, const char *network);
