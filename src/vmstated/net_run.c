/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nft and ovs-vsctl, run to their end. The worker these are part of is killed with its whole
 * process group at its deadline, so nobody waits here for ever.
 */
#include "vmstated/net_run.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define OUTPUT_MAX (1u << 20)
#define SHOWN_MAX  300 /* bytes of a program's complaint in a message */

extern char **environ;

/* A file in memory, to be some program's input or output. */
static int memory_file(const char *text)
{
	AUTO_FD int fd = memfd_create("net", MFD_CLOEXEC);

	if (fd < 0 || (text && fd_write_all(fd, text, strlen(text)) < 0) ||
	    lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	return steal_fd(&fd);
}

static void read_back(int fd, struct strbuf *ret)
{
	char buf[4096];
	ssize_t n;

	strbuf_puts(ret, "");
	if (lseek(fd, 0, SEEK_SET) < 0)
		return;
	while (ret->len < OUTPUT_MAX && (n = read(fd, buf, sizeof(buf))) > 0)
		strbuf_add(ret, buf, (size_t)n);
}

static int spawn_and_wait(char *const *argv, int in, int out, int *ret_status)
{
	posix_spawn_file_actions_t files;
	pid_t pid;
	int r;

	(void)posix_spawn_file_actions_init(&files);
	(void)posix_spawn_file_actions_adddup2(&files, in, 0);
	(void)posix_spawn_file_actions_adddup2(&files, out, 1);
	(void)posix_spawn_file_actions_adddup2(&files, out, 2);
	r = posix_spawnp(&pid, argv[0], &files, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&files);
	if (r != 0)
		return -r;
	while (waitpid(pid, ret_status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

/* Exit status >= 0, or -errno when it could not be run. What it printed is in ret. */
static int run(const char *const *argv, const char *input, struct strbuf *ret, struct err *err)
{
	AUTO_FD int in = memory_file(input), out = memory_file(NULL);
	int status = 0, r;

	if (in < 0 || out < 0)
		return err_set(err, ENOMEM, "no memory to talk to %s", argv[0]);
	r = spawn_and_wait((char *const *)(uintptr_t)argv, in, out, &status);
	if (r == -ENOENT)
		return err_set(err, ENOENT, "%s is not installed", argv[0]);
	if (r < 0)
		return err_sys(err, -r, "cannot run %s", argv[0]);
	read_back(out, ret);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int complain(const char *program, int status, const struct strbuf *said, struct err *err)
{
	AUTO_STRBUF struct strbuf line = {0};

	for (size_t i = 0; i < said->len && i < SHOWN_MAX; i++)
		strbuf_putc(&line,
			    said->data[i] == '\n' || said->data[i] == '\t' ? ' ' : said->data[i]);
	return err_set(err, EIO, "%s failed (%d): %s", program, status, line.data ? line.data : "");
}

/* --- nftables --- */

int nft_run(const char *commands, struct err *err)
{
	const char *argv[] = {"nft", "-f", "-", NULL};
	AUTO_STRBUF struct strbuf said = {0};
	int r = run(argv, commands, &said, err);

	return r > 0 ? complain("nft", r, &said, err) : r;
}

/* "table netdev NAME" lines to names. */
int nft_tables(struct strbuf *ret, struct err *err)
{
	const char *argv[] = {"nft", "list", "tables", "netdev", NULL};
	AUTO_STRBUF struct strbuf said = {0};
	int r = run(argv, NULL, &said, err);
	char *save = NULL;

	if (r != 0)
		return r > 0 ? complain("nft", r, &said, err) : r;
	strbuf_puts(ret, "");
	for (char *line = strtok_r(said.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		if (str_starts(line, "table netdev "))
			strbuf_printf(ret, "%s\n", line + strlen("table netdev "));
	}
	return 0;
}

/* --- Open vSwitch --- */

#define OVS "ovs-vsctl", "--timeout=10"

int ovs_has_bridge(const char *bridge, struct err *err)
{
	const char *argv[] = {OVS, "br-exists", bridge, NULL};
	AUTO_STRBUF struct strbuf said = {0};
	int r = run(argv, NULL, &said, NULL);

	if (r == 2) /* its way to say no; ovs-vsctl(8) */
		return -ENODEV;
	return r > 0 ? complain("ovs-vsctl", r, &said, err) : r;
}

int ovs_add_port(const char *bridge, const char *tap, uint32_t vlan_id, struct err *err)
{
	AUTO_FREE char *tag = xasprintf("tag=%u", vlan_id);
	const char *plain[] = {OVS,  "--may-exist", "add-port",  bridge, tap,
			       "--", "set",         "interface", tap,    "external_ids:drover=yes",
			       NULL};
	const char *tagged[] = {OVS,
				"--may-exist",
				"add-port",
				bridge,
				tap,
				tag,
				"--",
				"set",
				"interface",
				tap,
				"external_ids:drover=yes",
				NULL};
	AUTO_STRBUF struct strbuf said = {0};
	int r = run(vlan_id ? tagged : plain, NULL, &said, err);

	return r > 0 ? complain("ovs-vsctl", r, &said, err) : r;
}

int ovs_remove_port(const char *tap, struct err *err)
{
	const char *argv[] = {OVS, "--if-exists", "del-port", tap, NULL};
	AUTO_STRBUF struct strbuf said = {0};
	int r = run(argv, NULL, &said, err);

	return r > 0 ? complain("ovs-vsctl", r, &said, err) : r;
}

int ovs_ports(struct strbuf *ret, struct err *err)
{
	const char *argv[] = {"ovs-vsctl",
			      "--timeout=2",
			      "--bare",
			      "--columns=name",
			      "find",
			      "interface",
			      "external_ids:drover=yes",
			      NULL};
	int r = run(argv, NULL, ret, err);

	return r < 0 ? r : r == 0 ? 0 : err_set(err, EIO, "Open vSwitch does not answer");
}
