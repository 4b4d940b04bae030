/* SPDX-License-Identifier: Apache-2.0 */
/* The answers to a change: its result, or every finding of a payload that has faults. */
#include <errno.h>

#include "api/status.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "net/http.h"
#include "vmadmd/change/change.h"
#include "vmadmd/jobs.h"

static json_t *problems_json(const struct problems *p)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->count; i++) {
		const struct problem *one = &p->items[i];

		if (one->kind == PROBLEM_WARNING)
			continue;
		json_array_append_new(list, json_pack("{s:s*, s:s*, s:s*}", "path", one->where,
						      "key", one->key, "text", one->text));
	}
	return list;
}

/* As http_reply_err, but with every finding: the list is longer than struct err. */
void change_reply_problems(struct change *c, int r)
{
	AUTO_FREE char *text = problems_text(&c->problems);
	AUTO_JSON json_t *out =
		json_pack("{s:{s:s, s:s, s:o}}", "error", "code", status_errno_name(r), "message",
			  text, "problems", problems_json(&c->problems));

	http_reply_json(c->req, status_from_errno(r), out);
}

int change_answer(struct change *c, json_t *out, const char *deed)
{
	struct err text = {0};

	json_put_bool(out, "confirmed", c->confirmed);
	if (c->job)
		job_result(c->job, out);
	if (c->start_error)
		err_set(&text, EIO, "VM %s was %s but did not start: %s", c->uuid, deed,
			c->start_error);
	if (c->req && c->start_error)
		http_reply_err(c->req, -EIO, &text);
	else if (c->req)
		http_reply_json(c->req, 200, out);
	return 0;
}
