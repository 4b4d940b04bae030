/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bhyve_config files against tests/golden/bhyve: *.conf is a file, *.problems what is said of it,
 * *.argv the vector when it can be mapped. REWRITE_GOLDEN=1 writes both. Then what a definition
 * lays over a file, references, and each refusal by its text.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/vm.h"
#include "qemu/argv.h"
#include "qemu/bhyve.h"
#include "ucl/ucl.h"

#define FILE_MAX (1u << 20)
#define UUID     "5c9f4c4e-9d3a-4a70-9d8e-2f0c7b4d1a11"
#define NS       "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

static char *findings(const struct problems *p)
{
	struct strbuf sb = {0};

	for (size_t i = 0; i < p->count; i++)
		strbuf_printf(&sb, "%s: %s: %s\n",
			      p->items[i].kind == PROBLEM_WARNING ? "warning" : "error",
			      p->items[i].where, p->items[i].text);
	return strbuf_steal(&sb);
}

static struct qemu_fds made_up_fds(void)
{
	struct qemu_fds fds = {
		.mon = 10, .qmp = 11, .ttya = 12, .ttyb = 13, .agent = -1, .lock = 15};

	memset(fds.taps, -1, sizeof(fds.taps));
	return fds;
}

static char *vector_with(const struct bhyve *b, const struct vm *vm, const struct qemu_fds *fds)
{
	struct qemu_caps caps = {.binary = (char[]){"/usr/bin/qemu-system-x86_64"},
				 .machine = (char[]){"pc-q35-7.2"}};
	struct argv argv = {0};
	struct err err = {0};
	char *text;

	if (bhyve_argv(b, vm, &caps, fds, &argv, &err) < 0)
		fail_msg("%s", err.msg);
	text = argv_text(&argv);
	argv_done(&argv);
	return text;
}

static char *vector(const struct bhyve *b, const struct vm *vm)
{
	struct qemu_fds fds = made_up_fds();

	return vector_with(b, vm, &fds);
}

/* --- golden files --- */

static char *golden_dir(void)
{
	return path_join(getenv("GOLDEN") ? getenv("GOLDEN") : "tests/golden", "bhyve");
}

static void compare(const char *stem, const char *suffix, const char *got)
{
	AUTO_FREE char *path = xasprintf("%s.%s", stem, suffix);
	AUTO_FREE char *want = NULL;

	if (getenv("REWRITE_GOLDEN"))
		assert_int_equal(file_write(path, got, strlen(got), 0644, FILE_NO_SYNC, NULL), 0);
	assert_int_equal(file_read(path, FILE_MAX, &want, NULL, NULL, NULL), 0);
	if (!str_eq(got, want))
		print_error("differs from %s\n", path);
	assert_string_equal(got, want);
}

static int load(const char *name, const struct vm *vm, struct bhyve **b, struct problems *p)
{
	AUTO_FREE char *dir = golden_dir();
	AUTO_FREE char *path = path_join(dir, name);
	AUTO_FREE char *shown = path_join("/vm", name);
	AUTO_FREE char *text = NULL;

	assert_int_equal(file_read(path, FILE_MAX, &text, NULL, NULL, NULL), 0);
	return bhyve_load_text(shown, text, vm, b, p);
}

static void judge(const char *name)
{
	struct vm vm = {.uuid = (char[]){UUID}, .accel = ACCEL_TCG, .vnc_port = -1};
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *dir = golden_dir();
	AUTO_FREE char *path = path_join(dir, name);
	AUTO_FREE char *stem = xstrndup(path, strlen(path) - strlen(".conf"));
	AUTO_FREE char *said = NULL;
	AUTO_FREE char *argv = NULL;
	struct bhyve *b = NULL;
	int r = load(name, &vm, &b, &p);

	assert_int_equal(r<0, p.errors> 0);
	assert_int_equal(r < 0, b == NULL);
	said = findings(&p);
	compare(stem, "problems", said);
	argv = b ? vector(b, &vm) : xstrdup("");
	assert_null(strstr(argv, "letmein"));
	if (b)
		compare(stem, "argv", argv);
	bhyve_free(b);
}

static void golden_files(void **state)
{
	AUTO_FREE char *dir = golden_dir();
	struct dirent **list;
	int n = scandir(dir, &list, NULL, alphasort), cases = 0;

	assert_true(n > 0);
	for (int i = 0; i < n; i++) {
		if (str_ends(list[i]->d_name, ".conf")) {
			judge(list[i]->d_name);
			cases++;
		}
		free(list[i]);
	}
	free(list);
	assert_true(cases >= 5);
}

/* --- the fixtures by what they are said to hold --- */

struct fixture {
	struct vm vm;
	struct bhyve *b;
	struct problems p;
	char *argv;
};

static void open_fixture(struct fixture *f, const char *name)
{
	*f = (struct fixture){.vm = {.uuid = (char[]){UUID}, .accel = ACCEL_TCG}};
	f->vm.uuid = xstrdup(UUID);
	if (load(name, &f->vm, &f->b, &f->p) < 0)
		fail_msg("%s: %s", name, findings(&f->p));
	f->argv = vector(f->b, &f->vm);
}

static void close_fixture(struct fixture *f)
{
	free(f->argv);
	free(f->vm.uuid);
	bhyve_free(f->b);
	problems_done(&f->p);
}

static void has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("no '%s' in:\n%s", part, text);
}

static void has_not(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("'%s' in:\n%s", part, text);
}

static void web_server(void **state)
{
	struct fixture f;
	const struct bhyve_info *i;

	open_fixture(&f, "web-uefi.conf");
	i = bhyve_info(f.b);
	assert_int_equal(f.p.count, 0);
	assert_string_equal(i->uuid, "6f1d2c3b-8a47-4e0e-9b55-0d3c6a7e1f20");
	assert_int_equal(i->ram_mib, 4096);
	assert_int_equal(i->vcpus, 4);
	assert_int_equal(i->consoles, 1);
	assert_string_equal(i->bootvars, "/srv/vm/web01/vars.fd");
	assert_string_equal(i->vnc.address, "127.0.0.1");
	assert_int_equal(i->vnc.port, 5901);
	assert_string_equal(i->vnc.password, "letmein");
	assert_false(i->vnc.wait);
	assert_string_equal(bhyve_tap(f.b, 0), "tap10");
	assert_null(bhyve_tap(f.b, 1));
	has(f.argv, "guest=web01,");
	has(f.argv, "-uuid 6f1d2c3b-8a47-4e0e-9b55-0d3c6a7e1f20");
	has(f.argv, "cpus=4,sockets=1,cores=2,threads=2");
	has(f.argv, "socket,id=com1,fd=12,");
	has(f.argv, "\"filename\":\"/srv/vm/web01/root.img\"");
	has(f.argv, "\"id\":\"pci-0-3-0\",\"bus\":\"pcie.0\",\"addr\":\"0x3.0x0\"");
	has(f.argv, "\"host_mtu\":9000");
	has(f.argv, "unix:vm.vnc,password=on");
	has_not(f.argv, "acpi=off");
	close_fixture(&f);
}

static void file_server(void **state)
{
	struct fixture f;

	open_fixture(&f, "storage-ahci-writable.conf");
	assert_int_equal(bhyve_info(f.b)->ram_mib, 8192);
	assert_null(bhyve_info(f.b)->bootrom);
	assert_null(bhyve_info(f.b)->vnc.address);
	has(f.argv, "cpus=2,sockets=2,cores=1,threads=1");
	has(f.argv, "\"addr\":\"0x2.0x0\",\"multifunction\":true");
	has(f.argv, "\"addr\":\"0x2.0x1\"}");
	has(f.argv, "\"rotation_rate\":1,");
	has(f.argv, "\"rotation_rate\":7200,");
	has(f.argv, "host=127.0.0.1,port=4555,server=on");
	has(f.argv, "\"max_ioqpairs\":8");
	has(f.argv, "path=pci-0-6-0.sock,server=on");
	has_not(f.argv, "-vnc");
	close_fixture(&f);
}

static void lab(void **state)
{
	struct fixture f;

	open_fixture(&f, "lab-slirp.conf");
	assert_int_equal(bhyve_info(f.b)->vcpus, 2);
	assert_true(bhyve_info(f.b)->wait);
	assert_true(bhyve_info(f.b)->vnc.wait);
	assert_string_equal(bhyve_info(f.b)->vnc.address, "::1");
	assert_int_equal(bhyve_info(f.b)->vnc.port, 5910);
	assert_int_equal(bhyve_info(f.b)->consoles, 0);
	has(f.argv, "product=Box %(name),serial=100% real");
	has(f.argv, "-gdb tcp:localhost:9000");
	has(f.argv, "udp::5353-:53");
	close_fixture(&f);
}

/* --- small files --- */

#define HEAD "name=x\n"

/* The findings of a text; want "" for none. */
static void expect(const char *text, const char *want)
{
	struct vm vm = {.uuid = (char[]){UUID}};
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *got = NULL;
	struct bhyve *b = NULL;
	int r = bhyve_load_text("f", text, &vm, &b, &p);

	got = findings(&p);
	bhyve_free(b);
	assert_string_equal(got, want);
	assert_int_equal(r, p.errors ? -EINVAL : 0);
}

static void lines_are_exact(void **state)
{
	expect(HEAD "\n# a=\nunknown.name=x=y # z\nno.newline=1", "");
	expect("name=x\nbad\n  \nempty=\n=v\na..b=1\n.c=1\nd.=1\n",
	       "error: f:2: 'bad' has no '=' (want NAME=VALUE)\n"
	       "error: f:3: '  ' has no '=' (want NAME=VALUE)\n"
	       "error: f:4: 'empty=' has no value (want NAME=VALUE; a value cannot be empty)\n"
	       "error: f:5: '=...' has an empty part in its name (want NAME or NAME.NAME...)\n"
	       "error: f:6: 'a..b=...' has an empty part in its name (want NAME or NAME.NAME...)\n"
	       "error: f:7: '.c=...' has an empty part in its name (want NAME or NAME.NAME...)\n"
	       "error: f:8: 'd.=...' has an empty part in its name (want NAME or NAME.NAME...)\n");
	expect(HEAD "a=1\na.b.c=2\n",
	       "error: f:3: a.b.c: 'a' has a value itself (f:2) and cannot hold others\n");
	expect(HEAD "a\xff=1\n", "error: f:2: '...' is not UTF-8\n");
	expect(HEAD "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q=1\n",
	       "error: f:2: 'a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q=...' has a name of more than 16 "
	       "parts\n");
	expect(HEAD "cpus =2\nsku=\r\n",
	       "warning: f:2: cpus : the blank before '=' is part of the name\n"
	       "warning: f:3: sku: the carriage return at its end is part of the value "
	       "(a DOS file?)\n");
	expect("cpus=1\n", "error: f: name: is missing\n");
	expect(HEAD "config.dump=1\n",
	       "warning: f:2: config.dump: is ignored: the VM is started\n");
}

static void references_are_replaced(void **state)
{
	expect("name=%(who)\nwho=%(first)\nfirst=x\nunused=%(nobody)\n", "");
	expect("name=%(nobody)\n", "error: f:1: name: 'nobody' is referred to and not set\n");
	expect("name=a%(name)\n", "error: f:1: name: 'name' is referred to through more than 16 "
				  "others (a circle?)\n");
	expect(HEAD "pci.0.3.0.device=fbuf\npci.0.3.0.password=se%(cret)\n",
	       "error: f:3: pci.0.3.0.password: '***' is referred to and not set\n");
	expect("name=a%()%x%(b\n", "warning: f:1: name: '%()' names nothing and is dropped\n"
				   "warning: f:1: name: a single '%' is kept (want '%%')\n"
				   "warning: f:1: name: '%(' without ')' is kept as it is\n");
	expect("name=%()\n", "error: f:1: name: is empty after its references are replaced\n"
			     "warning: f:1: name: '%()' names nothing and is dropped\n");
	expect("name=%(a)%(a)\na=%(b)%(b)\nb=%(c)%(c)\nc=%(d)%(d)\nd=%(e)%(e)\ne=%(f)%(f)\n"
	       "f=%(g)%(g)\ng=%(h)%(h)\nh=1\n",
	       "error: f:1: name: 'b' is one reference too many (want at most 256)\n");
}

static void types_are_checked(void **state)
{
	expect(HEAD "acpi_tables=maybe\ncpus=2x\nmemory.size=lots\nuuid=1\ngdb.port=-1\n",
	       "error: f:5: uuid: '1' is not a UUID\n"
	       "error: f:3: cpus: '2x' is not a number from 1 to 65535\n"
	       "error: f:4: memory.size: 'lots' is not a size (want 512M, 4G, ...)\n"
	       "error: f:2: acpi_tables: 'maybe' is not a boolean (want true, on, yes, 1, false, "
	       "off, no or 0)\n"
	       "error: f:6: gdb.port: '-1' is not a number from 0 to 65535\n");
	expect(HEAD "memory.size=99999999999E\n",
	       "error: f:2: memory.size: '99999999999E' is out of bounds (want 16M to 4T)\n");
	expect(HEAD "memory.size=16777217\n",
	       "warning: f:2: memory.size: '16777217' is rounded up to 17M\n");
	expect(HEAD "cpus=4\ncores=3\n",
	       "error: f:2: cpus: topology 1 x 3 x 1 does not match 4 cpus\n");
	expect(HEAD "cpus=1000\n",
	       "error: f:2: cpus: 1000 is more than the 288 that are possible here\n");
	expect(HEAD "domains.0.size=1G\nvcpu.0.cpuset=1\nconsole=stdio\n",
	       "error: f:2: domains.0.size: NUMA domains are not supported\n"
	       "error: f:4: console: is for arm64 (want lpc.com1.path, lpc.bootrom)\n"
	       "warning: f:3: vcpu.0.cpuset: virtual CPUs are not pinned here (cpuset is "
	       "ignored)\n");
}

#define LPC HEAD "pci.0.31.0.device=lpc\n"

static void lpc_is_checked(void **state)
{
	expect(HEAD "lpc.com1.path=stdio\n",
	       "error: f:2: lpc.com1.path: needs the LPC bridge (want "
	       "a line pci.0.31.0.device=lpc)\n");
	expect(LPC "lpc.bootrom=/fw/BHYVE_UEFI.fd\nacpi_tables=1\n",
	       "error: f:3: lpc.bootrom: /fw/BHYVE_UEFI.fd is a bhyve firmware; name an OVMF "
	       "image\n");
	expect(LPC "lpc.bootvars=/v\nlpc.com1.path=foo\nlpc.com2.path=tcp=h\n",
	       "error: f:3: lpc.bootvars: is given without lpc.bootrom\n"
	       "error: f:4: lpc.com1.path: 'foo' is not understood (want stdio, tcp=HOST:PORT or "
	       "a device)\n"
	       "error: f:5: lpc.com2.path: 'tcp=h' is not an address (want tcp=HOST:PORT or "
	       "tcp=[ADDRESS]:PORT)\n");
	expect(LPC "lpc.tpm.type=swtpm\nlpc.tpm.version=1.2\nlpc.fwcfg=x\n",
	       "error: f:4: lpc.tpm.version: only version 2.0 is possible\n"
	       "error: f: lpc.tpm.path: is missing\n"
	       "error: f:5: lpc.fwcfg: is not understood (want qemu or bhyve)\n");
	expect(LPC "lpc.bootrom=rel.fd\n", "error: f:3: lpc.bootrom: 'rel.fd' is not an absolute "
					   "path\n");
}

static void devices_are_checked(void **state)
{
	expect(HEAD "pci.0.3.1.device=virtio-rnd\npci.0.4.0.path=/x\npci.0.0.1.device=virtio-rnd\n",
	       "error: f:4: pci.0.0.1: slot 0 holds the host bridge and nothing else (want another "
	       "slot)\n"
	       "error: f:2: pci.0.3.1: function 0 of slot 3 holds no device, so function 1 cannot "
	       "either\n"
	       "error: f:3: pci.0.4.0: no device model is given (want pci.0.4.0.device=...)\n");
	expect(HEAD
	       "pci.0.03.0.device=lpc\npci.0.3.8.device=lpc\npci.x=1\npci.256.0.0.device=lpc\n",
	       "error: f:2: pci.0.03.0: slot must be 0 to 31\n"
	       "error: f:3: pci.0.3.8: function must be 0 to 7\n"
	       "error: f:5: pci.256.0.0: bus must be 0 to 255 (want "
	       "pci.BUS.SLOT.FUNC.VARIABLE)\n"
	       "error: f:4: pci.x: bus must be 0 to 255 (want pci.BUS.SLOT.FUNC.VARIABLE)\n");
	expect(HEAD "pci.0.1.0.device=hostbridge\npci.0.0.0.device=hostbridge\n"
		    "pci.0.2.0.device=lpc\npci.0.31.0.device=lpc\n",
	       "error: f:2: pci.0.1.0: only one host bridge\n"
	       "error: f:5: pci.0.31.0: only one LPC bridge\n"
	       "warning: f:4: pci.0.2.0: the LPC bridge is at slot 31 function 0 here\n");
	expect(HEAD "pci.0.3.0.device=passthru\npci.0.3.0.bus=2\npci.0.3.0.slot=x\n",
	       "error: f:4: pci.0.3.0.slot: 'x' is not a number from 0 to 31\n"
	       "error: f:2: pci.0.3.0.func: is missing (want the host device's)\n");
	expect(HEAD "pci.0.3.0.device=xhci\npci.0.3.0.slot.5.device=tablet\n"
		    "pci.0.3.0.slot.1.device=mouse\n",
	       "error: f:3: pci.0.3.0.slot.5.device: slot must be 1 to 4\n"
	       "error: f:4: pci.0.3.0.slot.1.device: unknown USB device (want tablet)\n");
	expect(HEAD "pci.0.3.0.device=fbuf\npci.0.3.0.vga=x\npci.0.3.0.rfb=h:5900\n"
		    "pci.0.4.0.device=fbuf\n",
	       "error: f:3: pci.0.3.0.vga: is not understood (want io, on or off)\n"
	       "error: f:4: pci.0.3.0.rfb: 'h:5900' is not an address (want [ADDRESS:]PORT)\n"
	       "error: f:5: pci.0.4.0: only one frame buffer\n");
}

static void disks_are_checked(void **state)
{
	expect(HEAD
	       "pci.0.3.0.device=virtio-blk\npci.0.3.0.path=/d\npci.0.3.0.sectorsize=4096/512\n"
	       "pci.0.3.0.bootindex=1\npci.0.3.0.ser=123456789012345678901\n"
	       "pci.0.4.0.device=virtio-blk\npci.0.4.0.bootindex=1\n",
	       "error: f:4: pci.0.3.0.sectorsize: '4096/512' is not a sector size (want LOGICAL or "
	       "LOGICAL/PHYSICAL, powers of two from 512, physical not smaller)\n"
	       "error: f:6: pci.0.3.0.ser: is longer than 20 bytes\n"
	       "error: f:7: pci.0.4.0.path: is missing\n"
	       "error: f:8: pci.0.4.0.bootindex: another device has number 1 already\n");
	expect(HEAD "pci.0.3.0.device=ahci\npci.0.3.0.port.6.type=hd\npci.0.3.0.port.0.path=/a\n"
		    "pci.0.3.0.port.1.type=cd\npci.0.3.0.port.2.type=hd\n"
		    "pci.0.3.0.port.2.path=/b\npci.0.3.0.port.2.sectorsize=4096\n"
		    "pci.0.3.0.port.2.nmrr=7\n",
	       "error: f:3: pci.0.3.0.port.6.type: AHCI controller has 6 ports here (want "
	       "pci.0.3.0.port.0 to pci.0.3.0.port.5)\n"
	       "error: f:2: pci.0.3.0.port.0.type: is missing (want hd or cd)\n"
	       "error: f:8: pci.0.3.0.port.2.sectorsize: AHCI disks have 512-byte sectors here\n"
	       "warning: f:9: pci.0.3.0.port.2.nmrr: 7 is not a rotation rate and left out (want "
	       "0, "
	       "1 or 1025 to 65534)\n");
	expect(HEAD "pci.0.3.0.device=nvme\npci.0.3.0.path=/d\npci.0.3.0.sectsz=1000\n"
		    "pci.0.3.0.dsm=x\npci.0.3.0.qsz=9\n",
	       "error: f:4: pci.0.3.0.sectsz: 1000 is not possible (want 512, 4096 or 8192)\n"
	       "error: f:5: pci.0.3.0.dsm: is not understood (want auto, enable or disable)\n"
	       "warning: f:6: pci.0.3.0.qsz: has no QEMU equivalent and is ignored\n");
}

static void networks_are_checked(void **state)
{
	expect(HEAD "pci.0.3.0.device=virtio-net\npci.0.4.0.device=e1000\n"
		    "pci.0.4.0.backend=tap0\npci.0.4.0.mac=01:00:00:00:00:00\npci.0.4.0.mtu=9000\n",
	       "error: f:5: pci.0.4.0.mac: MAC must be unicast\n"
	       "warning: f:2: pci.0.3.0.backend: is missing: the interface is not connected\n"
	       "warning: f:6: pci.0.4.0.mtu: is not possible with e1000 and ignored\n");
	expect(HEAD "pci.0.3.0.device=virtio-net\npci.0.3.0.backend=slirp\n"
		    "pci.0.3.0.hostfwd=tcp:1.2.3.4:22-:22;sctp::1-:1\npci.0.3.0.mac=xx\n",
	       "error: f:4: pci.0.3.0.hostfwd: 'sctp::1-:1' is not a rule (want "
	       "tcp:[ADDRESS]:HOSTPORT-[GUESTADDRESS]:GUESTPORT, joined by ';')\n"
	       "error: f:5: pci.0.3.0.mac: 'xx' is not a MAC address (want xx:xx:xx:xx:xx:xx)\n");
	expect(HEAD "pci.0.3.0.device=virtio-net\npci.0.3.0.backend=eth0\n"
		    "pci.0.4.0.device=virtio-net\npci.0.4.0.backend=a/b\npci.0.4.0.type=tap\n"
		    "pci.0.5.0.device=virtio-net\npci.0.5.0.type=tap\n",
	       "error: f:3: pci.0.3.0.backend: 'eth0' is unknown (want tap, vmnet or slirp)\n"
	       "error: f:5: pci.0.4.0.backend: 'a/b' is not the name of an interface\n"
	       "error: f:7: pci.0.5.0.backend: is missing (want an interface)\n");
}

/* --- what a definition lays over --- */

static struct vm *define(const char *text)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *said = NULL;
	struct ucl_doc *doc = NULL;
	const struct ucl_value *root;
	struct vm *vm;
	struct err err;

	if (ucl_parse("/etc/web/config", text, strlen(text), NULL, &doc, &err) < 0)
		fail_msg("%s", err.msg);
	root = ucl_root(doc);
	vm = vm_from_ucl(root->keys[0], root->items[0], NS, "web", &p);
	ucl_free(doc);
	said = findings(&p);
	assert_string_equal(said, "");
	vm_finish(vm, "/data");
	return vm;
}

static void merged(const char *definition, const char *file, const char *want)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *got = NULL;
	AUTO_FREE char *full = NULL;
	struct vm *vm = define(definition);
	struct bhyve *b = NULL;

	(void)bhyve_load_text("/f", file, vm, &b, &p);
	got = b ? bhyve_generated(b) : findings(&p);
	full = b ? xasprintf("%s\n%s", file, want) : xstrdup(want);
	assert_string_equal(got, full);
	bhyve_free(b);
	vm_free(vm);
}

static void only_what_was_given_is_merged(void **state)
{
	merged("web { configfile = /f; }", "acpi_tables=true\nx86.vmexit_on_hlt=true",
	       "name=web\n");
	merged("web { configfile = /f; }", "name=file\ncpus=3\n", "");
	merged("web { name = given; memory = 2G; cpus = 4; sockets = 1; cores = 4; "
	       "generate_acpi_tables = no; vmexit_on_halt = yes; wire_memory = yes; }",
	       "name=file",
	       "name=given\nmemory.size=2048M\ncpus=4\nsockets=1\ncores=4\nacpi_tables=false\n"
	       "x86.vmexit_on_hlt=true\nmemory.wired=true\n");
	merged("web { bootrom = \"/fw/a%b.fd\"; hostbridge = amd; }", "name=f\nacpi_tables=1",
	       "lpc.bootrom=/fw/a%%b.fd\npci.0.31.0.device=lpc\npci.0.0.0.device=hostbridge\n"
	       "pci.0.0.0.pcireg.vendor=0x1022\npci.0.0.0.pcireg.device=0x7432\n");
	merged("web { console a { } console b { backend = /dev/nmdm5A; } "
	       "console c { enabled = no; } }",
	       "name=f\npci.0.1.0.device=lpc", "lpc.com1.path=stdio\nlpc.com2.path=/dev/nmdm5A\n");
	merged("web {\n cpus = 3;\n}", "name=f\ncores=2\n",
	       "error: /etc/web/config:1: cpus: topology 1 x 2 x 1 does not match 3 cpus\n");
	merged("web { disk a { path = /a; } nic b { nic_tag = user; } }", "name=f",
	       "error: /etc/web/config:1: disk a: stands beside a configfile (want it in there)\n"
	       "error: /etc/web/config:1: nic b: stands beside a configfile (want it in there)\n");
}

static void descriptors_are_taken(void **state)
{
	struct qemu_fds fds = made_up_fds();
	struct fixture f;
	AUTO_FREE char *argv = NULL;

	open_fixture(&f, "web-uefi.conf");
	has(f.argv, "\"ifname\":\"tap10\"");
	fds.taps[0] = 20;
	fds.ttya = -1;
	argv = vector_with(f.b, &f.vm, &fds);
	has(argv, "\"type\":\"tap\",\"fd\":\"20\"");
	has_not(argv, "tap10");
	has(argv, "socket,id=com1,path=vm.ttya,");
	close_fixture(&f);
}

static void the_host_is_looked_at(void **state)
{
	static const char text[] =
		"name=x\npci.0.3.0.device=virtio-blk\npci.0.3.0.path=/nonexistent/disk\n"
		"pci.0.4.0.device=virtio-blk\npci.0.4.0.path=/usr\n"
		"pci.0.5.0.device=virtio-net\npci.0.5.0.backend=tapnothere\n"
		"pci.0.6.0.device=passthru\npci.0.6.0.bus=255\npci.0.6.0.slot=31\n"
		"pci.0.6.0.func=7\npci.0.7.0.device=virtio-9p\npci.0.7.0.sharename=s\n"
		"pci.0.7.0.path=/usr\npci.0.8.0.device=uart\npci.0.8.0.path=/dev/null\n";
	struct vm vm = {.uuid = (char[]){UUID}};
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *got = NULL;
	struct bhyve *b = NULL;

	assert_int_equal(bhyve_load_text("/f", text, &vm, &b, &p), 0);
	assert_int_equal(p.count, 0);
	bhyve_check_host(b, &p);
	got = findings(&p);
	assert_string_equal(got,
			    "error: /f:3: pci.0.3.0.path: '/nonexistent/disk' does not exist\n"
			    "error: /f:5: pci.0.4.0.path: '/usr' is a folder\n"
			    "error: /f:7: pci.0.5.0.backend: interface tapnothere does not exist\n"
			    "error: /f:9: pci.0.6.0.bus: there is no PCI device 0000:ff:1f.7\n");
	bhyve_free(b);
}

static void files_are_read(void **state)
{
	struct vm vm = {.uuid = (char[]){UUID}, .file = (char[]){"/etc/config"}};
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *got = NULL;
	char path[] = "/tmp/test-bhyve-XXXXXX";
	AUTO_FD int fd = mkstemp(path);
	struct bhyve *b = NULL;

	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, "name=x", 6), 0);
	assert_int_equal(bhyve_load(path, &vm, &b, &p), 0);
	assert_int_equal(bhyve_info(b)->vcpus, 1);
	bhyve_free(b);
	b = NULL;
	assert_int_equal(fchmod(fd, 0666), 0);
	assert_int_equal(bhyve_load(path, &vm, &b, &p), -EPERM);
	(void)unlink(path);
	assert_int_equal(bhyve_load(path, &vm, &b, &p), -ENOENT);
	assert_null(b);
	assert_int_equal(p.errors, 2);
	got = findings(&p);
	assert_true(str_starts(got, "error: /etc/config: configfile: "));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_files),
		cmocka_unit_test(web_server),
		cmocka_unit_test(file_server),
		cmocka_unit_test(lab),
		cmocka_unit_test(lines_are_exact),
		cmocka_unit_test(references_are_replaced),
		cmocka_unit_test(types_are_checked),
		cmocka_unit_test(lpc_is_checked),
		cmocka_unit_test(devices_are_checked),
		cmocka_unit_test(disks_are_checked),
		cmocka_unit_test(networks_are_checked),
		cmocka_unit_test(only_what_was_given_is_merged),
		cmocka_unit_test(descriptors_are_taken),
		cmocka_unit_test(the_host_is_looked_at),
		cmocka_unit_test(files_are_read),
	};

	return cmocka_run_group_tests_name("bhyve", tests, NULL, NULL);
}
