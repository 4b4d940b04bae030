/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console: we are the only client of QEMU's end (vm.ttya) and serve vm.console to several
 * readers, each starting with the history. Lines go to the VM's log; the text given as readyline
 * makes the guest `ready`. A reader that does not read is dropped; nothing waits for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "daemon/daemon.h"
#include "vmstated/hardware.h"
#include "vmstated/parts.h"

#define HISTORY_MAX (256u << 10)      /* bytes a new reader gets, from power-on */
#define HISTORY_CUT (64u << 10)       /* dropped at once when it is full */
#define HISTORY     "console.history" /* the same in the run directory, for who takes over */
#define READER_MAX  (256u << 10)      /* bytes a reader may be behind */
#define READERS_MAX 16
#define INPUT_MAX   (64u << 10) /* bytes waiting for the guest */
#define LINE_MAX_   1024u

struct reader {
	struct console_relay *relay;
	int fd;
	sd_event_source *source;
	struct strbuf out;
	struct reader *next;
};

struct console_relay {
	struct guest *guest;
	int tty, listener, file;
	sd_event_source *tty_source, *listen_source;
	struct strbuf history, line, input;
	struct reader *readers;
	size_t nreaders;
};

static void reader_free(struct reader *r)
{
	struct reader **at = &r->relay->readers;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	r->relay->nreaders--;
	sd_event_source_disable_unref(r->source);
	(void)close(r->fd);
	strbuf_done(&r->out);
	free(r);
}

/* false: the reader is gone. */
static bool reader_flush(struct reader *r)
{
	ssize_t n;

	if (r->out.len > 0) {
		n = send(r->fd, r->out.data, r->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN) {
			reader_free(r);
			return false;
		}
		if (n > 0)
			strbuf_drop(&r->out, (size_t)n);
	}
	(void)sd_event_source_set_io_events(r->source, EPOLLIN | (r->out.len ? EPOLLOUT : 0));
	return true;
}

static void flush_input(struct console_relay *c)
{
	ssize_t n;

	if (c->input.len > 0) {
		n = send(c->tty, c->input.data, c->input.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			strbuf_drop(&c->input, (size_t)n);
	}
	(void)sd_event_source_set_io_events(c->tty_source, EPOLLIN | (c->input.len ? EPOLLOUT : 0));
}

static int on_reader(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct reader *r = userdata;
	struct console_relay *c = r->relay;
	char buf[4096];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN)) {
		reader_free(r);
		return 0;
	}
	/* What the guest does not take is dropped, as on a real serial line. */
	if (n > 0 && c->input.len + (size_t)n <= INPUT_MAX)
		strbuf_add(&c->input, buf, (size_t)n);
	flush_input(c);
	(void)reader_flush(r);
	return 0;
}

static int on_connect(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct console_relay *c = userdata;
	const struct vm *vm = guest_vm(c->guest);
	AUTO_FD int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct sock_peer who = {0};
	struct reader *r;
	bool allowed;

	if (peer < 0 || c->nreaders >= READERS_MAX || sock_peer(peer, &who, NULL) < 0)
		return 0;
	allowed = vm && sock_peer_may(&who, vm->owner_uid, vm->group_gid);
	if (!allowed)
		log_warn("vm=%s console refused uid=%u", c->guest->uuid, who.uid);
	sock_peer_done(&who);
	if (!allowed)
		return 0;
	r = xcalloc(1, sizeof(*r));
	r->relay = c;
	r->fd = steal_fd(&peer);
	r->next = c->readers;
	c->readers = r;
	c->nreaders++;
	strbuf_add(&r->out, c->history.data, c->history.len);
	if (sd_event_add_io(c->guest->sup->event, &r->source, r->fd, EPOLLIN, on_reader, r) < 0)
		reader_free(r);
	else
		(void)reader_flush(r);
	return 0;
}

static void take_line(struct console_relay *c)
{
	struct guest *g = c->guest;
	const struct vm *vm = guest_vm(g);

	if (c->line.len > 0 && c->line.data[c->line.len - 1] == '\r')
		c->line.data[--c->line.len] = '\0';
	if (c->line.len > 0)
		guestlog_line(g, "console", c->line.data, c->line.len);
	if (!g->ready && vm && vm->readyline && c->line.len > 0 &&
	    strstr(c->line.data, vm->readyline))
		guest_now_ready(g);
	c->line.len = 0;
}

static void remember(struct console_relay *c, const char *data, size_t len)
{
	strbuf_add(&c->history, data, len);
	if (c->file >= 0)
		(void)fd_write_all(c->file, data, len);
	if (c->history.len <= HISTORY_MAX)
		return;
	strbuf_drop(&c->history, HISTORY_CUT + (c->history.len - HISTORY_MAX));
	if (c->file >= 0 && ftruncate(c->file, 0) == 0)
		(void)fd_write_all(c->file, c->history.data, c->history.len);
}

/* The history of this start: empty at its begin, read back after we were away. */
static void open_history(struct console_relay *c, bool fresh)
{
	const struct guest *g = c->guest;
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, HISTORY);
	AUTO_FREE char *old = NULL;
	size_t len;

	c->file =
		open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (fresh ? O_TRUNC : 0), 0600);
	if (!fresh && file_read(path, 2 * HISTORY_MAX, &old, &len, NULL, NULL) == 0)
		strbuf_add(&c->history, old, len);
}

static void spread(struct console_relay *c, const char *data, size_t len)
{
	struct reader *r, *next;

	remember(c, data, len);
	for (r = c->readers; r; r = next) {
		next = r->next;
		if (r->out.len + len > READER_MAX) {
			log_info("vm=%s console reader dropped: it does not read", c->guest->uuid);
			reader_free(r);
			continue;
		}
		strbuf_add(&r->out, data, len);
		(void)reader_flush(r);
	}
	for (size_t i = 0; i < len; i++) {
		if (data[i] == '\n' || c->line.len >= LINE_MAX_)
			take_line(c);
		if (data[i] != '\n' && data[i] != '\0')
			strbuf_putc(&c->line, data[i]);
	}
}

static int on_tty(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct console_relay *c = userdata;
	char buf[16384];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n > 0)
		spread(c, buf, (size_t)n);
	else if (n == 0 || errno != EAGAIN)
		(void)sd_event_source_set_enabled(source, SD_EVENT_OFF); /* QEMU is ending */
	if (n > 0)
		flush_input(c);
	return 0;
}

int console_open(struct guest *g, bool fresh, struct err *err)
{
	AUTO_FREE char *tty = path_of_run(&g->sup->paths, g->uuid, "vm.ttya");
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, "vm.console");
	struct console_relay *c;
	int r;

	if (hardware_consoles(g) == 0)
		return 0;
	c = xcalloc(1, sizeof(*c));
	c->guest = g;
	c->tty = c->listener = c->file = -1;
	g->console = c;
	open_history(c, fresh);
	r = sock_connect(tty, &c->tty, err);
	if (r == 0)
		r = sock_listen(path, 0666, &c->listener, err); /* who may: asked per connection */
	if (r == 0)
		r = sd_event_add_io(g->sup->event, &c->tty_source, c->tty, EPOLLIN, on_tty, c);
	if (r >= 0)
		r = sd_event_add_io(g->sup->event, &c->listen_source, c->listener, EPOLLIN,
				    on_connect, c);
	if (r < 0)
		console_close(g);
	return r < 0 ? r : 0;
}

void console_close(struct guest *g)
{
	struct console_relay *c = g->console;
	AUTO_FREE char *path = path_of_run(&g->sup->paths, g->uuid, "vm.console");
	char buf[16384];
	ssize_t n;

	if (!c)
		return;
	/* The guest's last words. */
	while (c->tty >= 0 && (n = recv(c->tty, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		spread(c, buf, (size_t)n);
	take_line(c);
	while (c->readers)
		reader_free(c->readers);
	sd_event_source_disable_unref(c->tty_source);
	sd_event_source_disable_unref(c->listen_source);
	if (c->tty >= 0)
		(void)close(c->tty);
	if (c->listener >= 0) {
		(void)close(c->listener);
		(void)unlink(path);
	}
	if (c->file >= 0)
		(void)close(c->file);
	strbuf_done(&c->history);
	strbuf_done(&c->line);
	strbuf_done(&c->input);
	free(c);
	g->console = NULL;
}
