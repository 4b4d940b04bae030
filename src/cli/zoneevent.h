/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zoneevent: changes of zone_state as one JSON line each, for programs that follow states and no
 * more. vminfo under another name. Source: smartos facts 4.5, 4.8.
 */
#pragma once

#include "cli/js.h"

struct strbuf;

int zoneevent_main(int argc, char **argv);

/* Append the line of one of vminfod's records; nothing for one that is no transition. */
void zoneevent_line(struct strbuf *sb, struct slice event);
