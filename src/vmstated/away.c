/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that may run elsewhere, or is on its way here, is not started, not by a person, a restart
 * policy or a reboot: vmadmd's journal says so, durably (docs/migration.md). Only a QEMU that waits
 * for its memory is. A journal that cannot be read is no such word: it may be of any operation.
 */
#include <errno.h>

#include "api/names.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "store/write.h"
#include "vmstated/parts.h"

int guest_kept_away(const struct guest *g, struct err *err)
{
	AUTO_FREE char *path = path_of_data(&g->sup->paths, g->uuid, JOURNAL_FILE);
	AUTO_JSON json_t *journal = NULL;
	const char *why;

	if (!file_exists(path) || state_read(path, JOURNAL_VERSION, &journal, NULL) < 0)
		return 0;
	why = json_get_str(journal, JOURNAL_KEEP_AWAY, NULL);
	return why ? err_set(err, EBUSY, "VM %s must not run here: %.300s", g->uuid, why) : 0;
}
