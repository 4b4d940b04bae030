/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start of every daemon: options in two passes (first --root, so that rows of the program can
 * override single paths), lock, loop, timers; see daemon.h. Going to the background is detach.c.
 */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "api/status.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define OPT_ROOT    256
#define OPT_LOG     257
#define OPT_VERSION 258
#define OPT_COMMON  300 /* + index into common[]: said by its long name */
#define OPT_FLAG    512 /* + index of the program's row */
#define TIMER_US    1000

/* clang-format off */
static const struct {
	char letter;
	const char *name, *argument;
	int value;
	const char *doc;
} common[] = {
	{ 'h', "help",       NULL,        'h',         "Print this and exit." },
	{ 'f', "foreground", NULL,        'f',         "Stay in the foreground." },
	{ 'v', "verbose",    NULL,        'v',         "Log debug messages." },
	{ 0,   "root",       "DIR",       OPT_ROOT,    "Prefix of every path (also DROVER_ROOT)." },
	{ 0,   "log",        "text|json", OPT_LOG,     "Form of the log lines." },
	{ 0,   "version",    NULL,        OPT_VERSION, "Print the version and exit." },
};
/* clang-format on */

struct option_set {
	struct daemon_options *o;
	const struct daemon_flag *flags;
	size_t nflags;
	void *ctx;
	struct strbuf letters;
	struct option *longs; /* common, then flags, then zero */
};

static bool taken(const struct option_set *set, char letter, const char *name)
{
	for (size_t i = 0; i < set->nflags; i++) {
		const struct daemon_flag *f = &set->flags[i];

		if ((letter && f->letter == letter) || (name && str_eq(f->name, name)))
			return true;
	}
	return false;
}

/* Fill the tables of getopt_long; a row of the program hides a common option of the same name. */
static void build_options(struct option_set *set)
{
	size_t n = 0;

	set->longs = xcalloc(ARRAY_SIZE(common) + set->nflags + 1, sizeof(*set->longs));
	strbuf_puts(&set->letters, "+:");
	for (size_t i = 0; i < ARRAY_SIZE(common); i++) {
		if (!taken(set, 0, common[i].name))
			set->longs[n++] = (struct option){common[i].name,
							  common[i].argument ? required_argument
									     : no_argument,
							  NULL, OPT_COMMON + (int)i};
		if (common[i].letter && !taken(set, common[i].letter, NULL))
			strbuf_putc(&set->letters, common[i].letter);
	}
	for (size_t i = 0; i < set->nflags; i++) {
		const struct daemon_flag *f = &set->flags[i];

		if (f->name)
			set->longs[n++] = (struct option){
				f->name, f->argument ? required_argument : no_argument, NULL,
				OPT_FLAG + (int)i};
		if (f->letter) {
			strbuf_putc(&set->letters, f->letter);
			if (f->argument)
				strbuf_putc(&set->letters, ':');
		}
	}
}

static void print_row(char letter, const char *name, const char *argument, const char *doc)
{
	char left[80];
	int n = 0;

	if (letter)
		n = snprintf(left, sizeof(left), "-%c%s%s", letter, !name && argument ? " " : "",
			     !name && argument ? argument : "");
	if (name)
		(void)snprintf(left + n, sizeof(left) - (size_t)n, "%s--%s%s%s", n ? ", " : "",
			       name, argument ? " " : "", argument ? argument : "");
	printf("  %-26s %s\n", left, doc);
}

static void print_help(const struct option_set *set)
{
	printf("usage: %s [options]\n", set->o->program);
	for (size_t i = 0; i < ARRAY_SIZE(common); i++) {
		bool no_letter = taken(set, common[i].letter, NULL);

		if (!taken(set, 0, common[i].name))
			print_row(no_letter ? 0 : common[i].letter, common[i].name,
				  common[i].argument, common[i].doc);
		else if (common[i].letter && !no_letter)
			print_row(common[i].letter, NULL, common[i].argument, common[i].doc);
	}
	for (size_t i = 0; i < set->nflags; i++)
		print_row(set->flags[i].letter, set->flags[i].name, set->flags[i].argument,
			  set->flags[i].doc);
}

static int usage_error(const struct option_set *set, const char *text)
{
	fprintf(stderr, "%s: %s\nTry '%s -h'.\n", set->o->program, text, set->o->program);
	return -EINVAL;
}

/* getopt has met something it does not know. */
static int bad_option(const struct option_set *set, int c, char **argv)
{
	AUTO_FREE char *text = NULL;
	const char *word = argv[optind - 1];

	if (c == ':')
		text = xasprintf("option '%s' wants an argument", word);
	else if (optopt && optopt < 256 && strncmp(word, "--", 2) != 0)
		text = xasprintf("unknown option '-%c'", optopt);
	else
		text = xasprintf("unknown option or unexpected argument in '%s'", word);
	return usage_error(set, text);
}

static int set_log_format(struct option_set *set, const char *value)
{
	AUTO_FREE char *text = NULL;

	if (strcmp(value, "text") == 0) {
		set->o->format = LOG_TEXT;
		return 1;
	}
	if (strcmp(value, "json") == 0) {
		set->o->format = LOG_JSON;
		return 1;
	}
	text = xasprintf("--log '%s' is unknown (want text or json)", value);
	return usage_error(set, text);
}

static int set_flag(struct option_set *set, const struct daemon_flag *f, const char *value)
{
	AUTO_FREE char *text = NULL;
	struct err err = {0};
	int r = f->set(set->ctx, value, &err);

	if (r >= 0)
		return 1;
	if (f->name)
		text = xasprintf("--%s: %s", f->name, err_text(&err, r));
	else
		text = xasprintf("-%c: %s", f->letter, err_text(&err, r));
	return usage_error(set, text);
}

/* One option in the second pass: 1 to go on. */
static int apply(struct option_set *set, int c)
{
	if (c >= OPT_FLAG)
		return set_flag(set, &set->flags[c - OPT_FLAG], optarg);
	for (size_t i = 0; c < 256 && i < set->nflags; i++)
		if (set->flags[i].letter == c)
			return set_flag(set, &set->flags[i], optarg);
	switch (c < OPT_COMMON ? c : common[c - OPT_COMMON].value) {
	case 'h':
		print_help(set);
		return 0;
	case 'f':
		set->o->foreground = true;
		return 1;
	case 'v':
		set->o->level = LOG_LEVEL_DEBUG;
		return 1;
	case OPT_LOG:
		return set_log_format(set, optarg);
	case OPT_VERSION:
		printf("%s (Drover) %s\n", set->o->program, DROVER_VERSION);
		return 0;
	}
	return 1; /* --root: done in the first pass */
}

/* First pass: is every option known, and where is the root? */
static int scan(struct option_set *set, int argc, char **argv, const char **ret_root)
{
	int c;

	optind = 0; /* glibc: start anew */
	opterr = 0;
	while ((c = getopt_long(argc, argv, set->letters.data, set->longs, NULL)) != -1) {
		if (c == '?' || c == ':')
			return bad_option(set, c, argv);
		if (c >= OPT_COMMON && c < OPT_FLAG && common[c - OPT_COMMON].value == OPT_ROOT)
			*ret_root = optarg;
	}
	if (optind < argc) {
		AUTO_FREE char *text = xasprintf("unexpected argument '%s'", argv[optind]);

		return usage_error(set, text);
	}
	return 1;
}

static int parse(struct option_set *set, int argc, char **argv)
{
	const char *root = NULL;
	struct err err = {0};
	int r, c;

	r = scan(set, argc, argv, &root);
	if (r <= 0)
		return r;
	r = paths_init(&set->o->paths, root, &err);
	if (r < 0)
		return usage_error(set, err_text(&err, r));
	optind = 0;
	while (r >= 0 && (c = getopt_long(argc, argv, set->letters.data, set->longs, NULL)) != -1) {
		r = apply(set, c);
		if (r <= 0)
			return r;
	}
	return 1;
}

int daemon_options(struct daemon_options *o, int argc, char **argv, const struct daemon_flag *flags,
		   size_t nflags, void *ctx)
{
	struct option_set set = {.o = o, .flags = flags, .nflags = nflags, .ctx = ctx};
	int r;

	o->level = LOG_LEVEL_INFO;
	o->format = LOG_TEXT;
	build_options(&set);
	r = parse(&set, argc, argv);
	strbuf_done(&set.letters);
	free(set.longs);
	if (r > 0)
		log_setup(o->program, o->format, o->level);
	return r;
}

void daemon_options_done(struct daemon_options *o)
{
	paths_done(&o->paths);
}

static void read_holder(int fd, char *text, size_t size)
{
	ssize_t n = pread(fd, text, size - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	text[strspn(text, "0123456789")] = '\0';
}

/*
 * A holder that was killed may live on for a moment in a child of its, between fork and exec: the
 * lock is free as soon as that has executed. Wait for it, 1 s at most.
 */
static bool take_over(int fd)
{
	char text[32];
	pid_t pid;

	for (int i = 0; i < 50; i++) {
		read_holder(fd, text, sizeof(text));
		pid = (pid_t)strtol(text, NULL, 10);
		if (pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH)
			return false;
		(void)poll(NULL, 0, 20);
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return true;
	}
	return false;
}

static int lock_held(const char *program, const char *path, int fd, struct err *err)
{
	char text[32];

	read_holder(fd, text, sizeof(text));
	return err_set(err, EALREADY, "%s is already running (pid %s, %s)", program,
		       text[0] ? text : "unknown", path);
}

/* Whether path still names what fd has open: somebody may have removed the file meanwhile. */
static bool same_file(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

int daemon_lock(const char *program, const char *path, int *ret_fd, struct err *err)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	for (int attempt = 0; attempt < 16; attempt++) {
		AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

		if (fd < 0)
			return err_sys(err, errno, "cannot open the pid file '%s'", path);
		if (flock(fd, LOCK_EX | LOCK_NB) < 0 && (errno != EWOULDBLOCK || !take_over(fd)))
			return lock_held(program, path, fd, err);
		if (!same_file(fd, path))
			continue;
		if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
			return err_sys(err, errno ? errno : EIO, "cannot write '%s'", path);
		*ret_fd = steal_fd(&fd);
		return 0;
	}
	return err_set(err, EBUSY, "'%s' is replaced by others all the time", path);
}

struct hangup {
	void (*reload)(void *ctx);
	void *ctx;
};

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *si, void *ctx)
{
	log_info("signal received signal=%" PRIu32 " from_pid=%" PRIu32 " action=stop",
		 si->ssi_signo, si->ssi_pid);
	(void)sd_notify(0, "STOPPING=1");
	return sd_event_exit(sd_event_source_get_event(source), 0);
}

/* systemd's clock, which is not clock_us(). */
static uint64_t monotonic_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *si, void *ctx)
{
	const struct hangup *h = ctx;

	log_info("signal received signal=%" PRIu32 " from_pid=%" PRIu32 " action=%s", si->ssi_signo,
		 si->ssi_pid, h->reload ? "reload" : "none");
	if (h->reload) {
		(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, monotonic_us());
		h->reload(h->ctx);
		(void)sd_notify(0, "READY=1");
	}
	return 0;
}

static int add_signals(sd_event *event, void (*reload)(void *ctx), void *ctx)
{
	struct hangup *h = xmalloc(sizeof(*h));
	sd_event_source *source;
	int r;

	*h = (struct hangup){reload, ctx};
	r = sd_event_add_signal(event, &source, SIGHUP, on_hangup, h);
	if (r < 0) {
		free(h);
		return r;
	}
	(void)sd_event_source_set_destroy_callback(source, free);
	(void)sd_event_source_set_floating(source, true); /* the loop owns it */
	(void)sd_event_source_unref(source);
	r = sd_event_add_signal(event, NULL, SIGTERM, on_stop, NULL);
	return r < 0 ? r : sd_event_add_signal(event, NULL, SIGINT, on_stop, NULL);
}

int daemon_loop(sd_event **ret_event, void (*reload)(void *ctx), void *ctx, struct err *err)
{
	struct rlimit files;
	sd_event *event = NULL;
	sigset_t set;
	int r;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return err_sys(err, errno, "cannot block signals");
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	r = sd_event_default(&event);
	if (r < 0)
		return err_sys(err, -r, "cannot make an event loop");
	r = add_signals(event, reload, ctx);
	if (r < 0) {
		(void)sd_event_unref(event);
		return err_sys(err, -r, "cannot watch signals");
	}
	(void)sd_event_set_watchdog(event, true); /* does nothing unless systemd asked for it */
	*ret_event = event;
	return 0;
}

int timer_set(sd_event *event, sd_event_source **source, uint64_t delay_ms,
	      sd_event_time_handler_t fn, void *ctx)
{
	sd_event_source *fresh = NULL;
	struct timespec now;
	uint64_t at;
	int r;

	/* Not sd_event_now(): inside a long callback that is the time the callback began. */
	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	at = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000 + delay_ms * 1000;
	/* A source keeps the handler it was made with, and this may be another one. */
	r = sd_event_add_time(event, &fresh, CLOCK_BOOTTIME, at, TIMER_US, fn, ctx);
	if (r < 0)
		return r;
	(void)sd_event_source_disable_unref(*source);
	*source = fresh;
	return 0;
}

void timer_stop(sd_event_source *source)
{
	if (source)
		(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
}
