/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network's facts for vmadm doctor: the bridges that NICs name, whether frames on a bridge
 * pass the host's firewall, and which of its chains drop what nobody allowed; see doctor.h.
 */
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "cli/doctor.h"

#define CHILD_MS   5000u
#define OUTPUT_MAX (4u << 20)
#define NET        "/sys/class/net"

/* --- a program's output --- */

static void read_until(int fd, uint64_t deadline, struct strbuf *out)
{
	char part[4096];

	while (out->len < OUTPUT_MAX) {
		uint64_t now = clock_ms();
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (now >= deadline || poll(&p, 1, (int)(deadline - now)) <= 0)
			return;
		n = read(fd, part, sizeof(part));
		if (n <= 0)
			return;
		strbuf_add(out, part, (size_t)n);
	}
}

/* Exit status of argv, 127 when it is not there, with its output; a slow one is killed. */
static int run(const char *const *argv, struct strbuf *out)
{
	AUTO_FREE char *sbin = path_join("/usr/sbin", argv[0]);
	int ends[2], status = 0;
	pid_t pid;

	if (pipe(ends) < 0)
		return 127;
	pid = fork();
	if (pid == 0) {
		(void)dup2(ends[1], 1);
		(void)dup2(ends[1], 2);
		(void)execvp(argv[0], (char *const *)argv);
		(void)execv(sbin, (char *const *)argv); /* not in everybody's PATH */
		_exit(127);
	}
	(void)close(ends[1]);
	if (pid > 0) {
		read_until(ends[0], clock_ms() + CHILD_MS, out);
		(void)kill(pid, SIGKILL); /* no harm where it has ended */
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	(void)close(ends[0]);
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 127;
}

/* --- chains that drop what no rule allows --- */

/* Is the last of its rules one without a condition that lets nothing pass? firewalld's is. */
static bool ends_closed(const char *family, const char *table, const char *chain)
{
	const char *const argv[] = {"nft", "-j", "list", "chain", family, table, chain, NULL};
	AUTO_STRBUF struct strbuf out = {0};
	AUTO_JSON json_t *j = NULL;
	const json_t *one, *last = NULL;
	bool closed = false;
	size_t i;

	if (run(argv, &out) != 0 || !out.data ||
	    json_parse_object(out.data, out.len, "nft", &j, NULL) < 0)
		return false;
	json_array_foreach (json_object_get(j, "nftables"), i, one) {
		const json_t *rule = json_object_get(one, "rule");

		last = rule ? rule : last;
	}
	json_array_foreach (json_object_get(last, "expr"), i, one) {
		if (json_object_get(one, "drop") || json_object_get(one, "reject"))
			closed = true;
		else if (!json_object_get(one, "counter") && !json_object_get(one, "log"))
			return false;
	}
	return closed;
}

static void take_chain(json_t *drops, const json_t *chain)
{
	const char *family = json_get_str(chain, "family", ""),
		   *table = json_get_str(chain, "table", ""),
		   *name = json_get_str(chain, "name", "");

	if (!str_eq(json_get_str(chain, "hook", ""), "forward") || str_starts(table, "drover_"))
		return;
	if (str_eq(json_get_str(chain, "policy", ""), "drop") || ends_closed(family, table, name))
		(void)json_array_append_new(drops, json_pack("{s:s, s:s, s:s}", "family", family,
							     "table", table, "chain", name));
}

static void take_nft(json_t *network, json_t *drops)
{
	static const char *const argv[] = {"nft", "-j", "list", "chains", NULL};
	AUTO_STRBUF struct strbuf out = {0};
	AUTO_JSON json_t *j = NULL;
	const json_t *one;
	size_t i;
	int status = run(argv, &out);

	if (status == 127) {
		json_put_str(network, "error", "nft is not installed");
	} else if (status != 0 ||
		   json_parse_object(out.data ? out.data : "", out.len, "nft", &j, NULL) < 0) {
		if (out.data)
			out.data[strcspn(out.data, "\n")] = '\0';
		json_put_str(network, "error", out.data ? out.data : "nft said nothing");
	}
	json_array_foreach (json_object_get(j, "nftables"), i, one)
		take_chain(drops, json_object_get(one, "chain"));
}

/* Rules made by iptables-legacy, which nft does not show. */
static void take_legacy(json_t *drops)
{
	static const char *const argv[] = {"iptables-legacy", "-S", "FORWARD", NULL};
	AUTO_STRBUF struct strbuf out = {0};
	AUTO_FREE char *tables = NULL;

	if (file_read("/proc/net/ip_tables_names", 4096, &tables, NULL, NULL, NULL) < 0 ||
	    !strstr(tables, "filter") || run(argv, &out) != 0 || !out.data ||
	    !strstr(out.data, "-P FORWARD DROP"))
		return;
	(void)json_array_append_new(drops, json_pack("{s:s, s:s, s:s}", "family", "legacy", "table",
						     "filter", "chain", "FORWARD"));
}

/* --- bridges --- */

/* Whether a port of the bridge leads anywhere but to guests. */
static bool has_uplink(const char *name)
{
	AUTO_FREE char *path = xasprintf(NET "/%s/brif", name);
	DIR *dir = opendir(path);
	const struct dirent *entry;
	bool found = !dir; /* Open vSwitch does not tell here */

	while (dir && !found && (entry = readdir(dir))) {
		AUTO_FREE char *tun = xasprintf(NET "/%s/tun_flags", entry->d_name);

		found = entry->d_name[0] != '.' && !file_exists(tun);
	}
	if (dir)
		(void)closedir(dir);
	return found;
}

static bool is_up(const char *name)
{
	AUTO_FREE char *path = xasprintf(NET "/%s/flags", name);
	AUTO_FREE char *text = NULL;

	return file_read(path, 64, &text, NULL, NULL, NULL) < 0 ||
	       (strtoul(text, NULL, 16) & IFF_UP) != 0;
}

static json_t *bridge_of(json_t *bridges, const char *name)
{
	json_t *bridge = json_object_get(bridges, name);
	AUTO_FREE char *path = NULL;

	if (bridge)
		return bridge;
	path = path_join(NET, name);
	bridge = json_object();
	json_put_bool(bridge, "exists", !strchr(name, '/') && file_exists(path));
	json_put_bool(bridge, "uplink", has_uplink(name));
	json_put_bool(bridge, "up", is_up(name));
	(void)json_object_set_new(bridge, "vms", json_array());
	(void)json_object_set_new(bridges, name, bridge);
	return bridge;
}

static void take_bridges(json_t *bridges, const json_t *vm)
{
	const json_t *nic;
	size_t i;

	json_array_foreach (json_object_get(vm, "nics"), i, nic) {
		const char *name = json_get_str(nic, "nic_tag", "user");

		if (*name && !str_eq(name, "user"))
			(void)json_array_append_new(
				json_object_get(bridge_of(bridges, name), "vms"),
				json_string(json_get_str(vm, "alias", "?")));
	}
}

static void take_number(json_t *j, const char *key, const char *path)
{
	AUTO_FREE char *text = NULL;

	if (file_read(path, 64, &text, NULL, NULL, NULL) == 0)
		json_put_int(j, key, strtol(text, NULL, 10));
}

json_t *doctor_network(const json_t *vms)
{
	json_t *network = json_object(), *bridges = json_object(), *drops = json_array();
	const json_t *vm;
	size_t i;

	json_array_foreach ((json_t *)vms, i, vm)
		take_bridges(bridges, vm);
	(void)json_object_set_new(network, "bridges", bridges);
	take_number(network, "nf_iptables", "/proc/sys/net/bridge/bridge-nf-call-iptables");
	take_number(network, "nf_ip6tables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables");
	take_number(network, "ip_forward", "/proc/sys/net/ipv4/ip_forward");
	take_nft(network, drops);
	take_legacy(drops);
	(void)json_object_set_new(network, "drops", drops);
	return network;
}
