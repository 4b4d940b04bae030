/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control sockets: those systemd listens on for us (LISTEN_FDS), else our own. A socket of
 * systemd's stays when we end, and requests made meanwhile wait in it for the next of us.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "daemon/daemon.h"

static int handed[DAEMON_SOCKETS_MAX];
static int nhanded = -1; /* not asked yet: the environment is read once, and cleared */

static void ask(void)
{
	int n = nhanded < 0 ? sd_listen_fds(1) : 0;

	if (nhanded >= 0)
		return;
	nhanded = n < 0 ? 0 : n > DAEMON_SOCKETS_MAX ? DAEMON_SOCKETS_MAX : n;
	for (int i = 0; i < nhanded; i++)
		handed[i] = SD_LISTEN_FDS_START + i;
}

/* Take the first socket that fits out of the list, ready for the loop; -1: none. */
static int take(bool (*fits)(int fd, const char *what), const char *what)
{
	ask();
	for (int i = 0; i < nhanded; i++) {
		int fd = handed[i];

		if (fd < 0 || !fits(fd, what))
			continue;
		handed[i] = -1;
		/* systemd hands them over blocking. */
		(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		return fd;
	}
	return -1;
}

static bool fits_path(int fd, const char *path)
{
	return sd_is_socket_unix(fd, SOCK_STREAM, 1, path, 0) > 0;
}

static bool fits_tcp(int fd, const char *what)
{
	return sd_is_socket_inet(fd, AF_UNSPEC, SOCK_STREAM, 1, 0) > 0;
}

int daemon_listen(const char *path, mode_t mode, int *ret_fd, bool *ret_own, struct err *err)
{
	int fd = take(fits_path, path), r = 0;

	*ret_own = fd < 0;
	if (fd < 0)
		r = sock_listen(path, mode, &fd, err);
	if (r == 0)
		*ret_fd = fd;
	return r;
}

int daemon_listen_tcp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port,
		      struct err *err)
{
	AUTO_FD int fd = take(fits_tcp, NULL);
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);

	if (fd < 0)
		return sock_listen_tcp(address, port, ret_fd, ret_port, err);
	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return err_sys(err, errno, "cannot ask for the port");
	/* The same place in both families' addresses. */
	*ret_port = ntohs(((struct sockaddr_in *)&sa)->sin_port);
	*ret_fd = steal_fd(&fd);
	return 0;
}
