/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hooks print, on its way into the VM's log. Two FIFOs per VM, which a hook holds open
 * itself for reading too: so it outlives us without SIGPIPE, and a new vmstated reads on. What
 * a hook leaves running keeps them open; they are read until it has gone, so it never blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmstated/parts.h"

#define HOOK_OUT_MAX  (1u << 20) /* bytes one hook may put into the log; the rest is counted */
#define HOOK_LINE_MAX 4096u
#define READ_SIZE     4096
#define TURN_READS    16  /* 64 KiB a turn: a hook that writes for ever starves nobody */
#define END_READS     256 /* more than a FIFO holds */

struct stream {
	struct hook_output *of;
	const char *tag;
	int fd;
	sd_event_source *source;
	struct strbuf line;
	size_t written, dropped;
};

struct hook_output {
	struct guest *guest;
	char *hook; /* that runs, or ran last */
	bool busy;  /* one runs */
	struct stream streams[2];
};

static const struct {
	const char *file, *tag;
} kinds[] = {{"hook.out", "out"}, {"hook.err", "err"}};

static void log_line(struct stream *s)
{
	AUTO_FREE char *tag = NULL;

	if (s->line.len == 0)
		return;
	if (s->written > HOOK_OUT_MAX) {
		s->dropped += s->line.len;
	} else {
		tag = xasprintf("%s/%s", s->of->hook ? s->of->hook : "hook", s->tag);
		guestlog_line(s->of->guest, tag, s->line.data, s->line.len);
	}
	s->written += s->line.len;
	s->line.len = 0;
}

/* False at the end of the file: nobody has the other side open. */
static bool take(struct stream *s, int reads)
{
	char buf[READ_SIZE];

	for (int i = 0; i < reads; i++) {
		ssize_t n = read(s->fd, buf, sizeof(buf));

		if (n <= 0)
			return n < 0;
		for (ssize_t k = 0; k < n; k++) {
			if (buf[k] == '\n' || s->line.len >= HOOK_LINE_MAX)
				log_line(s);
			if (buf[k] != '\n')
				strbuf_putc(&s->line, buf[k]);
		}
	}
	return true;
}

static int on_output(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct stream *s = userdata;

	if (take(s, TURN_READS))
		return 0;
	if (s->of->busy)
		(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	else
		hookout_rest(s->of->guest);
	return 0;
}

/* For reading only, so that the end of the last writer is seen; it never waits for one. */
static int open_stream(struct guest *g, struct stream *s, const char *name, struct err *err)
{
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, name);
	int r;

	if (mkfifo(path, 0600) < 0 && errno != EEXIST)
		return err_sys(err, errno, "cannot make '%s'", path);
	s->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	if (s->fd < 0)
		return err_sys(err, errno, "cannot open '%s'", path);
	r = sd_event_add_io(g->sup->event, &s->source, s->fd, EPOLLIN, on_output, s);
	return r < 0 ? err_sys(err, -r, "cannot watch '%s'", path) : 0;
}

int hookout_open(struct guest *g, struct err *err)
{
	AUTO_FREE char *dir = path_of_run(&g->sup->paths, g->uuid, NULL);
	struct hook_output *o = g->hook_out;
	int r;

	if (o)
		return 0;
	r = dir_make(dir, 0711, err);
	if (r < 0)
		return r;
	o = g->hook_out = xcalloc(1, sizeof(*o));
	o->guest = g;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		o->streams[i] = (struct stream){.of = o, .tag = kinds[i].tag, .fd = -1};
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(kinds); i++)
		r = open_stream(g, &o->streams[i], kinds[i].file, err);
	if (r < 0)
		hookout_free(g);
	return r;
}

/* The hook's own open file: with ours, which does not block, a long output would fail in it. */
static int blocking_copy(int fd)
{
	char path[32];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

void hookout_begin(struct guest *g, const char *hook, int *ret_out, int *ret_err)
{
	struct hook_output *o = g->hook_out;

	if (!o)
		return;
	replace_str(&o->hook, xstrdup(hook));
	o->busy = true;
	*ret_out = blocking_copy(o->streams[0].fd);
	*ret_err = blocking_copy(o->streams[1].fd);
	for (size_t i = 0; i < ARRAY_SIZE(o->streams); i++)
		(void)sd_event_source_set_enabled(o->streams[i].source, SD_EVENT_ON);
}

void hookout_end(struct guest *g)
{
	struct hook_output *o = g->hook_out;

	if (!o)
		return;
	o->busy = false;
	for (size_t i = 0; i < ARRAY_SIZE(o->streams); i++) {
		struct stream *s = &o->streams[i];

		(void)take(s, END_READS);
		log_line(s);
		if (s->dropped)
			guestlog_printf(g, o->hook ? o->hook : "hook",
					"%zu more bytes were not logged", s->dropped);
		s->written = s->dropped = 0;
	}
}

void hookout_rest(struct guest *g)
{
	struct hook_output *o = g->hook_out;
	bool held = false;

	if (!o)
		return;
	o->busy = false;
	for (size_t i = 0; i < ARRAY_SIZE(o->streams); i++) {
		bool open = take(&o->streams[i], TURN_READS);

		held |= open;
		(void)sd_event_source_set_enabled(o->streams[i].source,
						  open ? SD_EVENT_ON : SD_EVENT_OFF);
	}
	if (held)
		return;
	hookout_free(g);
	for (size_t i = 0; i < ARRAY_SIZE(kinds);
	     i++) { /* nothing for who comes after us to look at */
		AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, kinds[i].file);

		(void)unlink(path);
	}
}

void hookout_resume(struct guest *g)
{
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, kinds[0].file);

	if (file_exists(path) && hookout_open(g, NULL) == 0)
		hookout_rest(g);
}

void hookout_free(struct guest *g)
{
	struct hook_output *o = g->hook_out;

	if (!o)
		return;
	g->hook_out = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(o->streams); i++) {
		struct stream *s = &o->streams[i];

		sd_event_source_disable_unref(s->source);
		if (s->fd >= 0)
			(void)close(s->fd);
		log_line(s);
		strbuf_done(&s->line);
	}
	free(o->hook);
	free(o);
}
