/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checks of vmadm doctor: a table, each row a function of the facts alone; see doctor.h. A
 * check that adds nothing is well, and its row says so in the words of `good`.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/doctor.h"

#define QEMU_OLDEST     7 /* major; what is tested */
#define SPACE_BAD_MIB   64
#define SPACE_WARN_MIB  1024
#define INODES_MIN      1000
#define NOFILE_MIN      8192 /* a guest costs vmstated about ten */
#define MEMLOCK_MIN_MIB 64

struct finding_list {
	const char *check;
	json_t *list;
	enum verdict worst;
	bool told;
};

static const char *const verdicts[] = {[VERDICT_OK] = "ok",
				       [VERDICT_UNKNOWN] = "unknown",
				       [VERDICT_WARN] = "warning",
				       [VERDICT_BAD] = "bad"};

/* remedy: what to do, NULL for what is well. */
static void __attribute__((format(printf, 4, 5)))
tell(struct finding_list *f, enum verdict v, const char *remedy, const char *fmt, ...)
{
	char *text = NULL;
	json_t *row = json_object();
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	json_put_str(row, "check", f->check);
	json_put_str(row, "result", verdicts[v]);
	json_put_str(row, "text", text);
	json_put_str(row, "remedy", remedy);
	(void)json_array_append_new(f->list, row);
	free(text);
	f->told = true;
	if (v > f->worst)
		f->worst = v;
}

static const char *text_of(const json_t *j)
{
	return json_is_string(j) ? json_string_value(j) : "?";
}

static const json_t *at(const json_t *j, const char *outer, const char *key)
{
	return json_object_get(json_object_get(j, outer), key);
}

/* --- the daemons --- */

static void check_daemons(const json_t *facts, struct finding_list *f)
{
	const char *name;
	json_t *one;

	json_object_foreach (json_object_get(facts, "daemons"), name, one) {
		AUTO_FREE char *remedy = xasprintf("systemctl start %s, or %s by hand; its log "
						   "says why it ended",
						   name, name);

		if (!json_get_bool(one, "reachable", false))
			tell(f, VERDICT_BAD, remedy, "%s", json_get_str(one, "error", name));
	}
}

static void check_accelerator(const json_t *facts, struct finding_list *f)
{
	const json_t *accel = json_object_get(facts, "accel");
	const char *text = json_get_str(accel, "text", "");
	const char *remedy = "guests run in emulation, ten times slower: see that this user may "
			     "open /dev/kvm, and that nested virtualization is on where this host "
			     "is a guest itself";

	if (!accel)
		tell(f, VERDICT_UNKNOWN, "start vmstated, which measures it", "not probed");
	else if (json_get_bool(accel, "asking", false))
		tell(f, VERDICT_UNKNOWN, "ask again in a second", "vmstated is measuring it");
	else if (str_eq(json_get_str(accel, "kind", ""), "kvm"))
		tell(f, VERDICT_OK, NULL, "%s", text);
	else if (!json_get_bool(facts, "kvm", false))
		tell(f, VERDICT_WARN,
		     "guests run in emulation, ten times slower: turn virtualization on in the "
		     "firmware and load kvm_intel or kvm_amd",
		     "there is no /dev/kvm");
	else
		tell(f, VERDICT_WARN, remedy, "%s", text);
}

static void check_qemu(const json_t *facts, struct finding_list *f)
{
	const json_t *accel = json_object_get(facts, "accel");
	const char *version = json_get_str(accel, "qemu", NULL),
		   *error = json_get_str(accel, "error", NULL);

	if (error)
		tell(f, VERDICT_BAD, "apt-get install qemu-system-x86 qemu-utils; no VM can start",
		     "%s", error);
	else if (!version)
		tell(f, VERDICT_UNKNOWN, "ask again when vmstated has asked QEMU", "not asked yet");
	else if (strtol(version, NULL, 10) < QEMU_OLDEST)
		tell(f, VERDICT_WARN, "install QEMU 7.2 or later", "QEMU %s is older than tested",
		     version);
	else
		tell(f, VERDICT_OK, NULL, "QEMU %s", version);
}

static void check_events(const json_t *facts, struct finding_list *f)
{
	const char *name;
	json_t *one;

	json_object_foreach (json_object_get(facts, "files"), name, one) {
		json_int_t lost = json_get_int(one, "lost", 0),
			   overflows = json_get_int(one, "overflows", 0);

		if (lost > 0 || overflows > 0)
			tell(f, VERDICT_WARN,
			     "edit definitions in place or by rename, not by mmap or through links "
			     "out of the tree; raise sysctl fs.inotify.max_queued_events after "
			     "overflows",
			     "%s: %" JSON_INTEGER_FORMAT " changes of files were found by a scan "
			     "alone, %" JSON_INTEGER_FORMAT " overflows",
			     name, lost, overflows);
	}
}

/* --- VMs --- */

/* A line per row of a list of {name, reason}. */
static void each(const json_t *facts, struct finding_list *f, const char *list, const char *remedy)
{
	const json_t *one;
	size_t i;

	json_array_foreach (json_object_get(facts, list), i, one) {
		const char *name = json_get_str(one, "name", "?");
		AUTO_STRBUF struct strbuf sb = {0};

		for (const char *p = remedy; *p; p++) { /* '@' stands for the VM */
			if (*p == '@')
				strbuf_puts(&sb, name);
			else
				strbuf_putc(&sb, *p);
		}
		tell(f, VERDICT_BAD, sb.data, "%s: %s", name, json_get_str(one, "reason", "?"));
	}
}

static void check_failed(const json_t *facts, struct finding_list *f)
{
	each(facts, f, "failed",
	     "vmadm why @; then mend it, vmstatedctl failreset @, vmadm start @");
}

static void check_silent(const json_t *facts, struct finding_list *f)
{
	each(facts, f, "silent",
	     "look at its disks and the host's load; "
	     "vmadm stop -F @ ends it");
}

static void check_definitions(const json_t *facts, struct finding_list *f)
{
	const json_t *one;
	size_t i;

	each(facts, f, "broken", "mend the file; @ runs on under its last good definition");
	json_array_foreach (json_object_get(facts, "problems"), i, one) {
		tell(f, VERDICT_BAD, "mend the file; vmstated --check names all problems", "%s: %s",
		     json_get_str(one, "file", "?"), json_get_str(one, "text", "?"));
	}
}

/* --- places --- */

static void check_space(const json_t *facts, struct finding_list *f)
{
	const json_t *one;
	size_t i;

	json_array_foreach (json_object_get(facts, "space"), i, one) {
		json_int_t free_mib = json_get_int(one, "free_mib", 0),
			   total = json_get_int(one, "total_mib", 0),
			   inodes = json_get_int(one, "inodes_free", INODES_MIN);
		json_int_t warn = total / 20 < SPACE_WARN_MIB ? total / 20 : SPACE_WARN_MIB;
		const char *path = json_get_str(one, "path", "?"),
			   *what = json_get_str(one, "what", "?");

		if (free_mib >= warn && free_mib >= SPACE_BAD_MIB / 4 && inodes >= INODES_MIN)
			continue;
		tell(f,
		     free_mib < SPACE_BAD_MIB || inodes < INODES_MIN ? VERDICT_BAD : VERDICT_WARN,
		     "make room there: guests stop at a write that finds none (vmadm image list, "
		     "vmadm list-snapshots show what may go)",
		     "%s: %" JSON_INTEGER_FORMAT " MiB and %" JSON_INTEGER_FORMAT
		     " inodes free for %s",
		     path, free_mib, inodes, what);
	}
}

static void check_limits(const json_t *facts, struct finding_list *f)
{
	const char *name;
	json_t *one;

	json_object_foreach (json_object_get(facts, "daemons"), name, one) {
		json_int_t files = json_get_int(one, "nofile", -1),
			   lock = json_get_int(one, "memlock_mib", -1);

		if (files >= 0 && files < NOFILE_MIN)
			tell(f, VERDICT_WARN,
			     "LimitNOFILE=65536 in its unit, or ulimit -n before it is started",
			     "%s may open %" JSON_INTEGER_FORMAT " files", name, files);
		if (str_eq(name, "vmstated") && lock >= 0 && lock < MEMLOCK_MIN_MIB)
			tell(f, VERDICT_WARN,
			     "LimitMEMLOCK=infinity in its unit, or ulimit -l unlimited: huge "
			     "pages "
			     "and passed-through devices need it",
			     "%s may lock %" JSON_INTEGER_FORMAT " MiB of memory", name, lock);
	}
}

static void check_sockets(const json_t *facts, struct finding_list *f)
{
	const json_t *one;
	size_t i;

	json_array_foreach (json_object_get(facts, "sockets"), i, one) {
		const char *path = json_get_str(one, "path", "?");
		json_int_t mode = json_get_int(one, "mode", 0);

		if (!json_get_bool(one, "socket", true))
			tell(f, VERDICT_BAD, "remove it and start the daemon again",
			     "%s is not a socket", path);
		else if ((mode & 0666) != 0666)
			tell(f, VERDICT_WARN,
			     "chmod 0666: who may do what is judged by the daemons, per request",
			     "%s: mode %04o keeps owners and members of vmadm out", path,
			     (unsigned)mode);
	}
}

static void check_permissions(const json_t *facts, struct finding_list *f)
{
	const json_t *one;
	size_t i;

	json_array_foreach (json_object_get(facts, "untrusted"), i, one)
		tell(f, VERDICT_BAD,
		     "chown root, chmod go-w: whoever can write it runs commands as the daemons; "
		     "it is refused until then",
		     "%s", text_of(one));
	json_array_foreach (json_object_get(facts, "private"), i, one)
		tell(f, VERDICT_UNKNOWN, "run vmadm doctor as root", "%s cannot be read",
		     text_of(one));
}

/* --- the network --- */

static const char *first_vm(const json_t *bridge)
{
	return text_of(json_array_get(json_object_get(bridge, "vms"), 0));
}

static void check_bridges(const json_t *facts, struct finding_list *f)
{
	bool forwards = json_integer_value(at(facts, "network", "ip_forward")) > 0;
	const char *name;
	json_t *one;

	json_object_foreach ((json_t *)at(facts, "network", "bridges"), name, one) {
		AUTO_FREE char *make = xasprintf("ip link add %s type bridge; ip link set %s up; "
						 "and in the host's network configuration",
						 name, name);
		AUTO_FREE char *up = xasprintf("ip link set %s up", name);

		if (!json_get_bool(one, "exists", true))
			tell(f, VERDICT_BAD, make, "%s of %s does not exist", name, first_vm(one));
		else if (!json_get_bool(one, "up", true))
			tell(f, VERDICT_BAD, up, "%s of %s is down", name, first_vm(one));
		else if (!json_get_bool(one, "uplink", true) && !forwards)
			tell(f, VERDICT_WARN,
			     "enslave a port of the host to it, or route: sysctl "
			     "net.ipv4.ip_forward=1",
			     "%s leads nowhere but to this host: no uplink, and ip_forward is 0",
			     name);
	}
}

/* Does a chain of this family see what passes a bridge (or is routed behind it)? */
static bool sees(const json_t *facts, const json_t *drop, bool routed)
{
	const char *family = json_get_str(drop, "family", "");
	bool v4 = json_integer_value(at(facts, "network", "nf_iptables")) > 0;
	bool v6 = json_integer_value(at(facts, "network", "nf_ip6tables")) > 0;

	if (str_eq(family, "bridge"))
		return true;
	return routed || v4 || (v6 && !str_eq(family, "legacy"));
}

static void check_forwarding(const json_t *facts, struct finding_list *f)
{
	const json_t *bridges = at(facts, "network", "bridges"), *drop, *one;
	const char *error = json_string_value(at(facts, "network", "error")), *name;
	bool routed = false;
	size_t i;

	if (json_object_size(bridges) == 0)
		return;
	json_object_foreach ((json_t *)bridges, name, one)
		routed = routed || !json_get_bool(one, "uplink", true);
	if (error)
		tell(f, VERDICT_UNKNOWN, "run vmadm doctor as root, with nft installed",
		     "firewall rules cannot be read: %s", error);
	json_array_foreach ((json_t *)at(facts, "network", "drops"), i, drop) {
		if (sees(facts, drop, routed))
			tell(f, VERDICT_WARN,
			     "see that its rules accept the bridges of VMs, or, for guests that "
			     "are "
			     "only bridged, sysctl net.bridge.bridge-nf-call-iptables=0 "
			     "net.bridge.bridge-nf-call-ip6tables=0",
			     "the chain %s of table %s (%s) drops what it is not told to forward, "
			     "frames of guests too",
			     json_get_str(drop, "chain", "?"), json_get_str(drop, "table", "?"),
			     json_get_str(drop, "family", "?"));
	}
}

/* clang-format off */
static const struct check {
	const char *name;
	void (*run)(const json_t *facts, struct finding_list *f);
	const char *needs; /* member of the facts, NULL: copes without */
	const char *good;
} checks[] = {
	{ "daemons",     check_daemons,     "daemons",   "all three answer" },
	{ "accelerator", check_accelerator, NULL,        "" },
	{ "qemu",        check_qemu,        NULL,        "" },
	{ "limits",      check_limits,      "daemons",   "open files and locked memory suffice" },
	{ "space",       check_space,       "space",     "there is room for disks, logs and state" },
	{ "sockets",     check_sockets,     "sockets",   "every local user may connect" },
	{ "permissions", check_permissions, "untrusted", "nobody else can change definitions and hooks" },
	{ "bridges",     check_bridges,     "network",   "the bridges of all VMs are there and lead out" },
	{ "forwarding",  check_forwarding,  "network",   "no chain cuts guests off" },
	{ "events",      check_events,      "files",     "no change of a file went unnoticed" },
	{ "definitions", check_definitions, "broken",    "all definitions are in force" },
	{ "monitors",    check_silent,      "silent",    "every QEMU answers" },
	{ "failed",      check_failed,      "failed",    "no VM has failed" },
};
/* clang-format on */

json_t *doctor_judge(const json_t *facts, enum verdict *ret_worst)
{
	struct finding_list f = {.list = json_array()};

	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		const struct check *c = &checks[i];

		f.check = c->name;
		f.told = false;
		if (c->needs && !json_object_get(facts, c->needs))
			tell(&f, VERDICT_UNKNOWN, "start the daemons and ask again",
			     "cannot be told");
		else
			c->run(facts, &f);
		if (!f.told)
			tell(&f, VERDICT_OK, NULL, "%s", c->good);
	}
	*ret_worst = f.worst;
	return f.list;
}
