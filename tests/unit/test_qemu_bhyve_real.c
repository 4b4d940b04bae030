/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mapped bhyve_config fixtures, and one of everything else, given to a real QEMU under TCG: it
 * must take each vector, answer, and quit. Paths are moved into a folder of the test; taps become
 * user-mode networks, what needs the host's hardware is left out. Exit 77 when there is no QEMU.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/argv.h"
#include "qemu/bhyve.h"
#include "qemu/qmp.h"
#include "qemu/recorder.h"

#define BINARY   "/usr/bin/qemu-system-x86_64"
#define CODE     "/usr/share/OVMF/OVMF_CODE_4M.fd"
#define VARS     "/usr/share/OVMF/OVMF_VARS_4M.fd"
#define LIMIT_US 60000000
#define FILE_MAX (4u << 20)

struct run {
	char dir[64];
	struct vm vm;
	struct qemu_fds fds;
	sd_event *event;
	struct qmp *mon;
	pid_t pid;
	int status;
	bool answered;
	size_t devices; /* that hang on pcie.0 by our ids */
};

/* --- set-up --- */

static void make_file(const struct run *run, const char *name, size_t size)
{
	AUTO_FREE char *path = path_join(run->dir, name);
	AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
}

static void copy_vars(const struct run *run)
{
	AUTO_FREE char *path = path_join(run->dir, "vars.fd");
	AUTO_FREE char *data = NULL;
	size_t len;

	if (!file_exists(VARS))
		return;
	assert_int_equal(file_read(VARS, FILE_MAX, &data, &len, NULL, NULL), 0);
	assert_int_equal(file_write(path, data, len, 0600, FILE_NO_SYNC, NULL), 0);
}

static int setup(void **state)
{
	static const char *const images[] = {"root.img", "d0.img",      "d1.img",
					     "d2.img",   "d3.img",      "d4.img",
					     "d5.img",   "install.iso", "cache.img"};
	struct run *run = xcalloc(1, sizeof(*run));
	AUTO_FREE char *mon = NULL;

	(void)snprintf(run->dir, sizeof(run->dir), "/tmp/test-bhyve-XXXXXX");
	assert_non_null(mkdtemp(run->dir));
	for (size_t i = 0; i < ARRAY_SIZE(images); i++)
		make_file(run, images[i], 8u << 20);
	copy_vars(run);
	run->fds = (struct qemu_fds){.qmp = -1, .ttya = -1, .ttyb = -1, .agent = -1, .lock = -1};
	memset(run->fds.taps, -1, sizeof(run->fds.taps));
	mon = path_join(run->dir, "vm.mon");
	assert_int_equal(sock_listen(mon, 0600, &run->fds.mon, NULL), 0);
	run->vm = (struct vm){.accel = ACCEL_TCG};
	run->vm.uuid = xstrdup("5c9f4c4e-9d3a-4a70-9d8e-2f0c7b4d1a11");
	assert_true(sd_event_new(&run->event) >= 0);
	*state = run;
	return 0;
}

static int teardown(void **state)
{
	struct run *run = *state;

	qmp_free(run->mon);
	sd_event_unref(run->event);
	free(run->vm.uuid);
	(void)dir_remove_tree(run->dir, NULL);
	free(run);
	return 0;
}

/* --- a file made fit for any host --- */

/* from at the start of a value or line; to NULL: the line is left out; "DIR" is the folder. */
static const struct {
	const char *from, *to;
} changes[] = {
	{"pool=/srv/vm", "pool=DIR"},
	{"root=%(pool)/%(name)", "root=%(pool)"},
	{"=/data/", "=DIR/"},
	{"=/srv/share", "=DIR"},
	{"=/run/lab/", "=DIR/"},
	{"backend=tap10", "backend=slirp"},
	{"backend=tap20", "backend=slirp"},
	{"tcp:127.0.0.1:2201-", "tcp:127.0.0.1:0-"},
	{"udp::5353-", "udp:127.0.0.1:0-"},
	{"path=tcp=127.0.0.1:4555", "path=stdio"},
	{"memory.size=8192M", "memory.size=256M"},
	{"gdb.", NULL},
	{"pci.0.7.0.device=virtio-input", NULL},
	{"/dev/input/event4", NULL},
};

static char *replaced(const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);

	if (!at)
		return xstrdup(text);
	return xasprintf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

static void put_line(struct strbuf *sb, const char *text, const struct run *run)
{
	AUTO_FREE char *line = xstrdup(text);
	bool firmware = str_starts(line, "lpc.boot");

	if (firmware && (!file_exists(CODE) || !file_exists(VARS)))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		if (strstr(line, changes[i].from) && !changes[i].to)
			return;
		if (strstr(line, changes[i].from))
			replace_str(&line, replaced(line, changes[i].from, changes[i].to));
	}
	replace_str(&line, replaced(line, "DIR", run->dir));
	strbuf_printf(sb, "%s\n", line);
}

static char *adapted(const char *text, const struct run *run)
{
	struct strbuf sb = {0};

	while (*text) {
		size_t len = strcspn(text, "\n");
		AUTO_FREE char *line = xstrndup(text, len);

		put_line(&sb, line, run);
		text += len + (text[len] == '\n');
	}
	return strbuf_steal(&sb);
}

/* --- QEMU --- */

static void on_devices(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct run *run = ctx;
	size_t i;
	json_t *bus, *dev;

	if (r < 0)
		fail_msg("%s", err->msg);
	bus = json_array_get(value, 0);
	json_array_foreach (json_object_get(bus, "devices"), i, dev) {
		const char *id = json_get_str(dev, "qdev_id", "");
		AUTO_FREE char *at = xasprintf("pci-0-%d-%d", (int)json_get_int(dev, "slot", -1),
					       (int)json_get_int(dev, "function", -1));

		if (!id[0])
			continue;
		assert_string_equal(id, at);
		run->devices++;
	}
	assert_int_equal(qmp_send(run->mon, "quit", NULL, -1, 10000, NULL, NULL), 0);
}

static void on_status(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct run *run = ctx;

	if (r < 0)
		fail_msg("%s", err->msg);
	assert_string_equal(json_get_str(value, "status", ""), "prelaunch");
	run->answered = true;
	assert_int_equal(qmp_send(run->mon, "query-pci", NULL, -1, 10000, on_devices, run), 0);
}

static void on_ready(void *ctx, struct qmp *q)
{
	assert_int_equal(qmp_send(q, "query-status", NULL, -1, 20000, on_status, ctx), 0);
}

static int on_exit_of_qemu(sd_event_source *s, int fd, uint32_t revents, void *ctx)
{
	struct run *run = ctx;

	assert_int_equal(waitpid(run->pid, &run->status, 0), run->pid);
	return sd_event_exit(run->event, 0);
}

static int on_limit(sd_event_source *s, uint64_t usec, void *ctx)
{
	struct run *run = ctx;

	(void)kill(run->pid, SIGKILL);
	fail_msg("QEMU was not through after a minute");
	return 0;
}

static void exec_qemu(const struct run *run, const struct argv *argv)
{
	int null = open("/dev/null", O_RDWR);

	(void)fcntl(run->fds.mon, F_SETFD, 0);
	(void)dup2(null, 0);
	(void)dup2(2, 1);
	if (chdir(run->dir) == 0)
		(void)execv(argv->items[0], argv->items);
	_exit(127);
}

static void through_qemu(struct run *run, const struct argv *argv)
{
	AUTO_FREE char *mon = path_join(run->dir, "vm.mon");
	struct qmp_config config = {.ready = on_ready, .ctx = run};
	int fifo, pidfd;

	assert_int_equal(recorder_prepare(run->dir, 0600, &fifo, NULL), 0);
	assert_int_equal(qmp_open(run->event, mon, &config, &run->mon, NULL), 0);
	run->pid = fork();
	assert_true(run->pid >= 0);
	if (run->pid == 0)
		exec_qemu(run, argv);
	(void)close(run->fds.mon);
	pidfd = (int)syscall(SYS_pidfd_open, run->pid, 0);
	assert_true(sd_event_add_io(run->event, NULL, pidfd, EPOLLIN, on_exit_of_qemu, run) >= 0);
	assert_true(sd_event_add_time_relative(run->event, NULL, CLOCK_BOOTTIME, LIMIT_US, 0,
					       on_limit, run) >= 0);
	assert_true(sd_event_loop(run->event) >= 0);
	(void)close(fifo);
	(void)close(pidfd);
}

static void taken(struct run *run, const char *text, size_t devices)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *file = adapted(text, run);
	AUTO_FREE char *path = path_join(run->dir, "config.bhyve");
	struct qemu_caps caps = {.binary = (char[]){BINARY}, .machine = (char[]){"q35"}};
	struct argv argv = {0};
	struct bhyve *b = NULL;
	struct err err = {0};

	(void)bhyve_load_text(path, file, &run->vm, &b, &p);
	if (b)
		bhyve_check_host(b, &p);
	if (problems_to_err(&p, &err) < 0 ||
	    bhyve_argv(b, &run->vm, &caps, &run->fds, &argv, &err) < 0)
		fail_msg("%s", err.msg);
	through_qemu(run, &argv);
	argv_done(&argv);
	bhyve_free(b);
	assert_true(run->answered);
	assert_true(WIFEXITED(run->status) && WEXITSTATUS(run->status) == 0);
	assert_int_equal(run->devices, devices);
}

static void fixture_is_taken(struct run *run, const char *name, size_t devices)
{
	AUTO_FREE char *path = xasprintf(
		"%s/bhyve/%s", getenv("GOLDEN") ? getenv("GOLDEN") : "tests/golden", name);
	AUTO_FREE char *text = NULL;

	assert_int_equal(file_read(path, FILE_MAX, &text, NULL, NULL, NULL), 0);
	taken(run, text, devices);
}

static void web_server(void **state)
{
	fixture_is_taken(*state, "web-uefi.conf", 5);
}

static void file_server(void **state)
{
	fixture_is_taken(*state, "storage-ahci-writable.conf", 5);
}

static void lab(void **state)
{
	fixture_is_taken(*state, "lab-slirp.conf", 5);
}

/* What the fixtures leave out. */
static void the_rest(void **state)
{
	taken(*state,
	      "name=rest, of it\ncpus=2\nmemory.guest_in_core=1\nvirtio_msix=0\nx86.x2apic=1\n"
	      "board.serial_number=a,b\nchassis.sku=c\nlpc.com1.path=stdio\nlpc.com2.path=stdio\n"
	      "lpc.com3.path=/dev/nmdm3B\nlpc.com4.path=/dev/nmdm4B\n"
	      "pci.0.31.0.device=lpc\npci.0.31.7.device=virtio-rnd\n"
	      "pci.0.3.0.device=ahci-cd\npci.0.3.0.bootindex=1\n"
	      "pci.0.4.0.device=ahci-hd\npci.0.4.0.path=/data/d0.img\npci.0.4.0.bootindex=0\n"
	      "pci.0.4.0.sectorsize=512/4096\n"
	      "pci.0.5.0.device=nvme\npci.0.5.0.path=/data/d1.img\npci.0.5.0.eui64=0x1234\n"
	      "pci.0.5.0.bootindex=3\npci.0.5.0.nocache=1\npci.0.5.0.direct=1\n"
	      "pci.0.6.0.device=virtio-blk\npci.0.6.0.path=/data/d2.img\npci.0.6.0.ro=1\n"
	      "pci.0.7.0.device=virtio-net\npci.0.8.0.device=hda\npci.0.8.0.play=/no1\n"
	      "pci.0.8.0.rec=/no2\npci.0.9.0.device=hda\npci.0.9.0.rec=/no3\n"
	      "pci.0.10.0.device=fbuf\npci.0.10.0.w=3840\npci.0.10.0.h=2160\n"
	      "pci.0.11.0.device=uart\npci.0.11.0.path=stdio\n"
	      "pci.0.12.0.device=virtio-console\npci.0.12.0.port.15.name=last\n"
	      "pci.0.12.0.port.15.path=/run/lab/last,one.sock\n"
	      "pci.0.13.0.device=xhci\npci.0.13.0.slot.4.device=tablet\n"
	      "pci.0.14.0.device=virtio-9p\npci.0.14.0.sharename=s\npci.0.14.0.path=/srv/share\n",
	      13);
}

static void a_large_plain_display(void **state)
{
	taken(*state,
	      "name=d\npci.0.2.0.device=fbuf\npci.0.2.0.vga=off\npci.0.2.0.w=3840\n"
	      "pci.0.2.0.h=2160\npci.0.2.0.password=secret\nkeyboard.layout=de\n",
	      1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(web_server, setup, teardown),
		cmocka_unit_test_setup_teardown(file_server, setup, teardown),
		cmocka_unit_test_setup_teardown(lab, setup, teardown),
		cmocka_unit_test_setup_teardown(the_rest, setup, teardown),
		cmocka_unit_test_setup_teardown(a_large_plain_display, setup, teardown),
	};

	if (access(BINARY, X_OK) < 0)
		return 77;
	return cmocka_run_group_tests_name("bhyve with QEMU", tests, NULL, NULL);
}
