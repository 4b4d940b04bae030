/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix and loopback sockets. Paths longer than the kernel's limit of 107 bytes work: bind and
 * connect go through /proc/self/fd/<directory>/<name>.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

/*
 * A listening, non-blocking, close-on-exec stream socket at path; a stale file there is removed.
 * -EADDRINUSE when somebody still listens on it. mode: permission of the file.
 */
int sock_listen(const char *path, mode_t mode, int *ret_fd, struct err *err);

/* Connect (a unix connect never blocks on the peer); non-blocking and close-on-exec. */
int sock_connect(const char *path, int *ret_fd, struct err *err);

/* Listen on address (IPv4 or IPv6 text); port 0 lets the kernel choose. ret_port may be NULL. */
int sock_listen_tcp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port,
		    struct err *err);

struct sock_peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* supplementary, owned; free with sock_peer_done */
	size_t ngroups;
};

/* Who is at the other end of a unix socket (SO_PEERCRED, SO_PEERGROUPS). */
int sock_peer(int fd, struct sock_peer *ret_peer, struct err *err);
void sock_peer_done(struct sock_peer *peer);

/* Root, or the user the suite runs as: may do everything. */
bool sock_peer_is_admin(const struct sock_peer *peer);
/* An admin, the owner, or a member of the group (supplementary ones count); UINT32_MAX: nobody. */
bool sock_peer_may(const struct sock_peer *peer, uint32_t owner_uid, uint32_t group_gid);

/* Send data with up to nfds descriptors (at most 4) in one message. */
int sock_send_fds(int fd, const void *data, size_t len, const int *fds, size_t nfds);
