/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The route table, and what every handler begins with: finding the VM and checking who asks. The
 * contract page is docs/wire-vmadmd.md.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "model/vm.h"
#include "store/catalog.h"
#include "vmadmd/auth.h"
#include "vmadmd/backup/backup.h"
#include "vmadmd/disks/images.h"
#include "vmadmd/guest.h"
#include "vmadmd/guest/agent.h"
#include "vmadmd/jobs.h"
#include "vmadmd/live/live.h"
#include "vmadmd/live/operate.h"
#include "vmadmd/live/save.h"
#include "vmadmd/live/snapshot.h"
#include "vmadmd/migrate/migrate.h"
#include "vmadmd/stats.h"
#include "vmadmd/vmadmd.h"

static void handle_ping(struct http_request *req, void *ctx)
{
	AUTO_JSON json_t *out = json_object();

	json_put_str(out, "ping", "pong");
	http_reply_json(req, 200, out);
}

const struct http_route vmadmd_routes[] = {
	/* clang-format off */
	{ "GET",    "/ping",	    handle_ping,   false, "Whether the daemon serves." },
	{ "GET",    "/stats",	    handle_stats,  false, "Counters of all running VMs." },
	{ "GET",    "/jobs",	    handle_jobs,   false, "Jobs under way and ended, newest first." },
	{ "GET",    "/jobs/:id",    handle_job,    false, "One job." },
	{ "DELETE", "/jobs/:id",    handle_job_cancel, false, "Cancel a job; what it made is undone." },
	{ "GET",    "/vm/:id",	    handle_info,   false, "Run-time information of a running VM." },
	{ "GET",    "/vm/:id/info", handle_info,   false, "The same under its older name." },
	{ "POST",   "/vm/:id",	    handle_action, false, "Act on a VM: ?action=." },
	{ "GET",    "/vm/:id/snapshots", handle_snapshots, false, "Its snapshots, newest first." },
	{ "POST",   "/vm/:id/snapshots", handle_snapshot_create, false,
	  "Take a snapshot: {name, memory}. A job." },
	{ "PUT",    "/vm/:id/snapshots", handle_snapshot_import, false,
	  "Make snapshots known that are in the disks: an index of ?index=1." },
	{ "POST",   "/vm/:id/snapshots/:name/rollback", handle_snapshot_rollback, false,
	  "Back to a snapshot: {memory}. A job." },
	{ "DELETE", "/vm/:id/snapshots/:name", handle_snapshot_delete, false,
	  "Delete a snapshot; others stay. A job." },
	{ "POST",   "/vm/:id/backup", handle_backup, false,
	  "The whole VM as a stream to the socket `file`, while it runs. A job." },
	{ "POST",   "/vm/:id/save", handle_save, false,
	  "Memory and devices into a file, and stop: {file}. A job." },
	{ "POST",   "/vm/:id/restore", handle_restore, false,
	  "Start with the memory of a file: {file, force}. A job." },
	{ "POST",   "/vm/:id/migrate", handle_migrate, false,
	  "Go on elsewhere: {to, bandwidth_mib, downtime_ms, copy_disks: true or paths}; {here: true}: run "
	  "here although the other side does not say that it does not. A job." },
	{ "POST",   "/arrivals",    handle_arrive, false,
	  "Of another vmadmd: make a VM ready to go on here (docs/migration.md)." },
	{ "POST",   "/arrivals/:order", handle_arrive_order, false,
	  "Of another vmadmd, about one: switch, grant, settle, forget: {session, uuid}." },
	{ "POST",   "/vms",	    handle_create, false, "Make a VM of a create payload." },
	{ "POST",   "/receive",	    handle_receive, false,
	  "Make a VM of the stream the socket `file` gives: {file, uuid, zpool}. A job." },
	{ "PUT",    "/vm/:id",	    handle_update, false, "Change a VM by an update payload." },
	{ "POST",   "/vm/:id/attach", handle_attach, false,
	  "Add a disk or a NIC, to the running machine too." },
	{ "POST",   "/vm/:id/detach", handle_detach, false,
	  "Take a disk or a NIC out, of the running machine too." },
	{ "POST",   "/vm/:id/resize", handle_resize, false, "Enlarge a disk, also while the VM runs." },
	{ "POST",   "/vm/:id/medium", handle_medium, false, "Change or eject the medium of a CD drive." },
	{ "POST",   "/vm/:id/agent/:verb", handle_agent, false,
	  "Ask the guest agent: ping, addresses, freeze, thaw, set-time, exec, exec-status." },
	{ "DELETE", "/vm/:id",	    handle_delete, false, "Stop a VM by force and remove it." },
	{ "POST",   "/vm/:id/reprovision", handle_reprovision, false,
	  "Make a VM's boot disk anew from {image} or {image_uuid}; its other disks stay." },
	{ "POST",   "/vm/:id/install", handle_install, false,
	  "Make the disks of a definition that are not there yet." },
	{ "GET",    "/images",	    handle_images, false, "Images of the store, each with who uses it." },
	{ "POST",   "/images",	    handle_image_import, false,
	  "Import an image from ?path= or the caller's descriptor ?fd=, as a job." },
	{ "GET",    "/images/:id",  handle_image,  false, "One image, by name or uuid." },
	{ "DELETE", "/images/:id",  handle_image_delete, false, "Remove an image no disk reads from." },
	/* clang-format on */
};
const size_t vmadmd_nroutes = ARRAY_SIZE(vmadmd_routes);

uid_t request_uid(const struct vmadmd *d, const struct http_request *req)
{
	const struct sock_peer *peer = http_peer(req);

	return peer ? peer->uid : (uid_t)-1;
}

/* A running VM whose definition vanished is still reached by its whole uuid. */
static bool find_undefined(struct vmadmd *d, const char *id, struct target *ret)
{
	const struct guest *g = uuid_valid(id) ? guest_find(d, id) : NULL;

	if (!g || !g->facts)
		return false;
	memcpy(ret->uuid, g->uuid, sizeof(ret->uuid));
	ret->vm = NULL;
	return true;
}

bool target_find(struct vmadmd *d, struct http_request *req, bool admin, struct target *ret)
{
	const char *id = http_param(req, "id");
	const char *what = http_query(req, "action");
	struct catalog_entry *e = NULL;
	struct err err = {0};
	int r = catalog_find(d->catalog, id ? id : "", &e, &err);

	*ret = (struct target){.uid = request_uid(d, req)};
	if (r < 0 && (r != -ENOENT || !find_undefined(d, id ? id : "", ret))) {
		http_reply_err(req, r, &err);
		return false;
	}
	if (e) {
		memcpy(ret->uuid, e->uuid, sizeof(ret->uuid));
		ret->vm = e->vm;
	}
	if (!what)
		what = strcmp(http_method(req), "PUT") == 0      ? "update"
		       : strcmp(http_method(req), "DELETE") == 0 ? "delete"
								 : "ask about";
	r = auth_check(http_peer(req), ret->vm, admin, what, &err);
	ret->secrets = r == 0;
	if (r < 0 && strcmp(http_method(req), "GET") == 0 &&
	    auth_may_look(http_peer(req), d->has_reader ? d->reader : (uid_t)-1))
		r = 0;
	if (r < 0) {
		log_warn("vm=%s request refused uid=%u: %s", ret->uuid, ret->uid, err.msg);
		http_reply_err(req, r, &err);
		return false;
	}
	return true;
}
