/* SPDX-License-Identifier: Apache-2.0 */
/* vmstated --check. */
#pragma once

struct err;
struct paths;

/* Problems on stdout, a summary on stderr. 0: none; 1: some; negative errno: cannot look. */
int check_run(const struct paths *paths, struct err *err);
