/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the manual pages that come from the tables of commands. */
#pragma once

struct tool;

/* The synopsis in mdoc(7) on stdout. */
void mdoc_synopsis(const struct tool *tool);
