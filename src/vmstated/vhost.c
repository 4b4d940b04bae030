/* SPDX-License-Identifier: Apache-2.0 */
/* See vhost.h. QEMU aborts on a descriptor that is none of vhost's, so it is asked first. */
#include "vmstated/vhost.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "base/mem.h"

int vhost_open(const char *path)
{
	AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	uint64_t features;

	if (fd < 0 || ioctl(fd, VHOST_GET_FEATURES, &features) < 0)
		return -errno;
	return steal_fd(&fd);
}
