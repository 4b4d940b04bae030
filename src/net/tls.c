/* SPDX-License-Identifier: Apache-2.0 */
/* TLS by GnuTLS, which libmicrohttpd links in any case; see tls.h and docs/decisions/0020. */
#include "net/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"

#define CONNECT_MS   10000
#define HANDSHAKE_MS 10000u
#define SILENT_MS    20000u /* of a wire that carries nothing: it is cut */
#define BUFFER_MAX   65536u
#define PEER         "the peer"
#define PART_MS      5000
#define PART_READS   16

struct tls {
	gnutls_session_t session;
	gnutls_certificate_credentials_t credentials;
	int fd;
};

/* --- certificates --- */

static int check_key(const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return err_sys(err, errno, "'%s'", path);
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return err_set(err, EKEYREJECTED, "'%s': others may read it (chmod 600)", path);
	return 0;
}

static int load(const struct tls_files *files, gnutls_certificate_credentials_t *ret,
		struct err *err)
{
	gnutls_certificate_credentials_t c = NULL;
	int n, r = check_key(files->key, err);

	if (r < 0)
		return r;
	if (gnutls_certificate_allocate_credentials(&c) < 0)
		abort(); /* out of memory */
	n = gnutls_certificate_set_x509_trust_file(c, files->ca, GNUTLS_X509_FMT_PEM);
	if (n <= 0)
		r = err_set(err, EKEYREJECTED, "'%s' holds no CA: %s", files->ca,
			    n < 0 ? gnutls_strerror(n) : "it is empty");
	if (r == 0)
		n = gnutls_certificate_set_x509_key_file(c, files->cert, files->key,
							 GNUTLS_X509_FMT_PEM);
	if (r == 0 && n < 0)
		r = err_set(err, EKEYREJECTED, "'%s' with '%s': %s", files->cert, files->key,
			    gnutls_strerror(n));
	if (r < 0)
		gnutls_certificate_free_credentials(c);
	else
		*ret = c;
	return r;
}

int tls_check(const struct tls_files *files, struct err *err)
{
	gnutls_certificate_credentials_t c = NULL;
	int r = load(files, &c, err);

	if (r == 0)
		gnutls_certificate_free_credentials(c);
	return r;
}

static const struct {
	unsigned bit;
	const char *text;
} faults[] = {
	{GNUTLS_CERT_EXPIRED, "it has expired"},
	{GNUTLS_CERT_NOT_ACTIVATED, "it is not valid yet"},
	{GNUTLS_CERT_REVOKED, "it was revoked"},
	{GNUTLS_CERT_SIGNER_NOT_FOUND, "it is not of our CA"},
	{GNUTLS_CERT_SIGNER_NOT_CA, "who signed it is no CA"},
	{GNUTLS_CERT_UNEXPECTED_OWNER, "it is for another host name"},
	{GNUTLS_CERT_INSECURE_ALGORITHM, "its algorithm is too weak"},
	{GNUTLS_CERT_PURPOSE_MISMATCH, "it is for another purpose"},
};

/* What the handshake, or a read after it, ended with. */
static int refuse(struct tls *t, const char *who, int r, struct err *err)
{
	unsigned status = gnutls_session_get_verify_cert_status(t->session);

	if (r == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
		for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
			if (status & faults[i].bit)
				return err_set(err, EKEYREJECTED, "the certificate of %s: %s", who,
					       faults[i].text);
		}
		return err_set(err, EKEYREJECTED, "the certificate of %s cannot be trusted", who);
	}
	if (r == GNUTLS_E_FATAL_ALERT_RECEIVED)
		return err_set(err, EKEYREJECTED, "%s refuses our certificate: %s", who,
			       gnutls_alert_get_name(gnutls_alert_get(t->session)));
	if (r == GNUTLS_E_NO_CERTIFICATE_FOUND || r == GNUTLS_E_CERTIFICATE_REQUIRED)
		return err_set(err, EKEYREJECTED, "%s shows no certificate of our CA", who);
	if (r == GNUTLS_E_TIMEDOUT)
		return err_set(err, ETIMEDOUT, "%s does not speak TLS in time", who);
	return err_set(err, ECONNRESET, "TLS with %s: %s", who, gnutls_strerror(r));
}

/* --- sessions --- */

/* A wire that is dead is noticed, whoever would have to speak. */
static void keep_alive(int fd)
{
	const int on = 1, idle = 5, count = 3;
	const unsigned limit = SILENT_MS;

	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof(idle));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit, sizeof(limit));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* Our last word arrives: with unread bytes of the peer a close would take it back. */
static void part(int fd)
{
	struct pollfd more = {.fd = fd, .events = POLLIN};
	char rest[512];

	(void)shutdown(fd, SHUT_WR);
	for (int i = 0; i < PART_READS && poll(&more, 1, PART_MS) > 0; i++) {
		if (recv(fd, rest, sizeof(rest), MSG_DONTWAIT) <= 0)
			return;
	}
}

static int start(const struct tls_files *files, int fd, const char *host, struct tls **ret,
		 struct err *err)
{
	struct tls *t = xcalloc(1, sizeof(*t));
	int r;

	t->fd = fd;
	r = load(files, &t->credentials, err);
	if (r < 0) {
		tls_free(t);
		return r;
	}
	keep_alive(fd);
	if (gnutls_init(&t->session, host ? GNUTLS_CLIENT : GNUTLS_SERVER) < 0)
		abort(); /* out of memory */
	(void)gnutls_set_default_priority(t->session);
	(void)gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, t->credentials);
	gnutls_certificate_server_set_request(t->session, GNUTLS_CERT_REQUIRE);
	gnutls_session_set_verify_cert(t->session, host, 0);
	gnutls_handshake_set_timeout(t->session, HANDSHAKE_MS);
	gnutls_record_set_timeout(t->session, HANDSHAKE_MS);
	gnutls_transport_set_int(t->session, fd);
	do {
		r = gnutls_handshake(t->session);
	} while (r < 0 && !gnutls_error_is_fatal(r));
	if (r < 0) {
		(void)gnutls_alert_send_appropriate(t->session, r);
		r = refuse(t, host ? host : PEER, r, err);
		part(fd);
		tls_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

int tls_accept(const struct tls_files *files, int fd, struct tls **ret, struct err *err)
{
	return start(files, fd, NULL, ret, err);
}

static int connect_one(const struct addrinfo *to)
{
	AUTO_FD int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd ready = {.fd = fd, .events = POLLOUT};
	int failed = 0;
	socklen_t len = sizeof(failed);

	if (fd < 0)
		return -errno;
	if (connect(fd, to->ai_addr, to->ai_addrlen) < 0 && errno != EINPROGRESS)
		return -errno;
	if (poll(&ready, 1, CONNECT_MS) <= 0)
		return -ETIMEDOUT;
	(void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len);
	if (failed)
		return -failed;
	(void)fcntl(fd, F_SETFL, 0);
	return steal_fd(&fd);
}

int tls_connect(const struct tls_files *files, const char *host, const char *port, struct tls **ret,
		struct err *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	int fd = -EHOSTUNREACH, r = getaddrinfo(host, port, &hints, &list);

	if (r != 0)
		return err_set(err, EHOSTUNREACH, "'%s': %s", host, gai_strerror(r));
	for (const struct addrinfo *to = list; to && fd < 0; to = to->ai_next)
		fd = connect_one(to);
	freeaddrinfo(list);
	if (fd < 0)
		return err_sys(err, -fd, "'%s' port %s", host, port);
	return start(files, fd, host, ret, err);
}

void tls_free(struct tls *t)
{
	if (!t)
		return;
	if (t->session)
		gnutls_deinit(t->session);
	if (t->credentials)
		gnutls_certificate_free_credentials(t->credentials);
	(void)close(t->fd);
	free(t);
}

/* --- bytes --- */

int tls_send(struct tls *t, const void *data, size_t len, struct err *err)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = gnutls_record_send(t->session, at, len);

		if (n < 0 && !gnutls_error_is_fatal((int)n))
			continue;
		if (n < 0)
			return refuse(t, PEER, (int)n, err);
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int tls_recv(struct tls *t, void *data, size_t size, struct err *err)
{
	ssize_t n;

	do {
		n = gnutls_record_recv(t->session, data, size);
	} while (n < 0 && !gnutls_error_is_fatal((int)n) && n != GNUTLS_E_TIMEDOUT);
	return n < 0 ? refuse(t, PEER, (int)n, err) : (int)n;
}

int tls_recv_line(struct tls *t, char *text, size_t size, struct err *err)
{
	for (size_t len = 0; len < size; len++) {
		int r = tls_recv(t, text + len, 1, err);

		if (r < 0)
			return r;
		if (r == 0)
			return err_set(err, ECONNRESET, "the peer ended in the middle of a line");
		if (text[len] == '\n') {
			text[len] = '\0';
			return 0;
		}
	}
	return err_set(err, E2BIG, "the peer's line is longer than %zu bytes", size);
}

/* --- both ways --- */

struct buffer {
	char data[BUFFER_MAX];
	size_t at, len;
	bool ended; /* nothing more comes in */
	bool told;  /* and whoever reads knows */
};

static bool again(ssize_t n)
{
	return n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED;
}

/* False: it failed. */
static bool to_tls(struct tls *t, struct buffer *b)
{
	while (b->at < b->len) {
		ssize_t n = gnutls_record_send(t->session, b->data + b->at, b->len - b->at);

		if (n < 0)
			return again(n);
		b->at += (size_t)n;
	}
	if (b->ended && !b->told) {
		int r = gnutls_bye(t->session, GNUTLS_SHUT_WR);

		if (r < 0)
			return again(r);
		b->told = true;
	}
	return true;
}

static bool from_tls(struct tls *t, struct buffer *b)
{
	ssize_t n = gnutls_record_recv(t->session, b->data, sizeof(b->data));

	if (n < 0)
		return again(n);
	b->at = 0;
	b->len = (size_t)n;
	b->ended = n == 0;
	return true;
}

static bool to_fd(int fd, struct buffer *b)
{
	while (b->at < b->len) {
		ssize_t n = send(fd, b->data + b->at, b->len - b->at, MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		b->at += (size_t)n;
	}
	if (b->ended && !b->told)
		b->told = shutdown(fd, SHUT_WR) == 0;
	return true;
}

static bool from_fd(int fd, struct buffer *b)
{
	ssize_t n = recv(fd, b->data, sizeof(b->data), 0);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	b->at = 0;
	b->len = (size_t)n;
	b->ended = n == 0;
	return true;
}

static bool wants(const struct buffer *b)
{
	return b->at == b->len && !b->ended;
}

static bool has(const struct buffer *b)
{
	return b->at < b->len || (b->ended && !b->told);
}

/* One that nothing is wanted of is not looked at: its end would be told again and again. */
static struct pollfd watch(int fd, bool in, bool out)
{
	short events = (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0));

	return (struct pollfd){.fd = events ? fd : -1, .events = events};
}

void tls_relay(struct tls *t, int fd)
{
	struct buffer *in = xcalloc(1, sizeof(*in)), *out = xcalloc(1, sizeof(*out));
	bool good = true;

	gnutls_record_set_timeout(t->session, 0); /* poll waits, for both */
	(void)fcntl(t->fd, F_SETFL, O_NONBLOCK);
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	while (good && !(in->told && out->told)) {
		struct pollfd fds[] = {watch(t->fd, wants(in), has(out)),
				       watch(fd, wants(out), has(in))};
		bool kept = wants(in) && gnutls_record_check_pending(t->session) > 0;

		if (poll(fds, 2, kept ? 0 : -1) < 0 && errno != EINTR)
			break;
		if (wants(in) && (kept || fds[0].revents))
			good = from_tls(t, in);
		if (good && wants(out) && fds[1].revents)
			good = from_fd(fd, out);
		if (good && has(in))
			good = to_fd(fd, in);
		if (good && has(out))
			good = to_tls(t, out);
	}
	free(in);
	free(out);
}
