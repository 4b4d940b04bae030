/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker: started with a plan on stdin, it does it and ends; what it made and could not hand
 * over vanishes with it. See worker.h.
 */
#include "vmstated/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "vmstated/filter.h"
#include "vmstated/net_run.h"
#include "vmstated/tap.h"

#define PLAN_MAX (4u << 20)
#define SAID_MAX 8192

#define NO_NFT                                                                                     \
	"nft is not installed, without which the guest could send as anybody (install nftables, "  \
	"or give the NIC allow_mac_spoofing, allow_ip_spoofing, allow_dhcp_spoofing, "             \
	"allow_restricted_traffic and allow_unfiltered_promisc, and no bandwidth_out)"

/* --- vmstated's side --- */

static int plan_file(const json_t *plan)
{
	AUTO_FREE char *text = json_text(plan);
	AUTO_FD int fd = memfd_create("plan", MFD_CLOEXEC);

	if (fd < 0 || fd_write_all(fd, text, strlen(text)) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	return steal_fd(&fd);
}

/* No program of its own: loading ours would cost more than most plans. */
static int run(const void *arg)
{
	return worker_main(*(const int *)arg);
}

int worker_run(sd_event *event, const json_t *plan, int reply, run_done done, void *ctx,
	       struct child **ret, struct err *err)
{
	const char *argv[] = {"worker", NULL};
	AUTO_FD int in = plan_file(plan);
	struct child_spec spec = {.argv = argv,
				  .run = run,
				  .arg = &reply,
				  .cwd = "/",
				  .in = in,
				  .keep = &reply,
				  .nkeep = reply >= 0,
				  .group = true,
				  .timeout_ms = WORKER_MS};

	if (in < 0)
		return err_sys(err, -in, "cannot pass the plan of the network on");
	return child_run(event, &spec, SAID_MAX, done, ctx, ret, err);
}

int worker_result(const struct child_exit *how, const char *errors, struct err *err)
{
	if (how->timed_out)
		return err_set(err, ETIMEDOUT, "the host did not set up the network within %u s",
			       WORKER_MS / 1000);
	if (!how->known || how->code != CLD_EXITED || how->status != 0)
		return err_set(err, EIO, "%.*s", errors[0] ? (int)strcspn(errors, "\n") : 99,
			       errors[0] ? errors : "the worker failed");
	return 0;
}

/* --- the worker's --- */

static int read_plan(json_t **ret, struct err *err)
{
	AUTO_STRBUF struct strbuf sb = {0};
	char buf[4096];
	ssize_t n;

	while ((n = read(STDIN_FILENO, buf, sizeof(buf))) > 0 && sb.len < PLAN_MAX)
		strbuf_add(&sb, buf, (size_t)n);
	return json_parse_object(sb.data ? sb.data : "", sb.len, "plan", ret, err);
}

static struct tap_spec spec_of(const json_t *j)
{
	return (struct tap_spec){.name = json_get_str(j, "tap", ""),
				 .bridge = json_get_str(j, "bridge", NULL),
				 .mac = json_get_str(j, "mac", ""),
				 .mtu = (uint32_t)json_get_int(j, "mtu", 0),
				 .vlan_id = (uint32_t)json_get_int(j, "vlan_id", 0),
				 .in_kbit = (uint32_t)json_get_int(j, "in", 0)};
}

static int filter(const char *commands, struct err *err)
{
	int r = nft_run(commands, err);

	if (r != -ENOENT)
		return r;
	/* Without nft there is no table to take away either. */
	return strchr(commands, '{') ? err_set(err, ENOENT, NO_NFT) : 0;
}

/* --- make --- */

static int open_all(const json_t *list, int *fds, struct err *err)
{
	const json_t *one;
	size_t i;
	int r;

	json_array_foreach (list, i, one) {
		struct tap_spec t = spec_of(one);

		r = tap_open(&t, &fds[i], err);
		if (r < 0)
			return err_wrap(err, r, "nics[%d]", (int)json_get_int(one, "index", 0));
	}
	return 0;
}

static int connect_all(const json_t *list, struct err *err)
{
	const json_t *one;
	size_t i;
	int r;

	json_array_foreach (list, i, one) {
		struct tap_spec t = spec_of(one);

		r = t.bridge ? tap_connect(&t, err) : 0;
		if (r < 0)
			return err_wrap(err, r, "nics[%d]", (int)json_get_int(one, "index", 0));
	}
	return 0;
}

static int hand_over(const json_t *list, const int *fds, int to, struct err *err)
{
	const json_t *one;
	size_t i;

	json_array_foreach (list, i, one) {
		uint32_t index = (uint32_t)json_get_int(one, "index", 0);
		int r = sock_send_fds(to, &index, sizeof(index), &fds[i], 1);

		if (r < 0)
			return err_sys(err, -r, "cannot pass a tap interface on");
	}
	return 0;
}

/* --- remove --- */

static void remove_ports(struct strbuf *ports, bool (*gone)(const char *, const json_t *),
			 const json_t *names)
{
	char *save = NULL;

	for (char *name = strtok_r(ports->data, "\n", &save); name;
	     name = strtok_r(NULL, "\n", &save)) {
		if (gone(name, names))
			(void)ovs_remove_port(name, NULL);
	}
}

static bool is_named(const char *tap, const json_t *names)
{
	const json_t *one;
	size_t i;

	json_array_foreach (names, i, one) {
		if (str_eq(json_string_value(one), tap))
			return true;
	}
	return false;
}

static int remove_named(const json_t *names, struct err *err)
{
	AUTO_STRBUF struct strbuf commands = {0}, ports = {0};
	const json_t *one;
	size_t i;

	json_array_foreach (names, i, one)
		filter_remove(&commands, json_string_value(one));
	if (ovs_ports(&ports, NULL) == 0)
		remove_ports(&ports, is_named, names);
	return commands.len ? filter(commands.data, err) : 0;
}

static bool is_gone(const char *tap, const json_t *names)
{
	return if_nametoindex(tap) == 0;
}

/* Whoever's they were: a table or port without its tap serves nobody. */
static int audit(struct err *err)
{
	AUTO_STRBUF struct strbuf tables = {0}, ports = {0}, commands = {0};
	int r = nft_tables(&tables, err);
	char *save = NULL;

	if (ovs_ports(&ports, NULL) == 0)
		remove_ports(&ports, is_gone, NULL);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	for (char *name = strtok_r(tables.data, "\n", &save); name;
	     name = strtok_r(NULL, "\n", &save)) {
		const char *tap = name + strlen(FILTER_PREFIX);

		if (!str_starts(name, FILTER_PREFIX) || !is_gone(tap, NULL))
			continue;
		filter_remove(&commands, tap);
		(void)printf("%s\n", tap);
	}
	return commands.len ? filter(commands.data, err) : 0;
}

/* --- the plan --- */

static int make(const json_t *plan, int to, struct err *err)
{
	const json_t *list = json_object_get(plan, "make");
	const char *commands = json_get_str(plan, "nft", NULL);
	int fds[VM_NICS_MAX], r;

	if (json_array_size(list) > VM_NICS_MAX)
		return err_set(err, E2BIG, "more than %d NICs", VM_NICS_MAX);
	r = open_all(list, fds, err);
	if (r == 0 && commands)
		r = filter(commands, err);
	if (r == 0)
		r = connect_all(list, err);
	if (r == 0 && to >= 0)
		r = hand_over(list, fds, to, err);
	return r; /* the descriptors close with the process */
}

static int shape(const json_t *list, struct err *err)
{
	const json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (list, i, one) {
		struct tap_spec t = spec_of(one);

		if (r == 0)
			r = tap_shape(t.name, t.in_kbit, err);
	}
	return r;
}

static int write_files(const json_t *list, struct err *err)
{
	const json_t *one;
	size_t i;

	json_array_foreach (list, i, one) {
		const char *path = json_get_str(one, "path", ""),
			   *value = json_get_str(one, "value", "");
		AUTO_FD int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
		int r = fd < 0 ? -errno : fd_write_all(fd, value, strlen(value));

		if (r < 0)
			return err_sys(err, -r, "cannot write '%s' to '%s'", value, path);
	}
	return 0;
}

static int work(int to, struct err *err)
{
	AUTO_JSON json_t *plan = NULL;
	int r = read_plan(&plan, err);

	if (r == 0)
		r = make(plan, to, err);
	if (r == 0)
		r = shape(json_object_get(plan, "shape"), err);
	if (r == 0)
		r = remove_named(json_object_get(plan, "remove"), err);
	if (r == 0)
		r = write_files(json_object_get(plan, "write"), err);
	if (r == 0 && json_get_bool(plan, "audit", false))
		r = audit(err);
	return r;
}

int worker_main(int reply)
{
	struct err err = {0};
	int r;

	/* Without a vmstated that waits, taps made now would keep the next one from making them. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	r = work(reply, &err);
	if (r < 0)
		(void)fprintf(stderr, "%s\n", err_text(&err, r));
	(void)fflush(stdout);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
