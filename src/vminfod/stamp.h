/* SPDX-License-Identifier: Apache-2.0 */
/* How times look in /status. Source: smartos facts, section 3.5. Pure functions. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define STAMP_LEN    32
#define DURATION_LEN 64

/* "54632.555733604": monotonic nanoseconds as seconds. Returns buf. */
char *stamp_text(uint64_t ns, char *buf, size_t size);

/* "0.000500478s (500.48us)". Returns buf. */
char *duration_text(uint64_t ns, char *buf, size_t size);
