/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver's loop: lines of the core in, actions carried out, lines back. It ends by FINALIZE,
 * when what runs has ended, or at the end of input, at once.
 */
#pragma once

struct driver_options;

#define LINE_MAX_BYTES (64u << 20)

#define DRIVER_OK  0
#define DRIVER_END 255 /* end of input, as the stock driver; bad options, too */

/* in, out: the core's pipes. Returns the exit code. */
int driver_run(const struct driver_options *o, int in, int out);
