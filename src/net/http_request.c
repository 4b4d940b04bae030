/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request from libmicrohttpd's callbacks to the route's handler. Order: http_on_uri (first line
 * read), http_on_request with the headers, again per piece of body, again with the whole request:
 * there the handler runs. A handler that has not answered leaves the connection suspended; the
 * answer resumes it, and http_on_request is called once more to hand it over. Last:
 * http_on_completed.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/http_private.h"

static struct http_conn *conn_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static void set_phase(struct http_conn *conn, enum http_phase phase)
{
	conn->phase = phase;
	conn->since_ms = clock_ms();
}

static void request_free(struct http_request *req)
{
	http_params_done(req->params, &req->nparams);
	for (size_t i = 0; i < req->nargs; i++) {
		free(req->args[i].name);
		free(req->args[i].value);
	}
	free(req->args);
	free(req->path);
	free(req->query);
	strbuf_done(&req->body);
	http_drop_answer(req);
	free(req);
}

void http_request_forget(struct http_conn *conn)
{
	if (conn->req)
		request_free(steal_ptr(conn->req));
}

void *http_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	struct http_conn *conn = conn_of(mhd);
	struct http_request *req = xcalloc(1, sizeof(*req));
	size_t path_len = strcspn(uri, "?");

	http_request_forget(conn);
	req->conn = conn;
	req->target_len = strlen(uri);
	if (req->target_len <= HTTP_TARGET_MAX) {
		req->path = http_path_normal(uri, path_len);
		req->query = xstrdup(uri[path_len] ? uri + path_len + 1 : "");
	} else {
		req->path = xstrdup("/");
		req->query = xstrdup("");
	}
	conn->req = req;
	if (conn->phase == HTTP_PHASE_IDLE) /* the first one counts from accept */
		set_phase(conn, HTTP_PHASE_HEAD);
	return req;
}

static void tell_gone(struct http_request *req)
{
	void (*gone)(struct http_request * req, void *ctx) = req->gone;

	req->gone = NULL;
	if (gone && req->handled && !req->answered)
		gone(req, req->gone_ctx);
}

void http_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
		       enum MHD_RequestTerminationCode how)
{
	struct http_request *req = *con_cls;
	struct http_conn *conn;

	if (!req)
		return;
	*con_cls = NULL;
	conn = req->conn;
	conn->req = NULL;
	set_phase(conn, HTTP_PHASE_IDLE);
	if (req->stream)
		http_stream_ended(req->stream);
	else
		tell_gone(req);
	request_free(req);
}

void http_request_vanish(struct http_request *req)
{
	if (req->stream) {
		http_stream_kill(req->stream, HTTP_STREAM_CLIENT);
		return;
	}
	req->dead = true;
	tell_gone(req);
	if (req->suspended) {
		req->suspended = false;
		MHD_resume_connection(req->conn->mhd);
	}
	http_kick(req->conn->server);
}

/* --- what must hold before a body is read --- */

struct framing {
	unsigned lengths, encodings;
	bool bad;
	uint64_t length;
};

static bool digits_only(const char *text)
{
	return *text && strspn(text, "0123456789") == strlen(text);
}

static enum MHD_Result look_at_header(void *cls, enum MHD_ValueKind kind, const char *name,
				      const char *value)
{
	struct framing *f = cls;

	value = value ? value : "";
	if (name[strcspn(name, " \t")])
		f->bad = true; /* "Content-Length : 0" */
	if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
		f->lengths++;
		f->bad |= !digits_only(value);
		f->length = strlen(value) < 19 ? strtoull(value, NULL, 10) : UINT64_MAX;
	} else if (strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
		f->encodings++;
		f->bad |= strcasecmp(value, "chunked") != 0;
	}
	return MHD_YES;
}

/* The library lets requests through whose length two readers could understand differently. */
static void check_framing(struct http_request *req)
{
	struct framing f = {0};

	(void)MHD_get_connection_values(req->conn->mhd, MHD_HEADER_KIND, look_at_header, &f);
	if (f.bad || f.lengths + f.encodings > 1)
		http_refuse(req, 400, EINVAL, "the request's length is not clear", true);
	else if (f.length > req->conn->server->config.body_max)
		http_refuse(req, 413, E2BIG, "the request's body is too large", true);
}

static enum MHD_Result take_upload(struct http_request *req, const char *upload, size_t *size)
{
	size_t max = req->conn->server->config.body_max, len = *size;

	*size = 0;
	if (!req->too_big && req->body.len + len <= max) {
		strbuf_add(&req->body, upload, len);
		return MHD_YES;
	}
	/* A body in chunks has told no length: read on for the sake of the answer, but not for
	 * ever. */
	req->too_big = true;
	req->target_len += len;
	strbuf_done(&req->body);
	return req->target_len > max * HTTP_UPLOAD_FACTOR ? MHD_NO : MHD_YES;
}

/* --- routes --- */

static bool method_fits(const struct http_route *route, const char *method)
{
	return strcmp(route->method, "*") == 0 || strcmp(route->method, method) == 0 ||
	       (strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static const struct http_route *find_route(struct http_request *req, bool *ret_path_known)
{
	const struct http_config *config = &req->conn->server->config;

	*ret_path_known = false;
	for (size_t i = 0; i < config->nroutes; i++) {
		const struct http_route *route = &config->routes[i];

		if (req->conn->tcp && !route->tcp)
			continue;
		if (!http_match(route->pattern, req->path, req->params, &req->nparams))
			continue;
		if (method_fits(route, req->method))
			return route;
		*ret_path_known = true;
		http_params_done(req->params, &req->nparams);
	}
	return NULL;
}

static void dispatch(struct http_request *req)
{
	const struct http_config *config = &req->conn->server->config;
	const struct http_route *route;
	bool path_known;

	if (req->too_big) {
		http_refuse(req, 413, E2BIG, "the request's body is too large", true);
		return;
	}
	if (req->target_len > HTTP_TARGET_MAX && !req->too_big) {
		http_refuse(req, 414, E2BIG, "the request's target is too long", false);
		return;
	}
	if (req->conn->tcp && !http_host_is_local(http_header(req, "Host"))) {
		http_refuse(req, 403, EPERM,
			    "the Host header must be localhost, 127.0.0.1 or [::1]", false);
		return;
	}
	route = find_route(req, &path_known);
	if (route || config->fallback) {
		if (config->before)
			config->before(config->ctx);
		(route ? route->handler : config->fallback)(req, config->ctx);
	} else if (path_known) {
		http_refuse(req, 405, EINVAL, "this path does not take this method", false);
	} else {
		http_refuse(req, 404, ENOENT, "there is no such path", false);
	}
}

static enum MHD_Result run_handler(struct http_request *req)
{
	req->handled = true;
	set_phase(req->conn, HTTP_PHASE_ANSWER);
	dispatch(req);
	if (req->answered)
		return http_queue(req);
	if (req->conn->hup) {
		req->dead = true;
		tell_gone(req);
		return MHD_NO;
	}
	MHD_suspend_connection(req->conn->mhd);
	req->suspended = true;
	return MHD_YES;
}

/* NOLINTNEXTLINE(readability-function-size): libmicrohttpd sets the parameters */
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
				const char *method, const char *version, const char *upload,
				size_t *upload_size, void **con_cls)
{
	struct http_request *req = *con_cls;

	if (!req || req->dead)
		return MHD_NO;
	if (!req->seen) {
		req->seen = true;
		req->method = method;
		set_phase(req->conn, HTTP_PHASE_BODY);
		check_framing(req);
		/* Answering other requests already here would break keep-alive. */
		return req->answered ? http_queue(req) : MHD_YES;
	}
	if (*upload_size > 0)
		return take_upload(req, upload, upload_size);
	if (req->answered)
		return http_queue(req);
	if (!req->handled)
		return run_handler(req);
	return MHD_YES;
}

/* --- accessors --- */

const char *http_method(const struct http_request *req)
{
	return req->method;
}

const char *http_path(const struct http_request *req)
{
	return req->path;
}

const char *http_param(const struct http_request *req, const char *name)
{
	for (size_t i = 0; i < req->nparams; i++)
		if (strlen(name) == req->params[i].len &&
		    memcmp(name, req->params[i].name, req->params[i].len) == 0)
			return req->params[i].value;
	return NULL;
}

static void learn_args(struct http_request *req)
{
	static const char form[] = "application/x-www-form-urlencoded";
	const char *type = http_header(req, "Content-Type");

	req->args_known = true;
	if (type && strncasecmp(type, form, sizeof(form) - 1) == 0 && req->body.len)
		http_parse_args(req->body.data, req->body.len, &req->args, &req->nargs);
	http_parse_args(req->query, strlen(req->query), &req->args, &req->nargs);
}

bool http_query_at(const struct http_request *req, size_t index, const char **ret_name,
		   const char **ret_value)
{
	if (!req->args_known)
		learn_args((struct http_request *)(uintptr_t)req);
	if (index >= req->nargs)
		return false;
	*ret_name = req->args[index].name;
	*ret_value = req->args[index].value;
	return true;
}

const char *http_query(const struct http_request *req, const char *name)
{
	if (!req->args_known)
		learn_args((struct http_request *)(uintptr_t)req);
	for (size_t i = 0; i < req->nargs; i++)
		if (strcmp(req->args[i].name, name) == 0)
			return req->args[i].value;
	return NULL;
}

const char *http_header(const struct http_request *req, const char *name)
{
	return MHD_lookup_connection_value(req->conn->mhd, MHD_HEADER_KIND, name);
}

const char *http_body_text(const struct http_request *req, size_t *ret_len)
{
	if (ret_len)
		*ret_len = req->body.len;
	return req->body.data ? req->body.data : "";
}

const struct sock_peer *http_peer(const struct http_request *req)
{
	struct http_conn *conn = req->conn;

	if (conn->tcp)
		return NULL;
	if (!conn->peer_known) {
		/* Who cannot be told is nobody. */
		if (sock_peer(conn->fd, &conn->peer, NULL) < 0)
			conn->peer =
				(struct sock_peer){.pid = -1, .uid = (uid_t)-1, .gid = (gid_t)-1};
		conn->peer_known = true;
	}
	return &conn->peer;
}

void http_set_data(struct http_request *req, void *data)
{
	req->data = data;
}

void *http_data(const struct http_request *req)
{
	return req->data;
}

void http_on_gone(struct http_request *req, void (*fn)(struct http_request *req, void *ctx),
		  void *ctx)
{
	req->gone = fn;
	req->gone_ctx = ctx;
}
