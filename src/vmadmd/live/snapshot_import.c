/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots that lie in a VM's disks already become known: their index, as another vmadmd (or an
 * earlier life of this VM) gave it, is written for a stopped VM that has none. Whether disks and
 * machine are those of a snapshot is judged when somebody goes back to it, as ever.
 */
#include <errno.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmadmd/change/change.h"
#include "vmadmd/guest.h"
#include "vmadmd/live/snapshot.h"

int snap_check_index(const json_t *index, struct err *err)
{
	const json_t *list = json_object_get(index, "snapshots"), *entry;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > SNAP_MAX)
		return err_set(err, EINVAL, "snapshots: want a list of at most %d", SNAP_MAX);
	json_array_foreach (list, i, entry) {
		int r = snap_name_check(json_get_str(entry, "name", NULL), err);

		if (r < 0)
			return err_wrap(err, r, "snapshots[%zu]", i);
	}
	return 0;
}

static int check(struct change *c, struct err *err)
{
	AUTO_JSON json_t *index = NULL;
	const char *state = guest_state(c->d, c->uuid);
	int r = change_entry(c, err) ? 0 : -ENOENT;

	if (r == 0)
		r = snap_check_index(c->payload, err);
	if (r < 0)
		return r;
	if (!str_eq(state, "stopped"))
		return err_set(err, EBUSY, "VM %s is %s (want stopped)", c->uuid, state);
	index = snap_index(c->d, c->uuid, err);
	if (!index)
		return -EIO;
	if (json_array_size(json_object_get(index, "snapshots")) > 0)
		return err_set(err, EEXIST, "VM %s has snapshots already", c->uuid);
	return 0;
}

static int write_files(struct change *c, struct err *err)
{
	return snap_index_write(c->d, c->uuid, c->payload, err);
}

static int written(struct change *c, struct err *err)
{
	snapshots_read(c->d, c->uuid);
	c->seq = guest_publish(guest_get(c->d, c->uuid));
	return 0;
}

static int store(struct change *c, struct err *err)
{
	return change_work(c, write_files, written, err);
}

static int answer(struct change *c, struct err *err)
{
	AUTO_JSON json_t *out = json_object();

	json_put_str(out, "uuid", c->uuid);
	return change_answer(c, out, "taken");
}

static const change_step steps[] = {step_lock, check, store, step_seen, answer};

const struct change_kind change_snapimport = {
	"import-snapshots", steps, ARRAY_SIZE(steps), NULL, NULL, NULL};
