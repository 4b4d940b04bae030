/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run a tool and collect what it prints; see child_run in child.h. The end is the process's, not
 * the pipes': something it left behind may hold them open for ever. What is in them at that
 * moment is still taken.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "daemon/child.h"
#include "daemon/child_private.h"

#define READ_SIZE   (16u << 10)
#define DRAIN_READS 256 /* at the end: 4 MiB, more than pipes hold */

struct output {
	int fd;
	size_t max;
	struct strbuf text;
	sd_event_source *io;
};

struct run {
	struct output out, errors;
	run_done done;
	void *ctx;
};

static void output_done(struct output *o)
{
	(void)sd_event_source_disable_unref(o->io);
	if (o->fd >= 0)
		(void)close(o->fd);
	strbuf_done(&o->text);
}

static void run_free(void *ctx)
{
	struct run *run = ctx;

	output_done(&run->out);
	output_done(&run->errors);
	free(run);
}

/* Read once: what is over the bound is read and thrown away, so that the tool does not block. */
static ssize_t take(struct output *o)
{
	char buf[READ_SIZE];
	ssize_t n = read(o->fd, buf, sizeof(buf));
	size_t room = o->max - o->text.len;

	if (n > 0)
		strbuf_add(&o->text, buf, (size_t)n < room ? (size_t)n : room);
	return n < 0 ? -errno : n;
}

static int on_output(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	ssize_t n = take(ctx);

	if (n == 0 || (n < 0 && n != -EAGAIN && n != -EINTR))
		(void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
	return 0;
}

static void on_exit_of_child(void *ctx, const struct child_exit *how)
{
	struct run *run = ctx;

	for (int i = 0; i < DRAIN_READS && take(&run->out) > 0; i++)
		;
	for (int i = 0; i < DRAIN_READS && take(&run->errors) > 0; i++)
		;
	strbuf_puts(&run->out.text, "");
	strbuf_puts(&run->errors.text, "");
	run->done(run->ctx, how, run->out.text.data, run->errors.text.data);
	run_free(run);
}

static int output_open(sd_event *event, struct output *o, int *ret_write, struct err *err)
{
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, errno, "cannot make a pipe");
	o->fd = ends[0];
	*ret_write = ends[1];
	/* Our end only: the tool must find a pipe that blocks. */
	if (fcntl(o->fd, F_SETFL, O_NONBLOCK) < 0)
		return err_sys(err, errno, "cannot set up a pipe");
	r = sd_event_add_io(event, &o->io, o->fd, EPOLLIN, on_output, o);
	return r < 0 ? err_sys(err, -r, "cannot watch a pipe") : 0;
}

int child_run(sd_event *event, const struct child_spec *spec, size_t max_output, run_done done,
	      void *ctx, struct child **ret, struct err *err)
{
	AUTO_FD int out = -1, errors = -1;
	struct run *run = xcalloc(1, sizeof(*run));
	struct child_spec piped = *spec;
	struct child *c = NULL;
	int r;

	*run = (struct run){.out = {.fd = -1, .max = max_output},
			    .errors = {.fd = -1, .max = max_output},
			    .done = done,
			    .ctx = ctx};
	r = output_open(event, &run->out, &out, err);
	if (r >= 0)
		r = output_open(event, &run->errors, &errors, err);
	if (r >= 0) {
		piped.out = out;
		piped.errfd = errors;
		r = child_start(event, &piped, on_exit_of_child, run, &c, err);
	}
	if (r < 0) {
		run_free(run);
		return r;
	}
	child_on_forget(c, run_free);
	if (ret)
		*ret = c;
	return 0;
}
