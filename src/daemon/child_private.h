/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by child.c, child_run.c, child_record.c and child_side.c only. */
#pragma once

struct child;
struct child_exit;
struct child_spec;

enum step {
	STEP_FDS,
	STEP_SESSION,
	STEP_CWD,
	STEP_CGROUP,
	STEP_CPUS,
	STEP_UID,
	STEP_PRIVS,
	STEP_LOCK,
	STEP_RECORD,
	STEP_EXEC
};

struct child_failure {
	int step, code;
};

/* Become the program; what fails is written to fd as a struct child_failure. */
void __attribute__((noreturn)) child_side(const struct child_spec *spec, int fd);

/* drop(ctx of done) runs from child_forget, which then will not run done. */
void child_on_forget(struct child *c, void (*drop)(void *ctx));

/* Lock the whole file for this process, over execve; -1 and errno, EALREADY when it is held. */
int child_process_lock(int fd);

/* waitid's words for a status of waitpid. */
void child_from_wait_status(int status, struct child_exit *how);

/*
 * In the child: claim the record (-1 and errno: EALREADY when it is claimed), then fork. Returns 0
 * in the process that is to become the program; the other waits for it and never returns.
 */
int child_record_keep(int record);
