/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets; see sock.h. */
#include "base/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define SEND_FDS_MAX 4

/* Fill sa for path; *ret_dirfd (owned) must stay open until bind or connect is done. */
static int address_of(const char *path, struct sockaddr_un *sa, int *ret_dirfd, struct err *err)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *dir = NULL;
	int fd, n;

	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	*ret_dirfd = -1;
	if (strlen(path) < sizeof(sa->sun_path)) {
		memcpy(sa->sun_path, path, strlen(path) + 1);
		return 0;
	}
	if (!slash)
		return err_set(err, ENAMETOOLONG, "socket name '%s' is too long", path);
	dir = xstrndup(path, (size_t)(slash - path) + 1);
	fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, errno, "cannot open directory '%s'", dir);
	n = snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", fd, slash + 1);
	if (n < 0 || (size_t)n >= sizeof(sa->sun_path)) {
		(void)close(fd);
		return err_set(err, ENAMETOOLONG, "socket name '%s' is too long", slash + 1);
	}
	*ret_dirfd = fd;
	return 0;
}

int sock_connect(const char *path, int *ret_fd, struct err *err)
{
	AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	AUTO_FD int dirfd = -1;
	struct sockaddr_un sa;
	int r;

	if (fd < 0)
		return err_sys(err, errno, "cannot make a socket");
	r = address_of(path, &sa, &dirfd, err);
	if (r < 0)
		return r;
	/* Non-blocking first: with a full backlog connect gives EAGAIN instead of waiting. */
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return err_sys(err, errno, "cannot set up a socket");
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_sys(err, errno, "cannot connect to '%s'", path);
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int remove_stale(const char *path, struct err *err)
{
	AUTO_FD int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "cannot look at '%s'", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, EEXIST, "'%s' exists and is not a socket", path);
	if (sock_connect(path, &fd, NULL) >= 0)
		return err_set(err, EADDRINUSE, "'%s' is in use by another process", path);
	if (unlink(path) < 0)
		return err_sys(err, errno, "cannot remove the stale socket '%s'", path);
	return 0;
}

int sock_listen(const char *path, mode_t mode, int *ret_fd, struct err *err)
{
	AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	AUTO_FD int dirfd = -1;
	struct sockaddr_un sa;
	int r;

	if (fd < 0)
		return err_sys(err, errno, "cannot make a socket");
	r = remove_stale(path, err);
	if (r < 0)
		return r;
	r = address_of(path, &sa, &dirfd, err);
	if (r < 0)
		return r;
	/* Nobody can connect between bind and chmod: not listening yet. */
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_sys(err, errno, "cannot listen on '%s'", path);
	if (chmod(path, mode) < 0 || listen(fd, 1024) < 0)
		return err_sys(err, errno, "cannot listen on '%s'", path);
	*ret_fd = steal_fd(&fd);
	return 0;
}

int sock_listen_tcp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port,
		    struct err *err)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	bool is6 = strchr(address, ':') != NULL;
	struct sockaddr *sa = is6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
	socklen_t len = is6 ? sizeof(v6) : sizeof(v4);
	AUTO_FD int fd = -1;
	int one = 1;

	if (inet_pton(sa->sa_family, address, is6 ? (void *)&v6.sin6_addr : &v4.sin_addr) != 1)
		return err_set(err, EINVAL, "'%s' is not an IP address", address);
	fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(err, errno, "cannot make a socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, sa, len) < 0 || listen(fd, 1024) < 0)
		return err_sys(err, errno, "cannot listen on %s port %u", address, port);
	if (ret_port) {
		if (getsockname(fd, sa, &len) < 0)
			return err_sys(err, errno, "cannot ask for the port");
		*ret_port = ntohs(is6 ? v6.sin6_port : v4.sin_port);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

int sock_peer(int fd, struct sock_peer *ret_peer, struct err *err)
{
	struct ucred cred;
	socklen_t len = sizeof(cred), glen = 0;
	struct sock_peer peer;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return err_sys(err, errno, "cannot ask who the peer is");
	peer = (struct sock_peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid};
	(void)getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &glen); /* tells the length */
	if (glen > 0) {
		peer.groups = xmalloc(glen);
		if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer.groups, &glen) == 0)
			peer.ngroups = glen / sizeof(gid_t);
	}
	*ret_peer = peer;
	return 0;
}

void sock_peer_done(struct sock_peer *peer)
{
	free(peer->groups);
	*peer = (struct sock_peer){0};
}

bool sock_peer_is_admin(const struct sock_peer *peer)
{
	return peer->uid == 0 || peer->uid == geteuid();
}

bool sock_peer_may(const struct sock_peer *peer, uint32_t owner_uid, uint32_t group_gid)
{
	if (sock_peer_is_admin(peer) || (owner_uid != UINT32_MAX && peer->uid == owner_uid))
		return true;
	if (group_gid == UINT32_MAX)
		return false;
	for (size_t i = 0; i < peer->ngroups; i++) {
		if (peer->groups[i] == group_gid)
			return true;
	}
	return peer->gid == group_gid;
}

int sock_send_fds(int fd, const void *data, size_t len, const int *fds, size_t nfds)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	union {
		char space[CMSG_SPACE(SEND_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;
	ssize_t n;

	if (nfds > SEND_FDS_MAX)
		return -E2BIG;
	if (nfds > 0) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	n = sendmsg(fd, &msg, MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EAGAIN;
}
