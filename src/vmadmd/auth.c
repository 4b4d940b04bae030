/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may do what; see auth.h. Decided from the peer's credentials as the kernel gives them and
 * the owner and group as resolved when the definition was loaded.
 */
#include "vmadmd/auth.h"

#include <errno.h>
#include <grp.h>

#include "base/err.h"
#include "base/sock.h"
#include "model/vm.h"

#define LOOK_GROUP  "vmadm"
#define ADMIN_GROUP "vmadmins"

static bool in_group(const struct sock_peer *peer, const char *name)
{
	const struct group *group = getgrnam(name);

	return group && sock_peer_may(peer, UINT32_MAX, group->gr_gid);
}

int auth_check(const struct sock_peer *peer, const struct vm *vm, bool admin_only, const char *what,
	       struct err *err)
{
	if (!peer)
		return err_set(err, EPERM, "%s: the caller is not known", what);
	if (sock_peer_is_admin(peer) || in_group(peer, ADMIN_GROUP))
		return 0;
	if (admin_only)
		return err_set(
			err, EPERM,
			"uid %u may not %s: only root, the user the daemons run as and members "
			"of the group " ADMIN_GROUP " may",
			peer->uid, what);
	if (!vm)
		return err_set(
			err, EPERM,
			"uid %u may not %s: the VM has no definition any more, so only root, "
			"the user the daemons run as and members of the group " ADMIN_GROUP " may",
			peer->uid, what);
	if (sock_peer_may(peer, vm->owner_uid, vm->group_gid))
		return 0;
	return err_set(
		err, EPERM,
		"uid %u may not %s VM %s: it is neither its owner (%s) nor in its group (%s)",
		peer->uid, what, vm->uuid, vm->owner ? vm->owner : "none",
		vm->group ? vm->group : "none");
}

bool auth_may_look(const struct sock_peer *peer, uid_t reader)
{
	if (!peer)
		return false;
	if (sock_peer_is_admin(peer) || (reader != (uid_t)-1 && peer->uid == reader))
		return true;
	return in_group(peer, LOOK_GROUP) || in_group(peer, ADMIN_GROUP);
}
