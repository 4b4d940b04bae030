/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The argument vector, top to bottom: machine, processor and memory, monitors, fixed devices, root
 * ports, then disks and NICs (argv_devices.c) and boot and firmware (argv_boot.c). Every -device,
 * -blockdev, -netdev and -object is JSON with bus and address named: plain ones are made before
 * JSON ones whatever their order, and would take their slots.
 * Not passed on: virtio_txtimer and virtio_txburst (QEMU's network back ends of today have no
 * such timer), hostbridge (q35 has its own), vmexit_on_halt (always so).
 */
#include "qemu/argv.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/argv_private.h"

/* TCG's translation buffer adds to QEMU's size: an eighth of the guest's memory, within reason. */
#define TB_MIB_MIN 32
#define TB_MIB_MAX 256

#define SANDBOX "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
/* A reset stays in the process; a panic stays to be looked at. */
#define ACTION "reboot=reset,shutdown=poweroff,panic=pause,watchdog=pause"

/* --- helpers of all parts --- */

void argv_json(struct build *b, const char *option, json_t *j)
{
	AUTO_FREE char *text = json_text(j);

	argv_add(b->out, "%s", option);
	argv_add(b->out, "%s", text);
	json_decref(j);
}

json_t *argv_device(const char *driver, const char *id, const char *bus, const char *addr)
{
	json_t *j = json_object();

	json_put_str(j, "driver", driver);
	json_put_str(j, "id", id);
	json_put_str(j, "bus", bus);
	json_put_str(j, "addr", addr);
	return j;
}

json_t *argv_pci(const char *driver, const char *id, enum argv_slot slot)
{
	AUTO_FREE char *addr = xasprintf("0x%x", slot);

	return argv_device(driver, id, "pcie.0", addr);
}

json_t *argv_on_port(size_t port, const char *driver, const char *id)
{
	char bus[QEMU_ID_MAX];

	return argv_device(driver, id, qemu_port_id(port, bus, sizeof(bus)), "0x0");
}

static const char *numbered(const char *what, size_t i, char *buf, size_t size)
{
	(void)snprintf(buf, size, "%s%zu", what, i);
	return buf;
}

const char *qemu_disk_id(size_t i, char *buf, size_t size)
{
	return numbered("disk", i, buf, size);
}

const char *qemu_nic_id(size_t i, char *buf, size_t size)
{
	return numbered("nic", i, buf, size);
}

const char *qemu_port_id(size_t i, char *buf, size_t size)
{
	return numbered("port", i, buf, size);
}

/* Whole groups, with at least one port free. */
static size_t with_spare(size_t used)
{
	return (used / QEMU_PORT_GROUP + 1) * QEMU_PORT_GROUP;
}

size_t qemu_disk_port(const struct vm *vm)
{
	return with_spare(vm->nnics);
}

size_t qemu_ports(const struct vm *vm)
{
	size_t disks = 0;

	for (size_t i = 0; i < vm->ndisks; i++)
		disks += qemu_disk_on_port(vm->disks[i]);
	return qemu_disk_port(vm) + with_spare(disks);
}

/* --- what is refused --- */

int argv_check(struct build *b)
{
	const struct vm *vm = b->vm;

	if (vm->spice_port > 0)
		return err_set(b->err, ENOTSUP,
			       "spice_port: SPICE is not served (want 0 or -1; VNC is)");
	if (vm->vga == VGA_XENFB)
		return err_set(b->err, ENOTSUP,
			       "vga: xenfb is Xen's (want std, cirrus, vmware, qxl or none)");
	if (vm->ndisks > VM_DISKS_MAX || vm->nnics > VM_NICS_MAX)
		return err_set(b->err, E2BIG, "more than %d disks or %d NICs", VM_DISKS_MAX,
			       VM_NICS_MAX);
	return 0;
}

/* --- machine, processor, memory --- */

static int machine(struct build *b)
{
	const char *name = b->vm->machine ? b->vm->machine : b->caps->machine;

	if ((!str_eq(name, "q35") && !str_starts(name, "pc-q35-")) || strchr(name, ','))
		return err_set(b->err, ENOTSUP,
			       "machine: '%s' is not served (want q35 or pc-q35-VERSION)", name);
	argv_add(b->out, "-machine");
	argv_add(b->out, "%s,usb=off,dump-guest-core=%s%s%s%s%s%s", name,
		 b->dump_core ? "on" : "off", b->vm->acpi || b->vm->bootrom ? "" : ",acpi=off",
		 argv_secure(b->vm) ? ",smm=on" : "", b->vm->bootrom ? ",pflash0=pflash0" : "",
		 b->vm->bootrom && b->fds->vars ? ",pflash1=pflash1" : "",
		 b->vm->hugepages_mib ? ",memory-backend=mem" : "");
	return 0;
}

static bool uses_kvm(const struct build *b)
{
	return b->vm->accel == ACCEL_KVM || (b->vm->accel == ACCEL_AUTO && b->caps->kvm);
}

static void accelerator(struct build *b)
{
	uint32_t tb = b->vm->ram_mib / 8;

	if (tb < TB_MIB_MIN)
		tb = TB_MIB_MIN;
	if (tb > TB_MIB_MAX)
		tb = TB_MIB_MAX;
	argv_add(b->out, "-accel");
	if (uses_kvm(b))
		argv_add(b->out, "kvm");
	else
		argv_add(b->out, "tcg,tb-size=%u", tb);
}

/* TCG has no host CPU to show; max is the nearest. Features after a comma are kept. */
static void processor(struct build *b)
{
	const char *type = b->vm->cpu_type ? b->vm->cpu_type : "qemu64";
	size_t len = strcspn(type, ",");

	argv_add(b->out, "-cpu");
	if (!uses_kvm(b) && len == 4 && str_starts(type, "host"))
		argv_add(b->out, "max%s", type + len);
	else
		argv_add(b->out, "%s", type);
}

struct argv_topology argv_topology(const struct vm *vm)
{
	struct argv_topology t = {.cpus = vm->vcpus ? vm->vcpus : 1,
				  .threads = vm->threads ? vm->threads : 1,
				  .cores = vm->cores,
				  .sockets = vm->sockets};

	t.most = vm->vcpus_max > t.cpus ? vm->vcpus_max : t.cpus;
	if (!t.cores)
		t.cores = t.most / (t.threads * (t.sockets ? t.sockets : 1));
	if (!t.sockets)
		t.sockets = t.cores ? t.most / (t.threads * t.cores) : 0;
	return t;
}

static int topology(struct build *b)
{
	const struct vm *vm = b->vm;
	struct argv_topology t = argv_topology(vm);

	if ((uint64_t)t.sockets * t.cores * t.threads != t.most)
		return err_set(b->err, EINVAL,
			       "vcpus: sockets %u x cores %u x threads %u does not make %u "
			       "(0: not given)",
			       vm->sockets, vm->cores, vm->threads, t.most);
	argv_add(b->out, "-smp");
	if (t.most > t.cpus)
		argv_add(b->out, "cpus=%u,maxcpus=%u,sockets=%u,cores=%u,threads=%u", t.cpus,
			 t.most, t.sockets, t.cores, t.threads);
	else
		argv_add(b->out, "cpus=%u,sockets=%u,cores=%u,threads=%u", t.cpus, t.sockets,
			 t.cores, t.threads);
	argv_add(b->out, "-m");
	argv_add(b->out, "size=%uM", vm->ram_mib);
	if (vm->hugepages_mib)
		argv_json(b, "-object",
			  json_pack("{s:s,s:s,s:I,s:b,s:I}", "qom-type", "memory-backend-memfd",
				    "id", "mem", "size", (json_int_t)vm->ram_mib << 20, "hugetlb",
				    true, "hugetlbsize", (json_int_t)vm->hugepages_mib << 20));
	if (vm->wire_memory) {
		argv_add(b->out, "-overcommit");
		argv_add(b->out, "mem-lock=on");
	}
	return 0;
}

/* In key=value options a comma inside a value is doubled. */
char *argv_doubled(const char *text)
{
	struct strbuf sb = {0};

	for (; *text; text++) {
		strbuf_putc(&sb, *text);
		if (*text == ',')
			strbuf_putc(&sb, ',');
	}
	return strbuf_steal(&sb);
}

int argv_identity(struct build *b)
{
	AUTO_FREE char *name = argv_doubled(b->vm->name ? b->vm->name : b->vm->uuid);

	argv_add(b->out, "%s", b->caps->binary);
	argv_add(b->out, "-name");
	argv_add(b->out, "guest=%s,debug-threads=on", name);
	argv_add(b->out, "-uuid");
	argv_add(b->out, "%s", b->vm->uuid);
	argv_add(b->out, "-nodefaults");
	argv_add(b->out, "-no-user-config");
	argv_add(b->out, "-S");
	argv_add(b->out, "-sandbox");
	argv_add(b->out, SANDBOX);
	argv_add(b->out, "-action");
	argv_add(b->out, ACTION);
	return 0;
}

int argv_core(struct build *b)
{
	int r = machine(b);

	if (r < 0)
		return r;
	accelerator(b);
	processor(b);
	return topology(b);
}

static int clock_and_smbios(struct build *b)
{
	argv_add(b->out, "-rtc");
	argv_add(b->out, "base=utc");
	argv_add(b->out, "-smbios");
	argv_add(b->out, "type=1,serial=%s", b->vm->uuid);
	return 0;
}

/* --- monitors and other sockets --- */

bool argv_socket(struct build *b, const char *id, int fd)
{
	if (fd < 0)
		return false;
	argv_add(b->out, "-chardev");
	argv_add(b->out, "socket,id=%s,fd=%d,server=on,wait=off", id, fd);
	return true;
}

static void monitor(struct build *b, const char *id)
{
	argv_add(b->out, "-mon");
	argv_add(b->out, "chardev=%s,mode=control", id);
}

int argv_monitors(struct build *b)
{
	if (argv_socket(b, "mon", b->fds->mon))
		monitor(b, "mon");
	if (argv_socket(b, "qmp", b->fds->qmp))
		monitor(b, "qmp");
	argv_add(b->out, "-chardev");
	argv_add(b->out, "pipe,id=rec,path=events");
	monitor(b, "rec");
	return 0;
}

static void serial_port(struct build *b, int index, const char *chardev, int fd)
{
	char id[QEMU_ID_MAX];
	json_t *j;

	if (!argv_socket(b, chardev, fd))
		return;
	j = argv_device("isa-serial", numbered("serial", (size_t)index, id, sizeof(id)), "isa.0",
			NULL);
	json_put_int(j, "index", index);
	json_put_str(j, "chardev", chardev);
	argv_json(b, "-device", j);
}

static void agent(struct build *b)
{
	json_t *j;

	if (!argv_socket(b, "agent", b->fds->agent))
		return;
	argv_json(b, "-device", argv_pci("virtio-serial-pci", "vser", SLOT_SERIAL));
	j = argv_device("virtserialport", "agent0", "vser.0", NULL);
	json_put_int(j, "nr", 1);
	json_put_str(j, "chardev", "agent");
	json_put_str(j, "name", "org.qemu.guest_agent.0");
	argv_json(b, "-device", j);
}

/* --- fixed devices --- */

static void root_ports(struct build *b)
{
	size_t count = qemu_ports(b->vm);

	b->disk_port = qemu_disk_port(b->vm);
	for (size_t i = 0; i < count; i++) {
		AUTO_FREE char *addr = xasprintf("0x%zx.0x%zx", SLOT_PORTS + i / 8, i % 8);
		char id[QEMU_ID_MAX];
		json_t *j = argv_device("pcie-root-port", qemu_port_id(i, id, sizeof(id)), "pcie.0",
					addr);

		json_put_int(j, "chassis", (json_int_t)i + 1);
		json_put_bool(j, "multifunction", i % 8 == 0);
		argv_json(b, "-device", j);
	}
}

static int fixed_devices(struct build *b)
{
	json_t *j;

	root_ports(b);
	serial_port(b, 0, "ttya", b->fds->ttya);
	serial_port(b, 1, "ttyb", b->fds->ttyb);
	agent(b);
	argv_json(b, "-object", json_pack("{s:s,s:s}", "qom-type", "rng-builtin", "id", "rng"));
	j = argv_pci("virtio-rng-pci", "rng0", SLOT_RNG);
	json_put_str(j, "rng", "rng");
	argv_json(b, "-device", j);
	argv_json(b, "-device", argv_pci("virtio-balloon-pci", "balloon0", SLOT_BALLOON));
	argv_json(b, "-device", argv_device("pvpanic", "panic0", "isa.0", NULL));
	return 0;
}

/* --- display --- */

static const char *const vga_drivers[VGA_MODEL_COUNT] = {
	[VGA_STD] = "VGA",
	[VGA_CIRRUS] = "cirrus-vga",
	[VGA_VMWARE] = "vmware-svga",
	[VGA_QXL] = "qxl-vga",
};

/* qemu_opts takes the place of VNC and tablet. Source: smartos facts 6.7. */
bool argv_vnc(struct build *b)
{
	const struct vm *vm = b->vm;

	if (vm->qemu_opts && vm->qemu_opts[0])
		return false;
	argv_add(b->out, "-display");
	argv_add(b->out, "none");
	if (vm->vnc_port < 0)
		return false;
	/* Always with a password: one can then be given to a running VM. Until it is, nobody comes
	 * in by vm.vnc, and vmadmd says of each viewer it hands over that none is asked for. */
	argv_add(b->out, "-vnc");
	argv_add(b->out, "unix:vm.vnc,password=on");
	return true;
}

static int display(struct build *b)
{
	const struct vm *vm = b->vm;
	json_t *j;

	if (vga_drivers[vm->vga])
		argv_json(b, "-device", argv_pci(vga_drivers[vm->vga], "vga", SLOT_VGA));
	if (!argv_vnc(b)) {
		/* Nobody listens, but viewers may be handed over when vnc_port is given later. */
		if (!vm->qemu_opts || !vm->qemu_opts[0]) {
			argv_add(b->out, "-vnc");
			argv_add(b->out, "none,password=on");
		}
		return 0;
	}
	argv_json(b, "-device", argv_pci("qemu-xhci", "usb", SLOT_USB));
	j = argv_device("usb-tablet", "tablet0", "usb.0", NULL);
	json_put_str(j, "port", "1");
	argv_json(b, "-device", j);
	return 0;
}

int argv_extra(struct build *b)
{
	int r = 0;

	if (b->vm->qemu_opts)
		r = argv_split(b->vm->qemu_opts, "qemu_opts", b->out, b->err);
	if (r == 0 && b->vm->qemu_extra_opts)
		r = argv_split(b->vm->qemu_extra_opts, "qemu_extra_opts", b->out, b->err);
	return r;
}

int qemu_argv(const struct vm *vm, const struct qemu_caps *caps, const struct qemu_fds *fds,
	      struct argv *ret, struct err *err)
{
	static int (*const parts[])(struct build *) = {
		argv_check, argv_identity, argv_core,     clock_and_smbios,
		argv_boot,  argv_firmware, argv_monitors, fixed_devices,
		argv_disks, argv_nics,     display,       argv_extra,
	};
	struct argv out = {0};
	struct build b = {.vm = vm, .caps = caps, .fds = fds, .out = &out, .err = err};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts) && r == 0; i++)
		r = parts[i](&b);
	if (r == 0)
		argv_join(ret, &out);
	argv_done(&out);
	return r;
}
