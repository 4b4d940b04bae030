/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of runs; see child.h. The claim is a lock of the process (fcntl), so the kernel tells
 * who holds it and gives it up with the holder; what was claimed once stays claimed by the text.
 * The file is written whole before anybody is asked to claim it and only overwritten in place,
 * so a full disk is met before the program runs, not after.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "daemon/child.h"
#include "daemon/child_private.h"

#define RECORD_LEN 64

enum word { WORD_OPEN, WORD_CLAIMED, WORD_ENDED, WORD_COUNT };

static const char *const words[WORD_COUNT] = {"open", "claimed", "ended"};

struct record {
	uint64_t ticket;
	enum word word;
	int wait_status;
};

static void record_text(const struct record *r, char text[RECORD_LEN + 1])
{
	char line[RECORD_LEN];

	(void)snprintf(line, sizeof(line), "%" PRIu64 " %s %d", r->ticket, words[r->word],
		       r->wait_status);
	(void)snprintf(text, RECORD_LEN + 1, "%-63s\n", line);
}

static int record_read(int fd, struct record *ret)
{
	char text[RECORD_LEN + 1] = "", *save = NULL, *word;

	if (pread(fd, text, RECORD_LEN, 0) != RECORD_LEN)
		return -EINVAL;
	ret->ticket = strtoull(text, &save, 10);
	word = strtok_r(NULL, " ", &save);
	if (!word || !save)
		return -EINVAL;
	ret->wait_status = (int)strtol(save, NULL, 10);
	for (unsigned i = 0; i < WORD_COUNT; i++) {
		ret->word = (enum word)i;
		if (strcmp(word, words[i]) == 0)
			return 0;
	}
	return -EINVAL;
}

static int record_write(int fd, const struct record *r)
{
	char text[RECORD_LEN + 1];

	record_text(r, text);
	return pwrite(fd, text, RECORD_LEN, 0) == RECORD_LEN ? 0 : -1;
}

int child_record_new(const char *path, uint64_t ticket, int *ret_fd, struct err *err)
{
	struct record fresh = {.ticket = ticket};
	char text[RECORD_LEN + 1];
	int r;

	record_text(&fresh, text);
	r = file_write(path, text, RECORD_LEN, 0600, FILE_NO_SYNC, err);
	if (r < 0)
		return r;
	r = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (r < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	*ret_fd = r;
	return 0;
}

static pid_t holder_of(int fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

pid_t child_lock_holder(const char *path)
{
	AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? 0 : holder_of(fd);
}

enum child_record_state child_record_look(const char *path, uint64_t ticket, pid_t *ret_pid,
					  struct child_exit *ret_how)
{
	AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	pid_t holder = fd < 0 ? 0 : holder_of(fd); /* first: it writes before it lets go */
	struct record record;

	if (fd < 0 || record_read(fd, &record) < 0 || record.ticket != ticket)
		return RECORD_NONE;
	if (record.word == WORD_ENDED) {
		child_from_wait_status(record.wait_status, ret_how);
		return RECORD_ENDED;
	}
	if (holder) {
		*ret_pid = holder;
		return RECORD_RUNS;
	}
	return record.word == WORD_OPEN ? RECORD_OPEN : RECORD_LOST;
}

/* --- between us and the program --- */

int child_process_lock(int fd)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int r = fcntl(fd, F_SETLK, &whole);

	if (r < 0 && (errno == EACCES || errno == EAGAIN))
		errno = EALREADY;
	return r;
}

static int claim(int fd, struct record *ret)
{
	if (child_process_lock(fd) < 0)
		return -1;
	if (record_read(fd, ret) < 0 || ret->word != WORD_OPEN) {
		errno = EALREADY;
		return -1;
	}
	ret->word = WORD_CLAIMED;
	return record_write(fd, ret);
}

static void __attribute__((noreturn)) wait_and_write(int fd, pid_t pid, struct record *record)
{
	int status = 0;

	/* Closing any descriptor of the file would give up the lock: all but this one go. */
	if (fd > 0)
		(void)close_range(0, (unsigned)fd - 1, 0);
	(void)close_range((unsigned)fd + 1, ~0U, 0);
	(void)!chdir("/");
	(void)prctl(PR_SET_NAME, "run-recorder");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	record->word = WORD_ENDED;
	record->wait_status = status;
	(void)record_write(fd, record);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int child_record_keep(int fd)
{
	struct record record;
	sigset_t all;
	pid_t pid;

	/* What the program does to its process group is not for us: only SIGKILL is. */
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	if (claim(fd, &record) < 0)
		return -1;
	pid = fork();
	if (pid > 0)
		wait_and_write(fd, pid, &record);
	return pid;
}
