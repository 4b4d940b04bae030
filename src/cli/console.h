/* SPDX-License-Identifier: Apache-2.0 */
/* A terminal, or a pair of pipes, bridged to a VM's console socket. */
#pragma once

struct err;

#define CONSOLE_LEAVE 0x1d /* Ctrl-] */

/*
 * Connect stdin and stdout with the socket until Ctrl-] (on a terminal), the console's end, or a
 * signal. The terminal is raw meanwhile and restored on every way out; a signal is raised again
 * after that. When stdin is no terminal its end does not end the output.
 * 0, or -errno with err filled. Source: vmadm(8), "console".
 */
int console_run(const char *path, struct err *err);
