/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one line from QEMU says: greeting, answer, error or event. Every field QEMU may leave out
 * is checked, since a line may come from a file that was cut off, or from a QEMU that lies.
 * Source: QEMU's docs/interop/qmp-spec; facts on QEMU, section 3.
 */
#include "qemu/qmp.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define EXCERPT_MAX 60                 /* bytes of a bad line shown in the error */
#define SECONDS_MAX (INT64_MAX / 2000) /* milliseconds of it still fit */

static int bad_line(struct err *err, const char *line, size_t len, const char *why)
{
	AUTO_FREE char *start = xstrndup(line, len < EXCERPT_MAX ? len : EXCERPT_MAX);
	AUTO_STRBUF struct strbuf shown = {0};

	strbuf_put_escaped(&shown, start);
	return err_set(err, EPROTO, "not a QMP message: %s, in '%s%s'", why,
		       shown.data ? shown.data : "", len > EXCERPT_MAX ? "..." : "");
}

/*
 * QEMU writes unsigned 64-bit numbers that jansson cannot hold as integers ("too big integer"): one
 * such counter must not cost the connection, so those lines are read again with reals.
 */
static json_t *load(const char *line, size_t len, json_error_t *je)
{
	json_t *root = json_loadb(line, len, 0, je);

	if (!root && json_error_code(je) == json_error_numeric_overflow)
		root = json_loadb(line, len, JSON_DECODE_INT_AS_REAL, je);
	return root;
}

static json_int_t id_of(const json_t *root)
{
	const json_t *id = json_object_get(root, "id");

	if (json_is_integer(id))
		return json_integer_value(id) >= 0 ? json_integer_value(id) : -1;
	if (json_is_real(id) && json_real_value(id) >= 0 && json_real_value(id) < 1e15)
		return (json_int_t)json_real_value(id);
	return -1;
}

static int64_t number_of(const json_t *v)
{
	if (json_is_integer(v))
		return json_integer_value(v);
	if (json_is_real(v) && json_real_value(v) >= 0 && json_real_value(v) < 1e15)
		return (int64_t)json_real_value(v);
	return -1;
}

/* QEMU says -1 when it does not know the time; that and nonsense become 0. */
static int64_t wall_of(const json_t *root)
{
	const json_t *stamp = json_object_get(root, "timestamp");
	int64_t s = number_of(json_object_get(stamp, "seconds"));
	int64_t us = number_of(json_object_get(stamp, "microseconds"));

	if (s < 0 || s > SECONDS_MAX)
		return 0;
	return s * 1000 + (us >= 0 && us < 1000000 ? us / 1000 : 0);
}

static const char *fill_event(const json_t *root, struct qmp_message *m)
{
	m->kind = QMP_EVENT;
	m->name = json_get_str(root, "event", NULL);
	m->body = json_object_get(root, "data");
	m->wall_ms = wall_of(root);
	if (!m->name)
		return "the event has no name";
	if (m->body && !json_is_object(m->body))
		return "the event's data is no object";
	return NULL;
}

static const char *fill_error(const json_t *root, struct qmp_message *m)
{
	m->kind = QMP_ERROR;
	m->body = json_object_get(root, "error");
	if (!json_is_object(m->body))
		return "the error is no object";
	m->name = json_get_str(m->body, "class", "GenericError");
	return NULL;
}

/* What is wrong with it, or NULL. */
static const char *fill(const json_t *root, struct qmp_message *m)
{
	if (!json_is_object(root))
		return "it is no object";
	m->id = id_of(root);
	if (json_object_get(root, "event"))
		return fill_event(root, m);
	if (json_object_get(root, "error"))
		return fill_error(root, m);
	if ((m->body = json_object_get(root, "return"))) {
		m->kind = QMP_RETURN;
		return NULL;
	}
	if ((m->body = json_object_get(root, "QMP"))) {
		m->kind = QMP_GREETING;
		return json_is_object(m->body) ? NULL : "the greeting is no object";
	}
	return "it is neither greeting, answer nor event";
}

int qmp_parse(const char *line, size_t len, struct qmp_message *ret, struct err *err)
{
	struct qmp_message m = {.id = -1};
	AUTO_JSON json_t *root = NULL;
	json_error_t je;
	const char *why;

	if (len > QMP_LINE_MAX)
		return err_set(err, EPROTO, "a line from QEMU is longer than %u bytes",
			       QMP_LINE_MAX);
	root = load(line, len, &je);
	if (!root)
		return bad_line(err, line, len, je.text);
	why = fill(root, &m);
	if (why)
		return bad_line(err, line, len, why);
	m.root = steal_ptr(root);
	*ret = m;
	return 0;
}

void qmp_message_done(struct qmp_message *m)
{
	json_decref(m->root);
	*m = (struct qmp_message){0};
}
