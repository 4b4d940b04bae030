/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our vectors, sockets, recorder and client against a real QEMU under TCG: that it takes every
 * device we write, answers on both monitors, keeps the lock, and writes down how it ended. Each
 * run has one deadline. Exit 77 when there is no QEMU.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sock.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/argv.h"
#include "qemu/image.h"
#include "qemu/qmp.h"
#include "qemu/recorder.h"

#define BINARY   "/usr/bin/qemu-system-x86_64"
#define OVMF     "/usr/share/OVMF/OVMF_CODE_4M.fd"
#define LIMIT_US 60000000

struct run {
	char dir[64];
	struct qemu_caps caps;
	struct qemu_fds fds;
	struct vm vm;
	sd_event *event;
	struct qmp *mon, *qmp;
	pid_t pid;
	int pidfd, status;
	int answers; /* of getfd and closefd on the second monitor */
	bool prelaunch, locked;
};

/* --- a program's output --- */

static char *output_of(char *const argv[])
{
	AUTO_STRBUF struct strbuf sb = {0};
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)dup2(fds[1], 1);
		(void)close(fds[0]);
		(void)execv(argv[0], argv);
		_exit(127);
	}
	(void)close(fds[1]);
	do {
		strbuf_reserve(&sb, 4096);
		n = read(fds[0], sb.data + sb.len, 4096);
		sb.len += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	(void)close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	return strbuf_steal(&sb);
}

static void read_caps(struct run *run)
{
	char *const ask_version[] = {(char[]){BINARY}, (char[]){"--version"}, NULL};
	char *const ask_machine[] = {(char[]){BINARY}, (char[]){"-machine"}, (char[]){"help"},
				     NULL};
	AUTO_FREE char *version = output_of(ask_version);
	AUTO_FREE char *machine = output_of(ask_machine);
	struct err err = {0};

	if (qemu_caps_parse(BINARY, version, machine, &run->caps, &err) < 0)
		fail_msg("%s", err.msg);
}

/* --- set-up --- */

static int in_dir(const struct run *run, const char *name)
{
	AUTO_FREE char *path = path_join(run->dir, name);
	struct err err;
	int fd = -1;

	if (sock_listen(path, 0600, &fd, &err) < 0)
		fail_msg("%s", err.msg);
	return fd;
}

static int on_limit(sd_event_source *s, uint64_t usec, void *ctx)
{
	fail_msg("QEMU was not through after a minute");
	return 0;
}

static int setup(void **state)
{
	struct run *run = xcalloc(1, sizeof(*run));
	AUTO_FREE char *lock = NULL;

	(void)snprintf(run->dir, sizeof(run->dir), "/tmp/test-qemu-XXXXXX");
	assert_non_null(mkdtemp(run->dir));
	read_caps(run);
	lock = path_join(run->dir, "lock");
	run->fds = (struct qemu_fds){.mon = in_dir(run, "vm.mon"),
				     .qmp = in_dir(run, "vm.qmp"),
				     .ttya = in_dir(run, "vm.ttya"),
				     .ttyb = in_dir(run, "vm.ttyb"),
				     .agent = in_dir(run, "vm.agent"),
				     .lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
	assert_int_equal(flock(run->fds.lock, LOCK_EX | LOCK_NB), 0);
	memset(run->fds.taps, -1, sizeof(run->fds.taps));
	run->vm = (struct vm){.ram_mib = 128, .vcpus = 1, .accel = ACCEL_TCG, .acpi = true};
	run->vm.uuid = xstrdup("5c9f4c4e-9d3a-4a70-9d8e-2f0c7b4d1a11");
	run->pidfd = -1;
	assert_true(sd_event_new(&run->event) >= 0);
	assert_true(sd_event_add_time_relative(run->event, NULL, CLOCK_BOOTTIME, LIMIT_US, 0,
					       on_limit, run) >= 0);
	*state = run;
	return 0;
}

static int teardown(void **state)
{
	struct run *run = *state;

	qmp_free(run->mon);
	qmp_free(run->qmp);
	if (run->pid > 0) { /* the test failed on the way */
		(void)kill(run->pid, SIGKILL);
		(void)waitpid(run->pid, NULL, 0);
	}
	if (run->pidfd >= 0)
		(void)close(run->pidfd);
	sd_event_unref(run->event);
	qemu_caps_done(&run->caps);
	free(run->vm.uuid);
	(void)dir_remove_tree(run->dir, NULL);
	free(run);
	return 0;
}

/* --- start --- */

static void exec_qemu(const struct run *run, const struct argv *argv)
{
	const int keep[] = {run->fds.mon,  run->fds.qmp,   run->fds.ttya,
			    run->fds.ttyb, run->fds.agent, run->fds.lock};
	int null = open("/dev/null", O_RDWR);

	for (size_t i = 0; i < ARRAY_SIZE(keep); i++)
		(void)fcntl(keep[i], F_SETFD, 0);
	(void)dup2(null, 0);
	(void)dup2(2, 1);
	if (chdir(run->dir) == 0)
		(void)execv(argv->items[0], argv->items);
	_exit(127);
}

static int on_exit_of_qemu(sd_event_source *s, int fd, uint32_t revents, void *ctx)
{
	struct run *run = ctx;

	assert_int_equal(waitpid(run->pid, &run->status, 0), run->pid);
	run->pid = 0;
	return sd_event_exit(run->event, 0);
}

static void close_ours(struct run *run)
{
	(void)close(run->fds.mon);
	(void)close(run->fds.qmp);
	(void)close(run->fds.ttya);
	(void)close(run->fds.ttyb);
	(void)close(run->fds.agent);
	(void)close(run->fds.lock);
}

static void start(struct run *run)
{
	struct argv argv = {0};
	struct err err = {0};

	if (qemu_argv(&run->vm, &run->caps, &run->fds, &argv, &err) < 0)
		fail_msg("%s", err.msg);
	run->pid = fork();
	assert_true(run->pid >= 0);
	if (run->pid == 0)
		exec_qemu(run, &argv);
	argv_done(&argv);
	run->pidfd = (int)syscall(SYS_pidfd_open, run->pid, 0);
	assert_true(sd_event_add_io(run->event, NULL, run->pidfd, EPOLLIN, on_exit_of_qemu, run) >=
		    0);
	/* Ours must go, or the lock would be held by us. */
	close_ours(run);
}

/* --- what is said --- */

static bool lock_is_held(const struct run *run)
{
	AUTO_FREE char *path = path_join(run->dir, "lock");
	AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC);

	return flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static void on_running(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct run *run = ctx;

	if (r < 0)
		fail_msg("%s", err->msg);
	assert_string_equal(json_get_str(value, "status", ""), "running");
	run->locked = lock_is_held(run);
	assert_int_equal(qmp_send(run->mon, "quit", NULL, -1, 10000, NULL, NULL), 0);
}

/* Going on waits for the second monitor, see on_fd. */
static void go(struct run *run)
{
	if (!run->prelaunch || run->answers < 4)
		return;
	(void)qmp_send(run->mon, "cont", NULL, -1, 10000, NULL, NULL);
	(void)qmp_send(run->mon, "query-status", NULL, -1, 10000, on_running, run);
}

static void on_prelaunch(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct run *run = ctx;

	if (r < 0)
		fail_msg("%s", err->msg);
	assert_string_equal(json_get_str(value, "status", ""), "prelaunch");
	run->prelaunch = true;
	go(run);
}

static void on_mon_ready(void *ctx, struct qmp *q)
{
	assert_int_equal(qmp_send(q, "query-status", NULL, -1, 20000, on_prelaunch, ctx), 0);
}

static void on_fd(void *ctx, int r, const json_t *value, const struct err *err)
{
	struct run *run = ctx;

	if (r < 0)
		fail_msg("%s", err->msg);
	run->answers++;
	go(run);
}

/* Two descriptors back to back, and both must have arrived. */
static void on_qmp_ready(void *ctx, struct qmp *q)
{
	static const char *const commands[] = {"getfd", "getfd", "closefd", "closefd"};
	AUTO_FD int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int i = 0; i < 4; i++) {
		AUTO_JSON json_t *args = json_pack("{s:s}", "fdname", i % 2 ? "b" : "a");

		assert_int_equal(qmp_send(q, commands[i], args, i < 2 ? fd : -1, 20000, on_fd, ctx),
				 0);
	}
}

static void connect_monitors(struct run *run)
{
	AUTO_FREE char *mon = path_join(run->dir, "vm.mon");
	AUTO_FREE char *qmp = path_join(run->dir, "vm.qmp");
	struct qmp_config config = {.ready = on_mon_ready, .ctx = run};

	assert_int_equal(qmp_open(run->event, mon, &config, &run->mon, NULL), 0);
	config.ready = on_qmp_ready;
	assert_int_equal(qmp_open(run->event, qmp, &config, &run->qmp, NULL), 0);
}

/* From the sockets to the record; run->vm is what is started. */
static void live(struct run *run)
{
	struct recorder_end end;
	int fifo;

	assert_int_equal(recorder_prepare(run->dir, 0600, &fifo, NULL), 0);
	connect_monitors(run); /* before QEMU exists: the connections wait in the backlog */
	start(run);
	assert_true(sd_event_loop(run->event) >= 0);
	(void)close(fifo);
	assert_true(run->prelaunch);
	assert_true(run->locked);
	assert_true(WIFEXITED(run->status) && WEXITSTATUS(run->status) == 0);
	assert_false(lock_is_held(run));
	assert_int_equal(recorder_read(run->dir, &end, NULL), 0);
	assert_true(end.shutdown && !end.guest);
	assert_string_equal(end.reason, "host-qmp-quit");
}

static void a_bare_vm_lives_and_is_recorded(void **state)
{
	struct run *run = *state;

	run->vm.vnc_port = -1;
	run->vm.vga = VGA_NONE;
	live(run);
}

/* --- everything at once --- */

static char *image(const struct run *run, const char *name, enum disk_format format)
{
	char *path = path_join(run->dir, name);
	struct disk disk = {.path = path, .size_mib = 8, .format = format};
	struct argv argv = {0};

	image_create_argv(&disk, NULL, &argv);
	replace_str(&argv.items[0], xstrdup("/usr/bin/qemu-img"));
	free(output_of(argv.items));
	argv_done(&argv);
	return path;
}

static void every_device_is_taken(void **state)
{
	struct run *run = *state;
	AUTO_FREE char *raw = image(run, "raw, with comma", FORMAT_RAW);
	AUTO_FREE char *qcow = image(run, "b.qcow2", FORMAT_QCOW2);
	AUTO_FREE char *scsi = image(run, "c.qcow2", FORMAT_QCOW2);
	AUTO_FREE char *ide = image(run, "d.raw", FORMAT_RAW);
	AUTO_FREE char *nvme = image(run, "e.qcow2", FORMAT_QCOW2);
	AUTO_FREE char *cd = image(run, "cd.iso", FORMAT_RAW);
	char serial[] = "serial \"1\"", tag[] = "user", mac[3][18];
	char forward[] = "tcp:127.0.0.1:0-:22";
	char *forwards[] = {forward};
	struct disk disks[] = {
		{.path = raw, .format = FORMAT_RAW, .boot = true, .serial = serial},
		{.path = qcow, .format = FORMAT_QCOW2, .cache = CACHE_DIRECTSYNC, .iothread = true},
		{.path = scsi, .format = FORMAT_QCOW2, .model = DISK_SCSI, .discard = true},
		{.path = ide, .format = FORMAT_RAW, .model = DISK_IDE, .cache = CACHE_UNSAFE},
		{.path = nvme,
		 .format = FORMAT_QCOW2,
		 .model = DISK_NVME,
		 .cache = CACHE_WRITETHROUGH},
		{.path = cd, .model = DISK_SCSI, .media = MEDIA_CDROM},
		{.model = DISK_IDE, .media = MEDIA_CDROM},
		{.path = cd, .format = FORMAT_RAW, .readonly = true},
	};
	struct nic nics[3] = {
		{.model = NIC_VIRTIO, .mtu = 1400, .primary = true, .forward = {forwards, 1}},
		{.model = NIC_E1000},
		{.model = NIC_RTL8139}};
	struct disk *pdisks[ARRAY_SIZE(disks)];
	struct nic *pnics[ARRAY_SIZE(nics)];
	char name[] = "a name, with = and \"quotes\"", cpu[] = "host", boot[] = "order=ndc,menu=on";
	char password[] = "secret12", extra_opts[] = "-global 'ICH9-LPC.disable_s3=1'";

	for (size_t i = 0; i < ARRAY_SIZE(disks); i++)
		pdisks[i] = &disks[i];
	for (size_t i = 0; i < ARRAY_SIZE(nics); i++) {
		(void)snprintf(mac[i], sizeof(mac[i]), "52:54:00:00:00:%02zx", i);
		nics[i].mac = mac[i];
		nics[i].nic_tag = tag;
		pnics[i] = &nics[i];
	}
	run->vm.disks = pdisks;
	run->vm.ndisks = ARRAY_SIZE(disks);
	run->vm.nics = pnics;
	run->vm.nnics = ARRAY_SIZE(nics);
	run->vm.name = name;
	run->vm.cpu_type = cpu;
	run->vm.boot = boot;
	run->vm.vnc_password = password;
	run->vm.qemu_extra_opts = extra_opts;
	run->vm.vcpus = 4;
	run->vm.threads = 2;
	live(run);
}

static void every_screen_is_taken(void **state)
{
	static const enum vga_model models[] = {VGA_CIRRUS, VGA_VMWARE, VGA_QXL};

	for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
		struct run *run;

		assert_int_equal(setup(state), 0);
		run = *state;
		run->vm.vga = models[i];
		live(run);
		(void)teardown(state);
	}
}

static void firmware_with_variables_is_taken(void **state)
{
	struct run *run = *state;
	AUTO_FREE char *template = qemu_vars_template(OVMF);
	AUTO_FREE char *vars = path_join(run->dir, "vars.fd");
	AUTO_FREE char *data = NULL;
	char rom[] = OVMF;
	size_t len;

	if (!file_exists(OVMF))
		skip();
	assert_string_equal(template, "/usr/share/OVMF/OVMF_VARS_4M.fd");
	assert_int_equal(file_read(template, 8 << 20, &data, &len, NULL, NULL), 0);
	assert_int_equal(file_write(vars, data, len, 0600, FILE_NO_SYNC, NULL), 0);
	run->vm.bootrom = rom;
	run->fds.vars = vars;
	live(run);
}

static void the_most_devices_fit(void **state)
{
	struct run *run = *state;
	struct disk disks[VM_DISKS_MAX], *pdisks[VM_DISKS_MAX];
	struct nic nics[VM_NICS_MAX], *pnics[VM_NICS_MAX];
	AUTO_FREE char *cd = image(run, "cd.iso", FORMAT_RAW);
	char tag[] = "user", mac[VM_NICS_MAX][18];

	for (size_t i = 0; i < VM_DISKS_MAX; i++) {
		disks[i] = (struct disk){.path = cd, .format = FORMAT_RAW, .readonly = true};
		pdisks[i] = &disks[i];
	}
	for (size_t i = 0; i < VM_NICS_MAX; i++) {
		(void)snprintf(mac[i], sizeof(mac[i]), "52:54:00:00:01:%02zx", i);
		nics[i] = (struct nic){.nic_tag = tag, .mac = mac[i]};
		pnics[i] = &nics[i];
	}
	run->vm.disks = pdisks;
	run->vm.ndisks = VM_DISKS_MAX;
	run->vm.nics = pnics;
	run->vm.nnics = VM_NICS_MAX;
	assert_int_equal(qemu_ports(&run->vm), VM_DISKS_MAX + VM_NICS_MAX + 2 * QEMU_PORT_GROUP);
	live(run);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_bare_vm_lives_and_is_recorded),
		T(every_device_is_taken),
		cmocka_unit_test(every_screen_is_taken),
		T(firmware_with_variables_is_taken),
		T(the_most_devices_fit),
	};

	if (!file_exists(BINARY) || !file_exists("/usr/bin/qemu-img"))
		return 77;
	return cmocka_run_group_tests_name("real", tests, NULL, NULL) ? 1 : 0;
}
