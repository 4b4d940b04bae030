/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may do what, and the reason when not: root, the suite's own user and members of the host's
 * group vmadmins everything (as good as root: they name files QEMU opens), owner and members of
 * group of a VM its everyday life. Pure. Source: design, "Who may do what".
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct err;
struct sock_peer;
struct vm;

/*
 * 0 when peer may act on vm (NULL: only admins may), else -EPERM with the reason in err. peer
 * NULL (no unix socket) is nobody. what: the deed, as messages call it ("update").
 */
int auth_check(const struct sock_peer *peer, const struct vm *vm, bool admin_only, const char *what,
	       struct err *err);

/* May read what is no secret of every VM: admins, vminfod's user (reader, -1: none), members of the
 * host's group vmadm. */
bool auth_may_look(const struct sock_peer *peer, uid_t reader);
