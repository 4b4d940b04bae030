/* SPDX-License-Identifier: Apache-2.0 */
/* Tap interfaces, see tap.h. A hook or somebody else made them; the last close may remove them. */
#include "daemon/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/err.h"
#include "base/mem.h"

int tap_join(const char *name, int *ret_fd, struct err *err)
{
	AUTO_FD int fd = -1;
	struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

	if (strlen(name) >= IFNAMSIZ || if_nametoindex(name) == 0)
		return err_set(err, ENODEV, "interface %s does not exist", name);
	memcpy(req.ifr_name, name, strlen(name) + 1);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &req) < 0)
		return err_sys(err, errno, "cannot open tap interface %s", name);
	*ret_fd = steal_fd(&fd);
	return 0;
}
