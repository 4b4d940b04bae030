/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What carries a migration over TLS. Each connection is a process: the side that calls says in one
 * line what it wants, `http`, or `incoming` or `nbd` of a VM; the other answers `ok` and connects
 * it to that socket. Over http only one request for /arrivals goes through per connection: a
 * certificate lets a host send VMs, and is no key to all that vmadmd can do.
 */
#include "vmadmd/migrate/peer_tls.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "net/tls.h"
#include "vmadmd/migrate/migrate.h"
#include "vmadmd/vmadmd.h"

#define HELLO      "DROVER-PEER-1 "
#define HEAD_MAX   8192u
#define SERVED_MAX 32u                /* connections at once */
#define FOLDER     "/etc/vmadmd/tls/" /* below the root */

struct names {
	char *ca, *cert, *key;
};

static char *name_of(const struct vmadmd *d, const char *file)
{
	bool below = !str_eq(d->paths->root, "/");

	return xasprintf("%s" FOLDER "%s", below ? d->paths->root : "", file);
}

static struct tls_files files_of(const struct vmadmd *d, struct names *n)
{
	*n = (struct names){name_of(d, "ca.pem"), name_of(d, "cert.pem"), name_of(d, "key.pem")};
	return (struct tls_files){n->ca, n->cert, n->key};
}

static void names_done(struct names *n)
{
	free(n->ca);
	free(n->cert);
	free(n->key);
}

int peer_split(const char *at, char **ret_host, char **ret_port, struct err *err)
{
	bool bracket = at[0] == '[';
	const char *end = bracket ? strchr(at, ']') : strrchr(at, ':');
	const char *colon = end && bracket ? end + 1 : end;
	const char *port = colon && *colon == ':' ? colon + 1 : "";
	size_t digits = strspn(port, "0123456789");

	if (digits == 0 || digits > 5 || port[digits] || end == at + bracket ||
	    strpbrk(at, "/ \t@'\"\\"))
		return err_set(err, EINVAL, "'%.200s' is no address (want HOST:PORT)", at);
	*ret_host = xstrndup(at + bracket, (size_t)(end - at) - bracket);
	*ret_port = xstrdup(port);
	return 0;
}

/* --- the side that calls --- */

static int call(const struct peer_tunnel *t, const char *what, struct tls **ret, struct err *err)
{
	struct names n;
	const struct tls_files files = files_of(t->d, &n);
	AUTO_FREE char *hello = xasprintf(HELLO "%s\n", what);
	char said[TLS_LINE_MAX];
	struct tls *s = NULL;
	int r = tls_connect(&files, t->host, t->port, &s, err);

	names_done(&n);
	if (r == 0)
		r = tls_send(s, hello, strlen(hello), err);
	if (r == 0)
		r = tls_recv_line(s, said, sizeof(said), err);
	if (r == 0 && !str_eq(said, "ok"))
		r = err_set(err, EPROTO, "%s says: %s", t->host, said);
	if (r < 0) {
		tls_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

/* Ends the process. */
static void carry(const struct peer_tunnel *t, const char *what, int fd)
{
	struct tls *s = NULL;
	struct err err = {0};

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (call(t, what, &s, &err) == 0)
		tls_relay(s, fd);
	else
		log_warn("vm=%s tls://%s:%s %s", t->uuid, t->host, t->port, err.msg);
	_exit(0);
}

static void serve_calls(const struct peer_tunnel *t, struct pollfd *fds, char *const *what)
{
	while (poll(fds, 4, -1) >= 0 || errno == EINTR) {
		if (fds[3].revents) /* whom it is for ended, or has no more use of it */
			return;
		for (size_t i = 0; i < 3; i++) {
			int fd = fds[i].revents ? accept(fds[i].fd, NULL, NULL) : -1;

			if (fd < 0)
				continue;
			if (fork() == 0)
				carry(t, what[i], fd);
			(void)close(fd);
		}
	}
}

static int tunnel(const void *arg)
{
	const struct peer_tunnel *t = arg;
	const char *const names[] = {t->http, t->incoming, t->nbd};
	char *const what[] = {xstrdup("http"), xasprintf("incoming %s", t->uuid),
			      xasprintf("nbd %s", t->uuid)};
	struct pollfd fds[4] = {[3] = {.fd = STDIN_FILENO, .events = POLLIN}};
	struct tls *trial = NULL;
	struct err err = {0};
	int r;

	(void)signal(SIGCHLD, SIG_IGN);
	(void)signal(SIGPIPE, SIG_IGN);
	r = call(t, "ping", &trial, &err);
	tls_free(trial);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(names); i++) {
		fds[i].events = POLLIN;
		r = sock_listen(names[i], 0600, &fds[i].fd, &err);
	}
	if (r < 0) {
		(void)dprintf(STDOUT_FILENO, "%s\n", err.msg);
		return 1;
	}
	if (write(STDOUT_FILENO, PEER_READY, strlen(PEER_READY)) > 0)
		serve_calls(t, fds, what);
	return 0;
}

int peer_tls_spawn(const struct peer_tunnel *t, child_done done, void *ctx, struct child **ret,
		   struct err *err)
{
	const char *const argv[] = {"vmadmd-tls", NULL};
	const struct child_spec spec = {.argv = argv,
					.run = tunnel,
					.arg = t,
					.cwd = t->d->paths->run,
					.in = t->in,
					.out = t->out,
					.errfd = STDERR_FILENO,
					.group = true,
					.dies_with_us = true};

	return child_start(t->d->event, &spec, done, ctx, ret, err);
}

/* --- the side that is called --- */

struct peer_server {
	struct vmadmd *d;
	char *at;
	int fd;
	sd_event_source *source;
	unsigned serving;
};

struct served {
	const struct vmadmd *d;
	int fd;
};

/* One request, for an arrival, after which the server closes. */
static int read_head(struct tls *s, struct strbuf *head, struct err *err)
{
	char part[1024];

	while (!head->data || !strstr(head->data, "\r\n\r\n")) {
		int n = tls_recv(s, part, sizeof(part), err);

		if (n <= 0)
			return n < 0 ? n : err_set(err, ECONNRESET, "it ended in its request");
		strbuf_add(head, part, (size_t)n);
		if (head->len > HEAD_MAX || memchr(part, '\0', (size_t)n))
			return err_set(err, EPROTO, "its request is none of vmadmd");
	}
	if (!str_starts(head->data, "POST /arrivals") ||
	    !strstr(head->data, "\r\nConnection: close\r\n") ||
	    strstr(head->data, "\r\nConnection: close\r\n") > strstr(head->data, "\r\n\r\n"))
		return err_set(err, EPERM, "only one request for /arrivals is served here");
	return 0;
}

/* The path of the socket that is wanted; NULL: none of ours. ping: "". */
static char *wanted(const struct vmadmd *d, const char *what)
{
	static const char *const names[][2] = {{"incoming ", MIGRATE_INCOMING},
					       {"nbd ", MIGRATE_NBD}};

	if (str_eq(what, "ping"))
		return xstrdup("");
	if (str_eq(what, "http"))
		return xstrdup(d->paths->vmadmd);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *uuid = what + strlen(names[i][0]);

		if (str_starts(what, names[i][0]) && uuid_valid(uuid))
			return path_of_run(d->paths, uuid, names[i][1]);
	}
	return NULL;
}

static int connect_it(struct tls *s, const char *what, const char *path, struct err *err)
{
	AUTO_STRBUF struct strbuf head = {0};
	AUTO_FD int fd = -1;
	int r = *path ? sock_connect(path, &fd, err) : 0;

	if (r < 0) {
		(void)tls_send(s, "that is not here\n", 17, NULL);
		return r;
	}
	r = tls_send(s, "ok\n", 3, err);
	if (r < 0 || fd < 0)
		return r;
	if (str_eq(what, "http"))
		r = read_head(s, &head, err);
	if (r == 0 && head.len > 0 && send(fd, head.data, head.len, MSG_NOSIGNAL) < 0)
		r = err_sys(err, errno, "'%s'", path);
	if (r == 0)
		tls_relay(s, fd);
	return r;
}

static int serve_one(const void *arg)
{
	const struct served *served = arg;
	struct names n;
	const struct tls_files files = files_of(served->d, &n);
	AUTO_FREE char *path = NULL;
	char line[TLS_LINE_MAX];
	const char *what = line + strlen(HELLO);
	struct tls *s = NULL;
	struct err err = {0};
	int r;

	(void)signal(SIGPIPE, SIG_IGN);
	r = tls_accept(&files, served->fd, &s, &err);
	names_done(&n);
	if (r == 0)
		r = tls_recv_line(s, line, sizeof(line), &err);
	if (r == 0)
		path = str_starts(line, HELLO) ? wanted(served->d, what) : NULL;
	if (r == 0 && !path)
		r = err_set(&err, EPROTO, "it does not ask as a vmadmd would");
	if (r == 0)
		r = connect_it(s, what, path, &err);
	if (r < 0)
		log_warn("TLS: a peer was not served: %s", err.msg);
	tls_free(s);
	return 0;
}

static void on_served(void *ctx, const struct child_exit *how)
{
	struct peer_server *s = ctx;

	s->serving--;
	(void)sd_event_source_set_enabled(s->source, SD_EVENT_ON);
}

/* It goes on when we end: a stream of a VM does not depend on us. */
static int on_call(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct peer_server *s = ctx;
	AUTO_FD int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	const struct served served = {s->d, peer};
	const char *const argv[] = {"vmadmd-tls", NULL};
	const struct child_spec spec = {.argv = argv,
					.run = serve_one,
					.arg = &served,
					.in = -1,
					.out = -1,
					.errfd = STDERR_FILENO,
					.keep = &peer,
					.nkeep = 1,
					.group = true};
	struct child *child;
	struct err err = {0};

	if (peer < 0)
		return 0;
	if (child_start(s->d->event, &spec, on_served, s, &child, &err) < 0) {
		log_warn("TLS: %s", err.msg);
		return 0;
	}
	if (++s->serving >= SERVED_MAX)
		(void)sd_event_source_set_enabled(s->source, SD_EVENT_OFF);
	return 0;
}

int peer_server_new(struct vmadmd *d, const char *at, struct peer_server **ret, struct err *err)
{
	AUTO_FREE char *host = NULL, *port = NULL;
	int r = peer_split(at, &host, &port, err);

	if (r < 0)
		return err_wrap(err, r, "tls");
	peer_server_free(*ret);
	*ret = xcalloc(1, sizeof(**ret));
	**ret = (struct peer_server){.d = d, .fd = -1, .at = xstrdup(at)};
	return 0;
}

int peer_server_open(struct peer_server *s, struct err *err)
{
	AUTO_FREE char *host = NULL, *port = NULL;
	struct names n;
	const struct tls_files files = files_of(s->d, &n);
	uint16_t number = 0;
	int r = peer_split(s->at, &host, &port, err);

	if (r == 0)
		r = tls_check(&files, err);
	if (r == 0)
		r = sock_listen_tcp(host, (uint16_t)strtoul(port, NULL, 10), &s->fd, &number, err);
	if (r == 0)
		r = sd_event_add_io(s->d->event, &s->source, s->fd, EPOLLIN, on_call, s);
	names_done(&n);
	if (r < 0)
		return err_wrap(err, r, "--tls %s", s->at);
	log_info("TLS for VMs that come: address=%s port=%u", host, number);
	return 0;
}

void peer_server_free(struct peer_server *s)
{
	if (!s)
		return;
	sd_event_source_disable_unref(s->source);
	if (s->fd >= 0)
		(void)close(s->fd);
	free(s->at);
	free(s);
}
