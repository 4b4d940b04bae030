/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's machinery: listeners, accept, libmicrohttpd under sd-event, hang-ups, deadlines.
 * We accept ourselves and hand sockets in with MHD_add_connection: one libmicrohttpd object for
 * all listeners, and who is over the limit gets an answer instead of waiting in the backlog
 * (docs/decisions/0001-http-libmicrohttpd.md). One timer a second sweeps all connections.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http_private.h"

#define ACCEPT_BATCH 64  /* per wake-up, so that other sources get their turn */
#define RUN_BATCH    256 /* MHD_run calls in a row; the rest waits for the loop's next turn */
#define HUP_BATCH    64
#define SWEEP_MS     1000
/* The request's head and its parsed form must fit, and a stream's chunks. */
#define POOL_BYTES (HTTP_HEADER_MAX + 8192u)
#define UNSENT_S   60u /* an answer whose client takes nothing */

static void run(struct http_server *s);

static int on_soon(sd_event_source *source, void *ctx)
{
	struct http_server *s = ctx;

	s->soon = sd_event_source_disable_unref(s->soon);
	run(s);
	return 0;
}

/*
 * A new source each time: sd-event keeps a defer source's place in the queue from its making on,
 * so one that is armed again and again would starve every other source.
 */
static void run_soon(struct http_server *s)
{
	if (!s->soon)
		(void)sd_event_add_defer(s->event, &s->soon, on_soon, s);
}

void http_kick(struct http_server *s)
{
	s->again = true;
	if (!s->in_run)
		run_soon(s);
}

void http_conn_break(struct http_conn *conn)
{
	(void)shutdown(conn->fd, SHUT_RDWR);
	http_kick(conn->server);
}

/*
 * libmicrohttpd reads once per edge and misses an end that came together with bytes. Once all
 * that was sent has been worked off, such a connection waits for nothing.
 */
static void break_ended(struct http_server *s)
{
	s->eofs = false;
	for (struct http_conn *conn = s->conns; conn; conn = conn->next) {
		int pending = 0;

		if (!conn->eof)
			continue;
		if (conn->phase != HTTP_PHASE_ANSWER && ioctl(conn->fd, FIONREAD, &pending) == 0 &&
		    pending == 0) {
			conn->eof = false;
			http_conn_break(conn);
		} else {
			s->eofs = true;
		}
	}
}

/*
 * A resumed connection is only looked at by the next MHD_run, and callbacks resume others: run
 * until nothing is left, in bounded lots. Timeout 0 means there is work that epoll will not show.
 */
static void run(struct http_server *s)
{
	MHD_UNSIGNED_LONG_LONG timeout;
	bool more = true;

	s->in_run = true;
	for (int i = 0; more && i < RUN_BATCH; i++) {
		s->again = false;
		if (MHD_run(s->mhd) != MHD_YES)
			break;
		more = s->again || (MHD_get_timeout(s->mhd, &timeout) == MHD_YES && timeout == 0);
	}
	s->in_run = false;
	if (s->eofs && !more)
		break_ended(s);
	if (more)
		run_soon(s);
}

static int on_mhd(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	run(ctx);
	return 0;
}

/* --- connections --- */

static void watch_hup(struct http_conn *conn)
{
	/* Edge-triggered and left in for the connection's life: no calls at suspend and resume.
	 * A TCP peer that closes shows RDHUP only. On unix sockets that is a mere half-close, after
	 * which the client may still wait for its answer; a close shows HUP. */
	struct epoll_event ev = {
		.events = EPOLLET | EPOLLRDHUP,
		.data.ptr = conn,
	};

	(void)epoll_ctl(conn->server->watch_fd, EPOLL_CTL_ADD, conn->fd, &ev);
}

static int on_sweep(sd_event_source *source, uint64_t usec, void *ctx);

static void arm_sweep(struct http_server *s)
{
	(void)sd_event_source_set_time_relative(s->sweep, SWEEP_MS * 1000);
	(void)sd_event_source_set_enabled(s->sweep, SD_EVENT_ONESHOT);
}

static void conn_opened(struct http_server *s, struct MHD_Connection *mhd, void **socket_context)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct http_conn *conn = xcalloc(1, sizeof(*conn));

	*conn = (struct http_conn){.server = s,
				   .mhd = mhd,
				   .next = s->conns,
				   .fd = info->connect_fd,
				   .tcp = s->accepting_tcp,
				   .phase = HTTP_PHASE_HEAD,
				   .since_ms = clock_ms()};
	if (s->conns)
		s->conns->prev = conn;
	else
		arm_sweep(s);
	s->conns = conn;
	s->nconns++;
	*socket_context = conn;
	watch_hup(conn);
}

static void conn_closed(struct http_conn *conn)
{
	struct http_server *s = conn->server;

	(void)epoll_ctl(s->watch_fd, EPOLL_CTL_DEL, conn->fd, NULL);
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		s->conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	s->nconns--;
	http_request_forget(conn);
	sock_peer_done(&conn->peer);
	free(conn);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context,
			  enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		conn_opened(cls, mhd, socket_context);
	else if (*socket_context)
		conn_closed(*socket_context);
}

/* Clients that left, however long their connection has been suspended. */
static int on_hup(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct epoll_event ev[HUP_BATCH];
	int n = epoll_wait(fd, ev, HUP_BATCH, 0);

	/* Connections are freed by MHD_run only, so none in the batch can be stale. */
	for (int i = 0; i < n; i++) {
		struct http_conn *conn = ev[i].data.ptr;

		conn->eof = true;
		conn->server->eofs = true;
		if (!conn->tcp && !(ev[i].events & (EPOLLHUP | EPOLLERR)))
			continue;
		conn->hup = true;
		if (conn->req && conn->req->suspended)
			http_request_vanish(conn->req);
		else if (conn->req && conn->req->stream)
			http_stream_kill(conn->req->stream, HTTP_STREAM_CLIENT);
	}
	run(ctx);
	return 0;
}

static bool overdue(const struct http_conn *conn, uint64_t now)
{
	static const uint64_t limits[] = {
		[HTTP_PHASE_HEAD] = HTTP_HEAD_MS,
		[HTTP_PHASE_BODY] = HTTP_BODY_MS,
		[HTTP_PHASE_ANSWER] = 0, /* ours to give; an unsent one is libmicrohttpd's */
		[HTTP_PHASE_IDLE] = HTTP_IDLE_MS,
	};
	uint64_t limit = limits[conn->phase];

	return limit && now - conn->since_ms > limit;
}

static int on_sweep(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct http_server *s = ctx;
	uint64_t now = clock_ms();

	for (struct http_conn *conn = s->conns; conn; conn = conn->next) {
		if (conn->req && conn->req->stream)
			http_stream_check(conn->req->stream, now);
		else if (overdue(conn, now))
			http_conn_break(conn);
	}
	run(s); /* libmicrohttpd's own timeouts as well */
	for (size_t i = 0; i < s->nlisteners; i++)
		(void)sd_event_source_set_enabled(s->listeners[i].io, SD_EVENT_ON);
	if (s->reserve_fd < 0)
		s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (s->conns)
		arm_sweep(s);
	return 0;
}

/* --- accept --- */

static void turn_away(int fd)
{
	static const char text[] = "HTTP/1.1 503 Service Unavailable\r\n"
				   "Content-Type: application/json\r\n"
				   "Content-Length: 68\r\nConnection: close\r\n\r\n"
				   "{\"error\":{\"code\":\"EAGAIN\","
				   "\"message\":\"too many connections at once\"}}";

	(void)send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)close(fd);
}

static void set_keepalive(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, 60},
		{IPPROTO_TCP, TCP_KEEPINTVL, 10},
		{IPPROTO_TCP, TCP_KEEPCNT, 6},
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
				 sizeof(int));
}

static void take_client(struct http_listener *l, int fd)
{
	struct http_server *s = l->server;
	struct sockaddr_storage sa = {.ss_family = AF_UNIX};
	socklen_t len = sizeof(sa);

	if (s->nconns >= HTTP_CONNECTIONS) {
		turn_away(fd);
		return;
	}
	if (l->tcp)
		set_keepalive(fd);
	if (getpeername(fd, (struct sockaddr *)&sa, &len) < 0 || len == 0)
		len = sizeof(sa.ss_family);
	s->accepting_tcp = l->tcp;
	if (MHD_add_connection(s->mhd, fd, (struct sockaddr *)&sa, len) != MHD_YES)
		log_debug("http connection not taken errno=%d", errno); /* it closed the socket */
}

/* No descriptor left: give up the reserve to refuse one client, else accept() would spin. */
static void out_of_files(struct http_listener *l)
{
	struct http_server *s = l->server;
	int fd;

	if (s->reserve_fd >= 0) {
		(void)close(steal_fd(&s->reserve_fd));
		fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			turn_away(fd);
		s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (s->reserve_fd >= 0)
			return;
	}
	(void)sd_event_source_set_enabled(l->io, SD_EVENT_OFF); /* until the next sweep */
	arm_sweep(s);
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct http_listener *l = ctx;

	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (client >= 0) {
			take_client(l, client);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE)
			out_of_files(l);
		if (errno != ECONNABORTED && errno != EINTR)
			break;
	}
	run(l->server); /* what came with the connection is not shown by epoll */
	return 0;
}

int http_server_listen(struct http_server *s, int fd, bool tcp, struct err *err)
{
	struct http_listener *l = &s->listeners[s->nlisteners];
	int r;

	if (s->nlisteners >= HTTP_LISTENERS) {
		(void)close(fd);
		return err_set(err, ENOSPC, "too many listening sockets");
	}
	*l = (struct http_listener){.server = s, .fd = fd, .tcp = tcp};
	r = sd_event_add_io(s->event, &l->io, fd, EPOLLIN, on_accept, l);
	if (r < 0) {
		(void)close(fd);
		return err_sys(err, -r, "cannot watch a listening socket");
	}
	s->nlisteners++;
	return 0;
}

/* --- life --- */

static void on_log(void *cls, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

static void on_log(void *cls, const char *fmt, va_list ap)
{
	char text[256];

	(void)vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	log_debug("http library said text=\"%s\"", text);
}

static struct MHD_Daemon *start_mhd(struct http_server *s)
{
	return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
					MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET,
				0, NULL, NULL, http_on_request, s, MHD_OPTION_EXTERNAL_LOGGER,
				on_log, NULL, MHD_OPTION_CONNECTION_LIMIT, HTTP_CONNECTIONS + 16u,
				MHD_OPTION_CONNECTION_TIMEOUT, UNSENT_S,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES,
				MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_URI_LOG_CALLBACK,
				http_on_uri, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
				MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, s, MHD_OPTION_END);
}

static int add_sources(struct http_server *s)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	int r;

	if (!info)
		return -EIO;
	r = sd_event_add_io(s->event, &s->mhd_io, info->epoll_fd, EPOLLIN, on_mhd, s);
	if (r >= 0)
		r = sd_event_add_io(s->event, &s->watch_io, s->watch_fd, EPOLLIN, on_hup, s);
	if (r >= 0)
		r = sd_event_add_time(s->event, &s->sweep, CLOCK_BOOTTIME, 0, 50000, on_sweep, s);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->sweep, SD_EVENT_OFF);
	return r;
}

int http_server_new(sd_event *event, const struct http_config *config, struct http_server **ret,
		    struct err *err)
{
	struct http_server *s = xcalloc(1, sizeof(*s));
	int r;

	s->event = sd_event_ref(event);
	s->config = *config;
	if (s->config.body_max == 0)
		s->config.body_max = HTTP_BODY_MAX;
	s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	s->watch_fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->watch_fd >= 0)
		s->mhd = start_mhd(s);
	r = s->mhd ? add_sources(s) : -EIO;
	if (r < 0) {
		http_server_free(s);
		return err_sys(err, -r, "cannot start the HTTP server");
	}
	*ret = s;
	return 0;
}

static void end_connections(struct http_server *s)
{
	for (struct http_conn *conn = s->conns; conn; conn = conn->next) {
		struct http_request *req = conn->req;

		if (req && req->stream)
			http_stream_kill(req->stream, HTTP_STREAM_CLOSED);
		else if (req && req->suspended)
			http_request_vanish(req);
	}
	(void)MHD_run(s->mhd); /* libmicrohttpd must not be stopped with suspended connections */
	MHD_stop_daemon(s->mhd);
}

void http_server_free(struct http_server *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->nlisteners; i++) {
		(void)sd_event_source_disable_unref(s->listeners[i].io);
		(void)close(s->listeners[i].fd);
	}
	s->in_run = true; /* nothing may arm a source any more */
	if (s->mhd)
		end_connections(s);
	(void)sd_event_source_disable_unref(s->mhd_io);
	(void)sd_event_source_disable_unref(s->watch_io);
	(void)sd_event_source_disable_unref(s->soon);
	(void)sd_event_source_disable_unref(s->sweep);
	if (s->watch_fd >= 0)
		(void)close(s->watch_fd);
	if (s->reserve_fd >= 0)
		(void)close(s->reserve_fd);
	(void)sd_event_unref(s->event);
	free(s);
}

size_t http_server_connections(const struct http_server *s)
{
	return s->nconns;
}
