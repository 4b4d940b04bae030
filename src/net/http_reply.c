/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers. A shared body keeps one libmicrohttpd response per content type, queued for any number
 * of clients without a copy; the response pins the bytes, so they stay until the last client has
 * them, though the body's owners have long let go.
 */
#include <errno.h>
#include <string.h>

#include "api/status.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "net/http_private.h"

struct http_body {
	unsigned refs; /* owners */
	unsigned pins; /* responses over these bytes */
	char *data;
	size_t len;
	char *type; /* of the response kept */
	struct MHD_Response *response;
};

struct http_body *http_body_new(char *data, size_t len)
{
	struct http_body *b = xcalloc(1, sizeof(*b));

	*b = (struct http_body){.refs = 1, .data = data, .len = len};
	return b;
}

struct http_body *http_body_ref(struct http_body *b)
{
	b->refs++;
	return b;
}

static void body_free_if_done(struct http_body *b)
{
	if (b->refs > 0 || b->pins > 0)
		return;
	free(b->data);
	free(b->type);
	free(b);
}

void http_body_unref(struct http_body *b)
{
	if (!b || --b->refs > 0)
		return;
	b->pins++; /* the response's end must not free it under our hands */
	if (b->response)
		MHD_destroy_response(steal_ptr(b->response));
	b->pins--;
	body_free_if_done(b);
}

const char *http_body_data(const struct http_body *b, size_t *ret_len)
{
	if (ret_len)
		*ret_len = b->len;
	return b->data;
}

static void unpin(void *cls)
{
	struct http_body *b = cls;

	b->pins--;
	body_free_if_done(b);
}

static struct MHD_Response *with_type(struct MHD_Response *response, const char *type)
{
	if (!response)
		abort(); /* out of memory, as everywhere */
	if (type)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	return response;
}

static struct MHD_Response *pinned_response(struct http_body *b, const char *type)
{
	b->pins++;
	return with_type(
		MHD_create_response_from_buffer_with_free_callback_cls(b->len, b->data, unpin, b),
		type);
}

struct MHD_Response *http_response_text(const char *type, char *data, size_t len)
{
	return with_type(MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE), type);
}

enum MHD_Result http_queue(struct http_request *req)
{
	enum MHD_Result r;

	if (req->queued)
		return MHD_YES;
	req->queued = true;
	r = MHD_queue_response(req->conn->mhd, (unsigned)req->status, req->response);
	http_drop_answer(req);
	return r;
}

void http_drop_answer(struct http_request *req)
{
	if (req->response && !req->body_ref)
		MHD_destroy_response(req->response);
	req->response = NULL;
	http_body_unref(steal_ptr(req->body_ref));
}

void http_answer(struct http_request *req, int status, struct MHD_Response *response)
{
	req->status = status;
	req->response = response;
	req->answered = true;
	if (!req->suspended)
		return;
	req->suspended = false;
	MHD_resume_connection(req->conn->mhd);
	http_kick(req->conn->server);
}

void http_reply(struct http_request *req, int status, const char *type, const void *data,
		size_t len)
{
	char *copy = xmalloc(len + 1);

	if (len)
		memcpy(copy, data, len);
	http_answer(req, status, http_response_text(type, copy, len));
}

void http_reply_body(struct http_request *req, int status, const char *type, struct http_body *body)
{
	struct MHD_Response *response;

	if (!body->response) {
		body->response = pinned_response(body, type);
		body->type = xstrdup(type);
	}
	if (str_eq(body->type, type)) {
		response = body->response; /* borrowed: req's own reference keeps it */
		req->body_ref = http_body_ref(body);
	} else { /* the same bytes as something else: once is as good as kept */
		response = pinned_response(body, type);
	}
	http_answer(req, status, response);
}

void http_reply_json(struct http_request *req, int status, const json_t *json)
{
	char *text = json_text(json);

	http_answer(req, status, http_response_text(HTTP_JSON, text, strlen(text)));
}

static char *error_text(const char *code, const char *message)
{
	AUTO_JSON json_t *json =
		json_pack("{s:{s:s,s:s}}", "error", "code", code, "message", message);

	if (!json) /* the message is not UTF-8 */
		json = json_pack("{s:{s:s,s:s}}", "error", "code", code, "message",
				 "unprintable error");
	return json_text(json);
}

void http_reply_err(struct http_request *req, int r, const struct err *err)
{
	char *text = error_text(status_errno_name(r), err_text(err, r));

	http_answer(req, status_from_errno(r), http_response_text(HTTP_JSON, text, strlen(text)));
}

void http_refuse(struct http_request *req, int status, int code, const char *text, bool close)
{
	char *json = error_text(status_errno_name(code), text);
	struct MHD_Response *response = http_response_text(HTTP_JSON, json, strlen(json));

	if (close)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	http_answer(req, status, response);
}
