/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures src/net/: a forked server with unix and TCP listeners in one sd-event loop, and this
 * process as its clients. Figures go to stdout, one per line.
 *   bench_streams streams [N [STUCK]]  fan-out of a 1 KB event to N streams, STUCK never read
 *   bench_streams gets [N]             N small pipelined GETs on one connection
 *   bench_streams conns [N]            N times connect, GET, close
 *   bench_streams acks [N]             feed line to acknowledgement and back, N times
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "net/feed.h"
#include "net/http.h"

#define EVENT_BYTES 1024
#define MARK        '#' /* one per event; occurs nowhere else */
#define ROUNDS      200
#define WAIT_MS     20000
#define STREAMS_MAX 1900

static char dir[32] = "/tmp/bench-XXXXXX";

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "bench_streams: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- the server's process --- */

struct server {
	sd_event *event;
	struct http_server *http;
	struct http_stream *streams[STREAMS_MAX];
	size_t count, live, ends[4];
};

static void on_end(struct http_stream *st, enum http_stream_end why, void *ctx)
{
	struct server *s = ctx;

	for (size_t i = 0; i < s->count; i++)
		if (s->streams[i] == st)
			s->streams[i] = NULL;
	s->live--;
	s->ends[why]++;
}

static void on_events(struct http_request *req, void *ctx)
{
	struct http_stream_config config = {.type = HTTP_JSON, .on_end = on_end, .ctx = ctx};
	struct server *s = ctx;

	if (s->count == STREAMS_MAX) {
		http_reply_err(req, -ENOSPC, NULL);
		return;
	}
	s->streams[s->count++] = http_reply_stream(req, &config);
	s->live++;
}

static void on_publish(struct http_request *req, void *ctx)
{
	struct server *s = ctx;
	char *text = xmalloc(EVENT_BYTES);
	struct http_body *body;

	memset(text, 'x', EVENT_BYTES);
	text[0] = MARK;
	text[EVENT_BYTES - 1] = '\n';
	body = http_body_new(text, EVENT_BYTES);
	for (size_t i = 0; i < s->count; i++)
		if (s->streams[i])
			(void)http_stream_send(s->streams[i], body);
	http_body_unref(body);
	http_reply(req, 200, HTTP_JSON, "{}", 2);
}

static void on_counts(struct http_request *req, void *ctx)
{
	struct server *s = ctx;
	AUTO_FREE char *text = xasprintf("live=%zu left=%zu full=%zu stalled=%zu", s->live,
					 s->ends[HTTP_STREAM_CLIENT], s->ends[HTTP_STREAM_FULL],
					 s->ends[HTTP_STREAM_STALLED]);

	http_reply(req, 200, "text/plain", text, strlen(text));
}

static void on_ping(struct http_request *req, void *ctx)
{
	http_reply(req, 200, HTTP_JSON, "{\"ping\":\"pong\"}", 15);
}

static const struct http_route routes[] = {
	{"GET", "/events", on_events, true, "A stream."},
	{"POST", "/publish", on_publish, true, "One event to all streams."},
	{"GET", "/counts", on_counts, true, "How streams ended."},
	{"GET", "/ping", on_ping, true, "Small answer."},
};

static void __attribute__((noreturn)) serve(const char *path, int tcp)
{
	struct server s = {0};
	struct http_config config = {.routes = routes, .nroutes = ARRAY_SIZE(routes), .ctx = &s};
	int fd;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (sd_event_new(&s.event) < 0 || http_server_new(s.event, &config, &s.http, NULL) < 0 ||
	    sock_listen(path, 0600, &fd, NULL) < 0 ||
	    http_server_listen(s.http, fd, false, NULL) < 0 ||
	    http_server_listen(s.http, tcp, true, NULL) < 0)
		die("cannot serve");
	(void)sd_event_loop(s.event);
	_exit(0);
}

struct target {
	char *path;
	uint16_t port;
	pid_t pid;
};

static int dial_tcp(const struct target *t)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons(t->port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		die("cannot connect over TCP");
	return fd;
}

static int dial(const struct target *t)
{
	int fd;

	if (sock_connect(t->path, &fd, NULL) < 0)
		die("cannot connect");
	(void)fcntl(fd, F_SETFL, 0); /* blocking */
	return fd;
}

static void start_server(struct target *t)
{
	int tcp;

	t->path = path_join(dir, "http");
	if (sock_listen_tcp("127.0.0.1", 0, &tcp, &t->port, NULL) < 0)
		die("cannot listen");
	t->pid = fork();
	if (t->pid == 0)
		serve(t->path, tcp);
	(void)close(tcp);
	(void)close(dial_tcp(t)); /* the backlog holds it until the child serves */
	for (int i = 0; i < 1000 && !file_exists(t->path); i++)
		(void)poll(NULL, 0, 5);
}

static void say(int fd, const char *text)
{
	if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text))
		die("cannot send");
}

static double rss_kib(pid_t pid)
{
	AUTO_FREE char *path = xasprintf("/proc/%d/statm", (int)pid);
	AUTO_FREE char *text = NULL;
	char *rest;

	if (file_read(path, 4096, &text, NULL, NULL, NULL) < 0)
		die("cannot read memory use");
	(void)strtoul(text, &rest, 10);
	return (double)strtoul(rest, NULL, 10) * 4;
}

/* User and system time of the server, microseconds. */
static double cpu_us(pid_t pid)
{
	AUTO_FREE char *path = xasprintf("/proc/%d/stat", (int)pid);
	AUTO_FREE char *text = NULL;
	unsigned long ticks = 0;
	char *p;

	if (file_read(path, 4096, &text, NULL, NULL, NULL) < 0)
		die("cannot read CPU time");
	p = strrchr(text, ')');
	for (int field = 2; p && field < 14; field++)
		p = strchr(p + 1, ' ');
	for (int i = 0; p && i < 2; i++)
		ticks += strtoul(p, &p, 10);
	return (double)ticks * 1e6 / (double)sysconf(_SC_CLK_TCK);
}

/* --- streams --- */

struct reader {
	int fd;
	uint32_t events;
};

struct fan {
	struct target target;
	struct reader *readers;
	int n, stuck, ep, control;
	uint64_t total, unix_last_us, tcp_last_us;
};

static void open_streams(struct fan *f)
{
	f->readers = xcalloc((size_t)f->n, sizeof(*f->readers));
	f->ep = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 0; i < f->n; i++) {
		struct epoll_event ev = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
		int fd = i % 2 ? dial_tcp(&f->target) : dial(&f->target);

		f->readers[i].fd = fd;
		say(fd, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
		if (i >= f->stuck)
			(void)epoll_ctl(f->ep, EPOLL_CTL_ADD, fd, &ev);
	}
}

static uint64_t count_marks(const char *buf, ssize_t n)
{
	uint64_t count = 0;
	const char *p = buf;

	while (n > 0 && (p = memchr(p, MARK, (size_t)(buf + n - p)))) {
		count++;
		p++;
	}
	return count;
}

/* Read until all healthy streams together have had `want` events more; microseconds. */
static void drain(struct fan *f, uint64_t want)
{
	uint64_t until = clock_ms() + WAIT_MS;
	struct epoll_event ev[256];
	char buf[65536];

	while (want > 0 && clock_ms() < until) {
		int n = epoll_wait(f->ep, ev, 256, 100);

		for (int i = 0; i < n; i++) {
			int fd = f->readers[ev[i].data.u32].fd;
			ssize_t len = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

			if (len == 0)
				die("a healthy stream was closed");
			want -= count_marks(buf, len);
		}
	}
	if (want > 0)
		die("events are missing");
}

static void publish(struct fan *f)
{
	say(f->control, "POST /publish HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

static void read_answer(int fd, char *buf, size_t size)
{
	ssize_t n = recv(fd, buf, size - 1, 0);

	buf[n > 0 ? n : 0] = '\0';
}

/* "live=..."; in buf. */
static const char *ask_counts(struct fan *f, char *buf, size_t size)
{
	const char *body;

	say(f->control, "GET /counts HTTP/1.1\r\nHost: localhost\r\n\r\n");
	read_answer(f->control, buf, size);
	body = strstr(buf, "\r\n\r\n");
	return body ? body + 4 : "?";
}

static void print_counts(struct fan *f, const char *label)
{
	char buf[2000];

	printf("%s: %s\n", label, ask_counts(f, buf, sizeof(buf)));
}

static void await_streams(struct fan *f)
{
	AUTO_FREE char *want = xasprintf("live=%d ", f->n);
	uint64_t until = clock_ms() + WAIT_MS;
	char buf[2000];

	while (strncmp(ask_counts(f, buf, sizeof(buf)), want, strlen(want)) != 0)
		if (clock_ms() > until)
			die("streams are missing");
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print_times(const char *label, double *us, int n)
{
	qsort(us, (size_t)n, sizeof(*us), by_value);
	printf("%s: median %.0f us, p95 %.0f us, max %.0f us (%d times)\n", label, us[n / 2],
	       us[n * 95 / 100], us[n - 1], n);
}

static void measure_streams(int n, int stuck)
{
	struct fan f = {.n = n, .stuck = stuck};
	double us[ROUNDS], empty, cpu;
	char buf[2000];

	start_server(&f.target);
	f.control = dial(&f.target);
	print_counts(&f, "server up");
	empty = rss_kib(f.target.pid);
	open_streams(&f);
	await_streams(&f);
	publish(&f);
	read_answer(f.control, buf, sizeof(buf));
	drain(&f, (uint64_t)(n - stuck)); /* all are attached now */
	printf("memory: empty %.0f KiB, per idle stream %.1f KiB\n", empty,
	       (rss_kib(f.target.pid) - empty) / n);
	cpu = cpu_us(f.target.pid);
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t from = clock_us();

		publish(&f);
		drain(&f, (uint64_t)(n - stuck));
		us[i] = (double)(clock_us() - from);
		read_answer(f.control, buf, sizeof(buf));
	}
	print_times("one 1 KB event to all healthy streams", us, ROUNDS);
	printf("server CPU per event and stream: %.1f us\n",
	       (cpu_us(f.target.pid) - cpu) / ROUNDS / n);
	print_counts(&f, "after 201 events");
	printf("memory with stuck readers behind: %.0f KiB\n", rss_kib(f.target.pid));
	for (int i = ROUNDS; i < 1400; i++) {
		publish(&f);
		drain(&f, (uint64_t)(n - stuck));
		read_answer(f.control, buf, sizeof(buf));
	}
	print_counts(&f, "after 1401 events");
	printf("memory then: %.0f KiB\n", rss_kib(f.target.pid));
	(void)kill(f.target.pid, SIGKILL);
	free(f.readers);
	free(f.target.path);
}

/* --- requests --- */

static void report_rate(const char *label, int n, uint64_t from, double cpu, pid_t pid)
{
	double seconds = (double)(clock_us() - from) / 1e6;

	printf("%s: %.0f/s, server CPU %.2f us each\n", label, n / seconds,
	       (cpu_us(pid) - cpu) / n);
}

#define PING     "GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
#define PIPELINE 64

static void measure_gets(int n)
{
	AUTO_STRBUF struct strbuf batch = {0};
	struct target t = {0};
	char buf[65536];
	uint64_t from;
	double cpu;
	int fd;

	start_server(&t);
	fd = dial(&t);
	for (int i = 0; i < PIPELINE; i++)
		strbuf_puts(&batch, PING);
	from = clock_us();
	cpu = cpu_us(t.pid);
	for (int done = 0; done < n; done += PIPELINE) {
		int seen = 0;

		say(fd, batch.data);
		while (seen < PIPELINE) {
			ssize_t len = recv(fd, buf, sizeof(buf), 0);

			if (len <= 0)
				die("the server closed");
			/* '}' ends each answer and occurs nowhere else */
			for (const char *p = buf; (p = memchr(p, '}', (size_t)(buf + len - p)));
			     p++)
				seen++;
		}
	}
	report_rate("pipelined small GETs", n, from, cpu, t.pid);
	(void)kill(t.pid, SIGKILL);
	free(t.path);
}

static void measure_conns(int n)
{
	struct target t = {0};
	char buf[4096];
	uint64_t from;
	double cpu;

	start_server(&t);
	for (int tcp = 0; tcp < 2; tcp++) {
		from = clock_us();
		cpu = cpu_us(t.pid);
		for (int i = 0; i < n; i++) {
			int fd = tcp ? dial_tcp(&t) : dial(&t);

			say(fd, PING);
			read_answer(fd, buf, sizeof(buf));
			if (!strstr(buf, "pong"))
				die("no answer");
			(void)close(fd);
		}
		report_rate(tcp ? "connect, GET, close over TCP" : "connect, GET, close over unix",
			    n, from, cpu, t.pid);
	}
	(void)kill(t.pid, SIGKILL);
	free(t.path);
}

/* --- acknowledgements --- */

struct acks {
	sd_event *event;
	struct feed_server *server;
	json_t *facts;
	double *us;
	uint64_t from;
	int n, done;
};

static void __attribute__((noreturn)) follow(const char *path)
{
	struct feed_client_config config = {.path = path, .name = "vminfod", .confirms = true};
	struct feed_client *client;
	sd_event *event;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (sd_event_new(&event) < 0 || feed_client_new(event, &config, &client, NULL) < 0)
		die("cannot follow");
	(void)sd_event_loop(event);
	_exit(0);
}

static void on_seen(void *ctx, bool confirmed)
{
	struct acks *a = ctx;

	if (confirmed && a->done < a->n)
		a->us[a->done++] = (double)(clock_us() - a->from);
	if (a->done == a->n) {
		(void)sd_event_exit(a->event, 0);
		return;
	}
	a->from = clock_us();
	(void)feed_when_seen(a->server, feed_vm(a->server, "vm", a->facts), on_seen, a);
}

static void measure_acks(int n)
{
	AUTO_FREE char *path = path_join(dir, "feed");
	struct acks a = {.n = n, .us = xcalloc((size_t)n, sizeof(double))};
	struct feed_server_config config = {.path = path, .daemon = "vmstated"};
	pid_t pid;

	a.facts = json_pack("{s:s,s:s,s:i}", "state", "running", "zone_state", "running", "pid", 1);
	if (sd_event_new(&a.event) < 0 || feed_server_new(a.event, &config, &a.server, NULL) < 0)
		die("cannot make a feed");
	pid = fork();
	if (pid == 0)
		follow(path);
	/* Not attached yet: unconfirmed at first, tried again from the callback. */
	(void)feed_when_seen(a.server, 0, on_seen, &a);
	(void)sd_event_loop(a.event);
	print_times("feed line until its acknowledgement", a.us, n);
	(void)kill(pid, SIGKILL);
	feed_server_free(a.server);
	(void)sd_event_unref(a.event);
	json_decref(a.facts);
	free(a.us);
}

static int number(char **argv, int argc, int i, int fallback, int max)
{
	int n = argc > i ? (int)strtol(argv[i], NULL, 10) : fallback;

	return n < 0 ? 0 : n > max ? max : n;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	if (!mkdtemp(dir))
		die("cannot make a directory");
	if (strcmp(what, "streams") == 0) {
		int n = number(argv, argc, 2, 1000, STREAMS_MAX);

		measure_streams(n, number(argv, argc, 3, n / 10, n));
	} else if (strcmp(what, "gets") == 0) {
		measure_gets(number(argv, argc, 2, 200000, 10000000));
	} else if (strcmp(what, "conns") == 0) {
		measure_conns(number(argv, argc, 2, 10000, 1000000));
	} else if (strcmp(what, "acks") == 0) {
		measure_acks(number(argv, argc, 2, 10000, 1000000));
	} else {
		fprintf(stderr, "usage: bench_streams streams|gets|conns|acks [N [STUCK]]\n");
	}
	(void)dir_remove_tree(dir, NULL);
	return 0;
}
