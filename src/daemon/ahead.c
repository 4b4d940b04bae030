/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon's place in the queue for a core. Two things decide it where a host does not sort
 * services by control groups: the nice value among the processes of a session, and the nice value
 * of the session (its autogroup) among all sessions. Seen with 50 guests starting at once on two
 * cores: vmstated waits 0.3 s for a core in place of 2 s.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/daemon.h"

#define AHEAD      (-10)
#define AHEAD_TEXT "-10"

/* Nobody else's: we lead the session, or its leader went when we were detached. */
static bool session_is_ours(void)
{
	pid_t leader = getsid(0);

	return leader == getpid() || (kill(leader, 0) < 0 && errno == ESRCH);
}

void daemon_ahead(void)
{
	AUTO_FD int fd = -1;

	if (getpriority(PRIO_PROCESS, 0) != 0 || setpriority(PRIO_PROCESS, 0, AHEAD) < 0)
		return; /* chosen by who started us, or not ours to choose */
	if (session_is_ours())
		fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && fd_write_all(fd, AHEAD_TEXT, strlen(AHEAD_TEXT)) < 0)
		log_debug("no place ahead for this session: %s", strerror(errno));
}
