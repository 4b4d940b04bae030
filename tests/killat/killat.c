/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a program under test: it is killed before its N-th call that changes files or
 * talks to somebody. N lies in a file all its processes share ($KILLAT_FILE: two 64-bit numbers,
 * calls left and calls counted), so a test arms and disarms it while the program runs, and a
 * process forked for the disk's sake counts along. Programs it executes do not
 * ($KILLAT_PROGRAM names the one that counts).
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct shared {
	_Atomic int64_t left; /* 0: not armed */
	_Atomic int64_t count;
};

static struct shared *shared;
static pid_t program;

static void __attribute__((constructor)) begin(void)
{
	const char *path = getenv("KILLAT_FILE"), *name = getenv("KILLAT_PROGRAM");
	void *at;
	int fd;

	if (!path || !name || strcmp(program_invocation_short_name, name) != 0)
		return;
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
	at = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		(void)close(fd);
	if (at == MAP_FAILED)
		return;
	shared = at;
	program = getpid();
}

/* The process of the program goes first, then the one that works for it. */
static void step(void)
{
	if (!shared || atomic_load(&shared->left) <= 0)
		return;
	atomic_fetch_add(&shared->count, 1);
	if (atomic_fetch_sub(&shared->left, 1) != 1)
		return;
	(void)kill(program, SIGKILL);
	(void)kill(getpid(), SIGKILL);
	for (;;)
		(void)pause();
}

/* The C library's own function behind ours of the same name. */
#define NEXT(name)                                                                                 \
	static __typeof__(name) *next;                                                             \
	if (!next)                                                                                 \
		*(void **)&next = dlsym(RTLD_NEXT, #name);                                         \
	step()

int rename(const char *from, const char *to)
{
	NEXT(rename);
	return next(from, to);
}

int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
	NEXT(renameat2);
	return next(a, from, b, to, flags);
}

int unlink(const char *path)
{
	NEXT(unlink);
	return next(path);
}

int unlinkat(int dir, const char *path, int flags)
{
	NEXT(unlinkat);
	return next(dir, path, flags);
}

int mkdir(const char *path, mode_t mode)
{
	NEXT(mkdir);
	return next(path, mode);
}

int rmdir(const char *path)
{
	NEXT(rmdir);
	return next(path);
}

int fsync(int fd)
{
	NEXT(fsync);
	return next(fd);
}

int fdatasync(int fd)
{
	NEXT(fdatasync);
	return next(fd);
}

ssize_t write(int fd, const void *data, size_t len)
{
	NEXT(write);
	return next(fd, data, len);
}

ssize_t send(int fd, const void *data, size_t len, int flags)
{
	NEXT(send);
	return next(fd, data, len, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	NEXT(sendmsg);
	return next(fd, message, flags);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	NEXT(writev);
	return next(fd, parts, count);
}

int connect(int fd, const struct sockaddr *address, socklen_t len)
{
	NEXT(connect);
	return next(fd, address, len);
}

ssize_t recv(int fd, void *data, size_t len, int flags)
{
	NEXT(recv);
	return next(fd, data, len, flags);
}
