/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what vmstated writes at each start: run/UUID/started.json; see started.h. */
#include "store/started.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/paths.h"
#include "base/problems.h"
#include "model/model.h"
#include "model/vm.h"
#include "store/write.h"
#include "ucl/ucl.h"

#define STARTED_VERSION 1

int started_read(const struct paths *paths, const char *uuid, struct vm **ret, json_t **ret_facts,
		 struct err *err)
{
	AUTO_FREE char *path = path_of_run(paths, uuid, "started.json");
	AUTO_FREE char *data = path_of_data(paths, uuid, NULL);
	struct problems AUTO_PROBLEMS problems = {0};
	struct ucl_doc *doc = NULL;
	AUTO_JSON json_t *j = NULL;
	const struct ucl_value *root;
	const char *text;
	struct vm *vm = NULL;
	int r = state_read(path, STARTED_VERSION, &j, err);

	if (r < 0)
		return r;
	text = json_get_str(j, "definition", "");
	r = ucl_parse(path, text, strlen(text), NULL, &doc, err);
	if (r < 0)
		return r;
	root = ucl_root(doc);
	if (root->type == UCL_OBJECT && root->count == 1) {
		vm = vm_from_ucl(root->keys[0], root->items[0], uuid, uuid, &problems);
		/* A uuid that was not given is not in the text; MACs follow from it. */
		replace_str(&vm->uuid, xstrdup(uuid));
		vm_finish(vm, data);
		replace_str(&vm->file, xstrdup(json_get_str(j, "file", NULL)));
		replace_str(&vm->dir, xstrdup(json_get_str(j, "dir", NULL)));
		vm->owner_uid = (uint32_t)json_get_int(j, "owner_uid", UINT32_MAX);
		vm->group_gid = (uint32_t)json_get_int(j, "group_gid", UINT32_MAX);
	}
	ucl_free(doc);
	if (!vm)
		return err_set(err, EPROTO, "'%s' holds no definition of one VM", path);
	*ret = vm;
	if (ret_facts)
		*ret_facts = steal_ptr(j);
	return 0;
}
