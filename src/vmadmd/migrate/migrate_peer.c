/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vmadmd of the other side: another root of this host by its sockets, or another host through
 * a process that carries its sockets here, ssh or our own with TLS. It ends with us: its input
 * does. Here nothing is listened on beyond unix sockets.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/status.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "daemon/child.h"
#include "net/call.h"
#include "vmadmd/migrate/migrate.h"
#include "vmadmd/migrate/peer_tls.h"

#define TEXT_MAX 4096u
#define CONFIG   "/etc/vmadmd/ssh_config" /* below the root: for ssh, where it is there */

struct peer {
	struct vmadmd *d;
	char uuid[UUID_LEN + 1];
	char *to;
	struct paths paths; /* of the other side */
	char *host, *port;  /* NULL: unix */
	bool tls;           /* else ssh, where there is a host */
	bool reached;
	struct child *tunnel;
	int hold; /* its input; closed, it ends */
	int out;
	sd_event_source *source;
	struct strbuf text; /* what it said */
	struct call *call;
	sd_event_source *defer;
	char *target, *body; /* of the call that waits or runs */
	uint64_t timeout_ms;
	peer_done done;
	void *ctx;
};

/* --- where --- */

static int parse_ssh(struct peer *p, const char *rest, const char **ret_root, struct err *err)
{
	size_t len = strcspn(rest, "/");
	const char *colon;

	p->host = xstrndup(rest, len);
	*ret_root = rest[len] ? rest + len : "/";
	colon = strrchr(p->host, ':');
	if (colon) {
		p->port = xstrdup(colon + 1);
		p->host[colon - p->host] = '\0';
	}
	if (!*p->host || *p->host == '-' || strpbrk(p->host, " \t'\"\\") ||
	    strchr(*ret_root, ':') ||
	    (p->port && (!*p->port || strspn(p->port, "0123456789") != strlen(p->port))))
		return err_set(err, EINVAL,
			       "to: '%.200s' is no address (want ssh://[USER@]HOST[:PORT][/ROOT])",
			       p->to);
	return 0;
}

/* The root there is that of the vmadmd which listens. */
static int parse_tls(struct peer *p, const char *rest, const char **ret_root, struct err *err)
{
	p->tls = true;
	*ret_root = "/";
	return err_wrap(err, peer_split(rest, &p->host, &p->port, err), "to");
}

int peer_new(struct vmadmd *d, const char *uuid, const char *to, struct peer **ret, struct err *err)
{
	struct peer *p = xcalloc(1, sizeof(*p));
	const char *root = NULL;
	int r = 0;

	*p = (struct peer){.d = d, .hold = -1, .out = -1, .to = xstrdup(to ? to : "")};
	memcpy(p->uuid, uuid, sizeof(p->uuid));
	if (str_starts(p->to, "unix:/"))
		root = p->to + strlen("unix:");
	else if (str_starts(p->to, "ssh://"))
		r = parse_ssh(p, p->to + strlen("ssh://"), &root, err);
	else if (str_starts(p->to, "tls://"))
		r = parse_tls(p, p->to + strlen("tls://"), &root, err);
	else
		r = err_set(err, EINVAL,
			    "to: '%.200s' is no address (want unix:/ROOT, tls://HOST:PORT or "
			    "ssh://[USER@]HOST[:PORT][/ROOT])",
			    p->to);
	if (r == 0)
		r = paths_init(&p->paths, root, err);
	if (r == 0 && !p->host && str_eq(p->paths.root, d->paths->root))
		r = err_set(err, EINVAL, "to: '%.200s' is this root itself", p->to);
	if (r < 0) {
		peer_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

/* Not in the VM's run directory, which goes with the VM before the last word is said. */
static char *peer_file(const struct peer *p, const char *name)
{
	return xasprintf(".peer-%s.%s", p->uuid, name);
}

static char *local_path(const struct peer *p, const char *name)
{
	if (p->host) {
		AUTO_FREE char *file = peer_file(p, name);

		return path_join(p->d->paths->run, file);
	}
	if (str_eq(name, "http"))
		return xstrdup(p->paths.vmadmd);
	return path_of_run(&p->paths, p->uuid, name);
}

/* --- what carries --- */

static void tunnel_end(struct peer *p)
{
	static const char *const names[] = {"http", MIGRATE_INCOMING, MIGRATE_NBD};

	p->reached = false;
	p->source = sd_event_source_disable_unref(p->source);
	if (p->hold >= 0)
		(void)close(p->hold);
	if (p->out >= 0)
		(void)close(p->out);
	p->hold = p->out = -1;
	if (p->tunnel) {
		(void)child_kill(p->tunnel, 15, true);
		child_forget(p->tunnel);
	}
	p->tunnel = NULL;
	for (size_t i = 0; p->host && i < ARRAY_SIZE(names); i++) {
		AUTO_FREE char *path = local_path(p, names[i]);

		(void)unlink(path);
	}
}

static void finish(struct peer *p, int r, const json_t *body, const struct err *err)
{
	peer_done done = p->done;

	p->done = NULL;
	if (done)
		done(p->ctx, r, body, err);
}

static void on_reply(void *ctx, int r, int status, const char *body, size_t len,
		     const struct err *err)
{
	struct peer *p = ctx;
	struct err text = *err;
	AUTO_JSON json_t *json = NULL;

	p->call = NULL;
	if (r == 0 && status >= 300) {
		r = ask_error(status, body, &text);
		err_wrap(&text, r, "%s", p->to);
	} else if (r == 0) {
		r = json_parse_object(body, len, p->to, &json, &text);
	} else {
		err_wrap(&text, r, "%s cannot be reached", p->to);
		tunnel_end(p);
	}
	finish(p, r, json, &text);
}

static void send_call(struct peer *p)
{
	AUTO_FREE char *path = local_path(p, "http");
	const struct call_request request = {.socket = path,
					     .method = "POST",
					     .target = p->target,
					     .body = p->body,
					     .timeout_ms = p->timeout_ms};

	p->call = call_start(p->d->event, &request, on_reply, p);
}

/* What is there; false at its end. */
static bool take_text(struct peer *p)
{
	char part[512];
	ssize_t n = read(p->out, part, sizeof(part) - 1);

	if (n > 0 && p->text.len < TEXT_MAX)
		strbuf_add(&p->text, part, (size_t)n);
	return n > 0;
}

static void on_tunnel_ended(void *ctx, const struct child_exit *how)
{
	struct peer *p = ctx;
	struct err err = {0};
	struct pollfd more = {.fd = p->out, .events = POLLIN};
	bool was = p->reached;

	p->tunnel = NULL;
	while (poll(&more, 1, 0) > 0 && take_text(p)) /* its end may be told before its words */
		;
	while (p->text.len > 0 && strchr("\r\n", p->text.data[p->text.len - 1]))
		p->text.data[--p->text.len] = '\0';
	err_set(&err, ECONNREFUSED, "%s cannot be reached: %s%.300s", p->to,
		p->tls ? "" : "ssh: ", p->text.data && *p->text.data ? p->text.data : "it ended");
	tunnel_end(p);
	/* With a call under way the call tells. */
	if (!was && p->done)
		finish(p, -ECONNREFUSED, NULL, &err);
}

static int on_tunnel_says(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct peer *p = ctx;

	if (!take_text(p)) {
		p->source = sd_event_source_disable_unref(p->source);
		return 0;
	}
	if (!p->reached && strstr(p->text.data, PEER_READY)) {
		p->reached = true;
		if (p->done)
			send_call(p);
	}
	return 0;
}

static void add_forward(const char **argv, size_t *n, char **forward)
{
	argv[(*n)++] = "-L";
	argv[(*n)++] = *forward;
}

/* In the directory of its sockets here, so that no path here is too long; those there are as they
 * are. */
static int ssh_spawn(struct peer *p, const int in[2], const int out[2], struct err *err)
{
	AUTO_FREE char *http = peer_file(p, "http");
	AUTO_FREE char *to_incoming = peer_file(p, MIGRATE_INCOMING);
	AUTO_FREE char *to_nbd = peer_file(p, MIGRATE_NBD);
	AUTO_FREE char *incoming = path_of_run(&p->paths, p->uuid, MIGRATE_INCOMING);
	AUTO_FREE char *nbd = path_of_run(&p->paths, p->uuid, MIGRATE_NBD);
	AUTO_FREE char *f0 = xasprintf("./%s:%s", http, p->paths.vmadmd);
	AUTO_FREE char *f1 = xasprintf("./%s:%s", to_incoming, incoming);
	AUTO_FREE char *f2 = xasprintf("./%s:%s", to_nbd, nbd);
	bool below = !str_eq(p->d->paths->root, "/");
	AUTO_FREE char *config = xasprintf("%s" CONFIG, below ? p->d->paths->root : "");
	const char *argv[40] = {"ssh", "-T",
				"-o",  "BatchMode=yes",
				"-o",  "ExitOnForwardFailure=yes",
				"-o",  "StreamLocalBindUnlink=yes",
				"-o",  "ConnectTimeout=10",
				"-o",  "ServerAliveInterval=5",
				"-o",  "ServerAliveCountMax=3"};
	const struct child_spec spec = {.argv = argv,
					.cwd = p->d->paths->run,
					.in = in[0],
					.out = out[1],
					.errfd = out[1],
					.group = true};
	size_t n = 14;

	if (file_exists(config)) {
		argv[n++] = "-F";
		argv[n++] = config;
	}
	if (p->port) {
		argv[n++] = "-p";
		argv[n++] = p->port;
	}
	add_forward(argv, &n, &f0);
	add_forward(argv, &n, &f1);
	add_forward(argv, &n, &f2);
	argv[n++] = "--";
	argv[n++] = p->host;
	argv[n] = "echo drover-ready; exec cat >/dev/null";
	return child_start(p->d->event, &spec, on_tunnel_ended, p, &p->tunnel, err);
}

static int tls_spawn(struct peer *p, const int in[2], const int out[2], struct err *err)
{
	AUTO_FREE char *http = peer_file(p, "http");
	AUTO_FREE char *incoming = peer_file(p, MIGRATE_INCOMING);
	AUTO_FREE char *nbd = peer_file(p, MIGRATE_NBD);
	const struct peer_tunnel t = {p->d,     p->uuid, p->host, p->port, http,
				      incoming, nbd,     in[0],   out[1]};

	return peer_tls_spawn(&t, on_tunnel_ended, p, &p->tunnel, err);
}

static int tunnel_start(struct peer *p, struct err *err)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1}, r = 0;

	p->text.len = 0;
	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		r = err_sys(err, errno, "cannot make a pipe");
	if (r == 0)
		r = p->tls ? tls_spawn(p, in, out, err) : ssh_spawn(p, in, out, err);
	if (in[0] >= 0)
		(void)close(in[0]);
	if (out[1] >= 0)
		(void)close(out[1]);
	p->hold = in[1];
	p->out = out[0];
	if (r == 0)
		(void)sd_event_add_io(p->d->event, &p->source, p->out, EPOLLIN, on_tunnel_says, p);
	return r;
}

/* --- calls --- */

static int on_defer(sd_event_source *source, void *ctx)
{
	struct peer *p = ctx;
	struct err err = {0};
	int r = 0;

	p->defer = sd_event_source_disable_unref(p->defer);
	if (!p->host || p->reached) {
		send_call(p);
		return 0;
	}
	tunnel_end(p);
	r = tunnel_start(p, &err);
	if (r < 0)
		finish(p, r, NULL, &err);
	return 0;
}

void peer_call(struct peer *p, const char *target, json_t *body, uint64_t timeout_ms,
	       peer_done done, void *ctx)
{
	AUTO_JSON json_t *taken = body;

	free(p->body);
	p->body = json_text(taken);
	replace_str(&p->target, xstrdup(target));
	p->timeout_ms = timeout_ms;
	p->done = done;
	p->ctx = ctx;
	(void)sd_event_add_defer(p->d->event, &p->defer, on_defer, p);
}

int peer_stream(const struct peer *p, const char *name, int *ret_fd, struct err *err)
{
	AUTO_FREE char *path = local_path(p, name);

	return sock_connect(path, ret_fd, err);
}

void peer_free(struct peer *p)
{
	if (!p)
		return;
	if (p->call)
		call_cancel(p->call);
	sd_event_source_disable_unref(p->defer);
	tunnel_end(p);
	strbuf_done(&p->text);
	paths_done(&p->paths);
	free(p->host);
	free(p->port);
	free(p->to);
	free(p->target);
	free(p->body);
	free(p);
}
