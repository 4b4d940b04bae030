/* SPDX-License-Identifier: Apache-2.0 */
/* State files of the daemons; see write.h. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "store/write.h"

#define VERSION_KEY "format_version"

int state_write(const char *path, int version, const json_t *state, enum file_sync sync,
		struct err *err)
{
	AUTO_JSON json_t *whole = json_pack("{s:i}", VERSION_KEY, version);
	AUTO_FREE char *text = NULL;

	if (json_object_update(whole, (json_t *)(uintptr_t)state) < 0)
		return err_set(err, EINVAL, "state for '%s' is not an object", path);
	text = json_pretty(whole);
	return file_write(path, text, strlen(text), 0600, sync, err);
}

int state_read(const char *path, int version, json_t **ret, struct err *err)
{
	AUTO_FREE char *text = NULL;
	AUTO_JSON json_t *j = NULL;
	json_int_t found;
	size_t len;
	int r = file_read(path, JSON_TEXT_MAX, &text, &len, NULL, err);

	if (r < 0)
		return r;
	r = json_parse_object(text, len, path, &j, err);
	if (r < 0)
		return -(err ? err->code = EPROTO : EPROTO);
	found = json_get_int(j, VERSION_KEY, 0);
	if (found < 1 || found > version)
		return err_set(err, EPROTO, "%s: format version %lld (this program knows 1 to %d)",
			       path, (long long)found, version);
	*ret = steal_ptr(j);
	return 0;
}
