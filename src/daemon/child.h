/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes by pidfd, and watching processes that are not our children. */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct err;
struct child;

struct child_spec {
	const char *const
		*argv; /* NULL-terminated; argv[0] with a slash is run as it is, else by PATH */
	/*
	 * Not NULL: in place of executing argv the child calls this and ends with what it returns;
	 * argv[0] is its name in messages. It has the descriptors of the spec and no others.
	 */
	int (*run)(const void *arg);
	const void *arg;
	const char *const *env; /* NULL-terminated, NULL: ours */
	const char *cwd;        /* NULL: ours */
	int in, out, errfd;     /* descriptors for 0, 1, 2; -1: /dev/null. Borrowed */
	const int *keep; /* other descriptors that stay open under the same number. Borrowed */
	size_t nkeep;
	bool group;   /* lead a process group of its own */
	bool session; /* lead a session of its own (implies group) */
	bool no_new_privs;
	bool dies_with_us; /* is killed when we end, however we do */
	bool drop;         /* set uid, gid and clear groups */
	uid_t uid;
	gid_t gid;
	const char *cgroup_procs; /* join the control group of this file; NULL: stay in ours */
	const cpu_set_t *cpus;    /* run on these; NULL: where we may */
	rlim_t memlock;           /* bytes it may lock, at most what we may; 0: as we */
	uint64_t timeout_ms;      /* 0: none; then the group (or process) is killed with SIGKILL */
	int record;               /* of child_record_new, borrowed; 0: none */
	int lock; /* one of keep: held by the program with a process lock; 0: none */
};

/* How it ended, as waitid tells: code CLD_EXITED, CLD_KILLED or CLD_DUMPED. */
struct child_exit {
	bool known; /* false: an adopted process whose status the kernel does not give */
	int code;
	int status; /* exit status or signal number */
	bool timed_out;
};

typedef void (*child_done)(void *ctx, const struct child_exit *how);

/*
 * Start it: signals unblocked and default, nice 0 if ours is less, other descriptors closed on
 * exec. Failing to execute is reported here (-ENOENT, -EACCES with the program's name), not as an
 * exit: as with vfork, the caller waits until the program has taken the child's place. That is a
 * matter of a few milliseconds, and of at most 5 s (-ETIMEDOUT) when a file system is dead. done
 * runs once from the loop; the child is freed after it returned. It is reaped only then, so its pid
 * and group stay ours inside done.
 */
int child_start(sd_event *event, const struct child_spec *spec, child_done done, void *ctx,
		struct child **ret, struct err *err);
pid_t child_pid(const struct child *c);
/* Start time in clock ticks (/proc/PID/stat), to tell a recycled pid; 0 when unknown. */
uint64_t child_start_time(const struct child *c);
/* Signal the process, or its whole group. */
int child_kill(struct child *c, int sig, bool group);
/* Forget it: done will not run; the process goes on. */
void child_forget(struct child *c);

/*
 * Watch a process that is not our child, or no longer: -ESRCH when pid is gone or its start time
 * differs. done's status is known where PIDFD_GET_INFO gives it.
 */
int child_adopt(sd_event *event, pid_t pid, uint64_t start_time, child_done done, void *ctx,
		struct child **ret, struct err *err);

/* From now on it has timeout_ms, as with child_spec.timeout_ms: for one that was adopted. */
int child_limit(sd_event *event, struct child *c, uint64_t timeout_ms);

/* Who holds the lock of child_spec.lock on this file: a pid, or 0. */
pid_t child_lock_holder(const char *path);

uint64_t process_start_time(pid_t pid); /* 0 when there is no such process */

/* "exited with status 3", "killed by signal 9 (Killed)", ...; buf at least 64 bytes. */
const char *child_exit_text(const struct child_exit *how, char *buf, size_t size);

/*
 * Run a program and collect what it prints (bounded), for tools such as qemu-img. done gets the
 * outputs, NUL-terminated, borrowed.
 */
typedef void (*run_done)(void *ctx, const struct child_exit *how, const char *out,
			 const char *errors);
int child_run(sd_event *event, const struct child_spec *spec, size_t max_output, run_done done,
	      void *ctx, struct child **ret, struct err *err);

/*
 * A run that must happen once, whoever starts it, and whose end must be known to whoever asks:
 * the record is a small file that a process between us and the program claims before it starts
 * the program, holds locked while that runs, and writes its end to. It outlives us.
 * child_start with a record that another process claimed is -EALREADY.
 */
enum child_record_state {
	RECORD_NONE, /* no such file, or of another ticket: nothing was started */
	RECORD_OPEN, /* nobody claimed it, or not yet */
	RECORD_RUNS, /* ret_pid: the process that will write the end; it leads the group */
	RECORD_ENDED,
	RECORD_LOST, /* claimed, and the claimer is gone without a word: it was killed */
};

/* A new record at path in the place of an older one; ticket tells them apart. Caller closes. */
int child_record_new(const char *path, uint64_t ticket, int *ret_fd, struct err *err);
/* ret_how is set for RECORD_ENDED, ret_pid for RECORD_RUNS. */
enum child_record_state child_record_look(const char *path, uint64_t ticket, pid_t *ret_pid,
					  struct child_exit *ret_how);
