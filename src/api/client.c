/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tools' HTTP client; see client.h. The socket is non-blocking and every wait is a poll with
 * the call's deadline. A request is sent again only where it cannot have been taken: on a kept
 * connection that the server had closed before we wrote, or for GET.
 */
#include "api/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>

#include "api/client_private.h"
#include "api/http_parse.h"
#include "api/status.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"

#define READ_SIZE (64u << 10)
#define RETRY_MS  20 /* between attempts where no file event tells (bind to listen) */

const char *client_daemon_name(const char *path, char *buf, size_t size)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;

	(void)snprintf(buf, size, "%.*s", (int)strcspn(base, "."), base);
	return buf;
}

uint64_t client_deadline(int timeout_ms)
{
	return timeout_ms < 0 ? CLIENT_NO_DEADLINE : clock_ms() + (uint64_t)timeout_ms;
}

/* poll() until the deadline: the ready events, or 0 when the time is over. */
static int wait_fd(int fd, short events, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};

	for (;;) {
		uint64_t now = clock_ms();
		int left = -1, n;

		if (deadline != CLIENT_NO_DEADLINE)
			left = deadline > now ? (int)(deadline - now) : 0;
		n = poll(&p, 1, left);
		if (n > 0)
			return p.revents;
		if (n == 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

/* A watch on the socket's directory tells when the daemon makes it anew; -1 without one. */
static int watch_dir_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *dir = slash ? xstrndup(path, (size_t)(slash - path) + 1) : xstrdup(".");
	AUTO_FD int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	if (fd < 0 || inotify_add_watch(fd, dir, IN_CREATE | IN_MOVED_TO | IN_ATTRIB) < 0)
		return -1;
	return steal_fd(&fd);
}

static void wait_for_change(int watch, uint64_t deadline)
{
	uint64_t soon = clock_ms() + RETRY_MS;
	char events[4096];

	if (wait_fd(watch, POLLIN, soon < deadline ? soon : deadline) > 0)
		(void)!read(watch, events, sizeof(events));
}

static bool worth_waiting(int r)
{
	return r == -ENOENT || r == -ECONNREFUSED || r == -EAGAIN;
}

static int reach(const char *path, uint64_t deadline, int *ret_fd, struct err *err)
{
	int r = sock_connect(path, ret_fd, NULL);
	AUTO_FD int watch = -1;
	char name[64];

	if (worth_waiting(r) && clock_ms() < deadline)
		watch = watch_dir_of(path);
	while (worth_waiting(r) && clock_ms() < deadline) {
		r = sock_connect(path, ret_fd, NULL);
		if (worth_waiting(r))
			wait_for_change(watch, deadline);
	}
	if (r < 0)
		return err_sys(err, -r, "cannot reach %s at '%s'",
			       client_daemon_name(path, name, sizeof(name)), path);
	return 0;
}

int client_open(struct client *c, const char *path, const char *user_agent, int wait_ms,
		struct err *err)
{
	int fd, r;

	*c = (struct client){.fd = -1};
	r = reach(path, client_deadline(wait_ms > 0 ? wait_ms : 0), &fd, err);
	if (r < 0)
		return r;
	*c = (struct client){.fd = fd, .path = xstrdup(path), .user_agent = xstrdup(user_agent)};
	return 0;
}

static void disconnect(struct client *c)
{
	if (c->fd >= 0)
		(void)close(c->fd);
	c->fd = -1;
	c->keep = false;
}

void client_close(struct client *c)
{
	disconnect(c);
	free(c->path);
	free(c->user_agent);
	*c = (struct client){.fd = -1};
}

static int put_token(struct strbuf *sb, const char *what, const char *text, struct err *err)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (*p < 0x21 || *p == 0x7f)
			return err_set(err, EINVAL,
				       "the request's %s holds a blank or control "
				       "character (write it as %%%02X)",
				       what, *p);
	strbuf_puts(sb, text);
	return 0;
}

static int write_request(struct strbuf *sb, struct client *c, const char *const *method_target,
			 const char *body, struct err *err)
{
	int r = put_token(sb, "method", method_target[0], err);

	if (r < 0)
		return r;
	strbuf_putc(sb, ' ');
	r = put_token(sb, "target", method_target[1], err);
	if (r < 0)
		return r;
	strbuf_puts(sb, " HTTP/1.1\r\nHost: localhost\r\n");
	if (c->user_agent) {
		strbuf_puts(sb, "User-Agent: ");
		for (const char *p = c->user_agent; *p; p++)
			strbuf_putc(sb, (unsigned char)*p < 0x20 ? '?' : *p);
		strbuf_puts(sb, "\r\n");
	}
	if (body)
		strbuf_printf(sb, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
			      strlen(body));
	strbuf_puts(sb, "\r\n");
	if (body)
		strbuf_puts(sb, body);
	return 0;
}

static int send_all(struct client *c, const struct strbuf *sb, uint64_t deadline, struct err *err)
{
	size_t done = 0;

	while (done < sb->len) {
		ssize_t n = send(c->fd, sb->data + done, sb->len - done, MSG_NOSIGNAL);
		int r;

		if (n >= 0) {
			done += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		/* An early answer (413) may wait for us though the rest cannot be sent. */
		if (errno == EPIPE || errno == ECONNRESET)
			return 0;
		if (errno != EAGAIN)
			return err_sys(err, errno, "cannot send to '%s'", c->path);
		r = wait_fd(c->fd, POLLOUT, deadline);
		if (r <= 0)
			return err_set(err, r < 0 ? -r : ETIMEDOUT,
				       "'%s' does not take the request", c->path);
	}
	return 0;
}

/* Closed by the server since the last answer, or noise on it: not to be used again. */
static bool kept_is_stale(const struct client *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN | POLLRDHUP};

	return poll(&p, 1, 0) != 0;
}

int client_send_request(struct client *c, const char *const *method_target, const char *body,
			uint64_t deadline, struct err *err)
{
	AUTO_STRBUF struct strbuf sb = {0};
	int r = write_request(&sb, c, method_target, body, err);

	if (r < 0)
		return r;
	if (c->fd >= 0 && c->keep && kept_is_stale(c))
		disconnect(c);
	if (c->fd < 0) {
		r = reach(c->path, 0, &c->fd, err);
		if (r < 0)
			return r;
	}
	return send_all(c, &sb, deadline, err);
}

int client_receive(struct client *c, struct http_parse *p, uint64_t deadline, struct err *err)
{
	char buf[READ_SIZE];
	char name[64];

	for (;;) {
		ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
		int r;

		if (n > 0) {
			r = http_parse_feed(p, buf, (size_t)n, err);
			return r < 0 ? err_wrap(err, r, "'%s'", c->path) : 1;
		}
		if (n == 0 || errno == ECONNRESET) {
			r = http_parse_eof(p, err);
			return r < 0 ? err_wrap(err, r, "'%s'", c->path) : 0;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return err_sys(err, errno, "cannot read from '%s'", c->path);
		r = wait_fd(c->fd, POLLIN, deadline);
		if (r == 0)
			return err_set(err, ETIMEDOUT, "%s did not answer in time at '%s'",
				       client_daemon_name(c->path, name, sizeof(name)), c->path);
		if (r < 0)
			return err_sys(err, -r, "cannot wait for '%s'", c->path);
	}
}

static int exchange(struct client *c, const char *const *method_target, const char *body,
		    uint64_t deadline, struct http_parse *p, struct err *err)
{
	int r = client_send_request(c, method_target, body, deadline, err);

	while (r >= 0 && p->state != HTTP_PARSE_DONE)
		r = client_receive(c, p, deadline, err);
	return r < 0 ? r : 0;
}

int client_call(struct client *c, const char *method, const char *target, const char *body,
		int timeout_ms, struct client_reply *ret, struct err *err)
{
	const char *const method_target[] = {method, target};
	uint64_t deadline = client_deadline(timeout_ms);
	bool kept = c->fd >= 0 && c->keep, head = strcmp(method, "HEAD") == 0;
	struct http_parse p;
	int r;

	*ret = (struct client_reply){0};
	http_parse_init(&p, CLIENT_BODY_MAX, head);
	r = exchange(c, method_target, body, deadline, &p, err);
	if (r == -ECONNRESET && kept && p.in.len == 0 && p.status == 0 &&
	    strcmp(method, "GET") == 0) {
		disconnect(c);
		http_parse_done(&p);
		http_parse_init(&p, CLIENT_BODY_MAX, head);
		r = exchange(c, method_target, body, deadline, &p, err);
	}
	c->keep = r == 0 && p.keep_alive && p.in.len == 0;
	if (!c->keep)
		disconnect(c);
	if (r == 0) {
		ret->status = p.status;
		ret->len = p.body.len;
		ret->body = strbuf_steal(&p.body);
	}
	http_parse_done(&p);
	return r;
}

void client_reply_done(struct client_reply *r)
{
	free(r->body);
	*r = (struct client_reply){0};
}

int client_reply_error(const struct client_reply *r, struct err *err)
{
	int code = status_to_errno(r->status), named;
	AUTO_JSON json_t *json = NULL;
	const json_t *error;
	size_t len = r->len;

	if (code == 0)
		return 0;
	if (len > 0 && json_parse_object(r->body, len, "reply", &json, NULL) == 0) {
		error = json_object_get(json, "error");
		named = status_errno_from_name(json_get_str(error, "code", NULL));
		return err_set(err, named ? named : code, "%s",
			       json_get_str(error, "message", strerror(named ? named : code)));
	}
	while (len > 0 && (r->body[len - 1] == '\n' || r->body[len - 1] == '\r'))
		len--;
	if (len == 0)
		return err_set(err, code, "the daemon answered with HTTP status %d", r->status);
	return err_set(err, code, "%.*s", (int)(len < 400 ? len : 400), r->body);
}

char *client_escape(const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._~";
	struct strbuf sb = {0};

	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (strchr(plain, *p))
			strbuf_putc(&sb, (char)*p);
		else
			strbuf_printf(&sb, "%%%02X", *p);
	}
	return strbuf_steal(&sb);
}
