/* SPDX-License-Identifier: Apache-2.0 */
/* The answer to a change whose payload has faults: every finding, not just the first. */
#include "api/status.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "net/http.h"
#include "vmadmd/change.h"

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
