/* SPDX-License-Identifier: Apache-2.0 */
/*
 * one_vmm_exec, and by its other names one_vmm_ssh and one_vmm_sh: the virtualization driver of an
 * OpenNebula front-end. The core starts it with standard error closed, every signal blocked and
 * its own directory as working directory; that is put in order here. Source: fact sheet, 1.1.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "one/driver/driver.h"
#include "one/driver/driver_options.h"
#include "one/driver/driver_run.h"

#define USAGE                                                                                      \
	"usage: %s [-p] [-d actions] [-l action[=script],...] [-r retries] [-s shell]\n"           \
	"       [-t threads] [-w seconds] driver_directory\n"

/* Standard error must exist before anything is opened, or that would be written to. */
static void open_stderr(void)
{
	if (fcntl(STDERR_FILENO, F_GETFD) >= 0)
		return;
	if (open("/dev/null", O_WRONLY) < 0) /* the lowest free number: 2 */
		_exit(DRIVER_END);
}

static void clear_signals(void)
{
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGCHLD, SIG_DFL);
}

/* Pipes for that many actions at a time; never less than we were given. */
static void raise_limit(unsigned threads)
{
	struct rlimit limit;
	rlim_t want = (rlim_t)threads * RUN_POLLS + 64;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= want)
		return;
	limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* ONE_MAD_DEBUG: talk goes where the stock driver's does. */
static void open_log(const struct driver_options *o)
{
	AUTO_FREE char *path = xasprintf("%s/%s.log", o->log, o->program);
	AUTO_FD int fd =
		o->debug ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640) : -1;

	if (fd >= 0)
		(void)dup2(fd, STDERR_FILENO);
	log_setup(o->program, LOG_TEXT, o->debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN);
}

/*
 * The start-up of libraries that libxml2 brings along touches megabytes that nobody needs again
 * (ICU and the C++ library, for encodings the core does not use). What is read-only comes back
 * from the file when it is.
 */
static int forget_pages(struct dl_phdr_info *info, size_t size, void *ctx)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
		uintptr_t from = (info->dlpi_addr + p->p_vaddr) & ~page;
		uintptr_t to = info->dlpi_addr + p->p_vaddr + p->p_memsz;

		if (p->p_type == PT_LOAD && !(p->p_flags & PF_W) && strstr(info->dlpi_name, "/lib"))
			(void)madvise((void *)from, to - from, MADV_DONTNEED);
	}
	return 0;
}

int main(int argc, char *argv[])
{
	AUTO_OPTIONS struct driver_options o = {.dir = NULL};
	struct err err = {0};
	int r;

	clear_signals();
	open_stderr();
	(void)close_range(STDERR_FILENO + 1, ~0u, 0);
	r = driver_options_read(argc, argv, &o, &err);
	if (r < 0) {
		(void)fprintf(stderr, "%s: %s\n" USAGE, o.program, err_text(&err, r), o.program);
		return DRIVER_END;
	}
	if (o.help) {
		(void)printf(USAGE, o.program);
		return DRIVER_OK;
	}
	open_log(&o);
	if (chdir(o.var) < 0)
		log_warn("cannot change to %s: %s", o.var, strerror(errno));
	if (o.nice != INT_MIN && setpriority(PRIO_PROCESS, 0, o.nice) < 0)
		log_warn("cannot set the priority to %d: %s", o.nice, strerror(errno));
	raise_limit(o.threads);
	(void)dl_iterate_phdr(forget_pages, NULL);
	(void)mallopt(M_TRIM_THRESHOLD, 64 << 10); /* bursts do not stay in memory */
	return driver_run(&o, STDIN_FILENO, STDOUT_FILENO);
}
