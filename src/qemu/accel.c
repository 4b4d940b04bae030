/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KVM speed probe; see accel.h and docs/decisions/0005. A virtual CPU in 64-bit mode with
 * paging counts down and halts. Hardware does an iteration in about a nanosecond; a KVM that
 * emulates kernel mode needs hundreds, and never boots a guest.
 */
#include "qemu/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"

#define RUNS     3
#define RAM_SIZE 0x10000
/* Guest physical addresses of the three table levels and the code. */
#define AT_PML4 0x1000
#define AT_PDPT 0x2000
#define AT_PD   0x3000
#define AT_CODE 0x4000
/* Page table entry bits: present, writable, large page (here 2 MiB). */
#define PTE_PW    0x3ull
#define PTE_LARGE 0x80ull
#define CR0_BITS  0x80000033ull /* PG, NE, ET, MP, PE */
#define CR4_PAE   0x20ull
#define EFER_BITS 0x500ull   /* LMA, LME */
#define TSS_AT    0xfffbd000 /* three pages Intel CPUs want, away from our memory */

static const uint8_t loop_code[] = {
	0x48, 0xff, 0xc9, /* 1: dec %rcx */
	0x75, 0xfb,       /*    jnz 1b   */
	0xf4,             /*    hlt      */
};

struct probe {
	int kvm, vm, vcpu;
	uint8_t *ram;
	struct kvm_run *run;
	size_t run_size;
};

static void probe_done(struct probe *p)
{
	if (p->run != MAP_FAILED)
		(void)munmap(p->run, p->run_size);
	if (p->ram != MAP_FAILED)
		(void)munmap(p->ram, RAM_SIZE);
	auto_fd_fn(&p->vcpu);
	auto_fd_fn(&p->vm);
	auto_fd_fn(&p->kvm);
}

static int open_kvm(struct probe *p, struct err *err)
{
	int version;

	p->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (p->kvm < 0)
		return err_sys(err, errno, "cannot open /dev/kvm");
	version = ioctl(p->kvm, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION)
		return err_set(err, ENOTSUP, "/dev/kvm speaks version %d (want %d)", version,
			       KVM_API_VERSION);
	p->vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
	if (p->vm < 0)
		return err_sys(err, errno, "KVM cannot make a VM");
	(void)ioctl(p->vm, KVM_SET_TSS_ADDR, TSS_AT);
	return 0;
}

static int add_ram(struct probe *p, struct err *err)
{
	struct kvm_userspace_memory_region region = {.memory_size = RAM_SIZE};
	const uint64_t tables[][2] = {{AT_PML4, AT_PDPT | PTE_PW},
				      {AT_PDPT, AT_PD | PTE_PW},
				      {AT_PD, PTE_LARGE | PTE_PW}};

	p->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->ram == MAP_FAILED)
		return err_sys(err, errno, "no memory for the KVM probe");
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		memcpy(p->ram + tables[i][0], &tables[i][1], sizeof(tables[i][1]));
	memcpy(p->ram + AT_CODE, loop_code, sizeof(loop_code));
	region.userspace_addr = (uintptr_t)p->ram;
	if (ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return err_sys(err, errno, "KVM takes no memory");
	return 0;
}

static int enter_long_mode(struct probe *p, struct err *err)
{
	struct kvm_segment code = {.limit = 0xffffffff,
				   .selector = 8,
				   .type = 11,
				   .present = 1,
				   .s = 1,
				   .l = 1,
				   .g = 1};
	struct kvm_segment data = code;
	struct kvm_sregs s;

	data.selector = 16;
	data.type = 3;
	data.l = 0;
	data.db = 1;
	if (ioctl(p->vcpu, KVM_GET_SREGS, &s) < 0)
		return err_sys(err, errno, "KVM does not tell a CPU's state");
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.tr.type = 11; /* busy 64-bit task, what Intel's entry check asks for */
	s.tr.present = 1;
	s.cr3 = AT_PML4;
	s.cr4 = CR4_PAE;
	s.cr0 = CR0_BITS;
	s.efer = EFER_BITS;
	if (ioctl(p->vcpu, KVM_SET_SREGS, &s) < 0)
		return err_sys(err, errno, "KVM takes no 64-bit mode");
	return 0;
}

static int add_cpu(struct probe *p, struct err *err)
{
	int size = ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (size < (int)sizeof(*p->run))
		return err_set(err, ENOTSUP, "KVM gives no room for a CPU's state");
	p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
	if (p->vcpu < 0)
		return err_sys(err, errno, "KVM cannot make a CPU");
	p->run_size = (size_t)size;
	p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	if (p->run == MAP_FAILED)
		return err_sys(err, errno, "cannot map a KVM CPU");
	return enter_long_mode(p, err);
}

/* Not clock.h: microseconds are too coarse for what hardware needs. */
static double now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int run_loop(struct probe *p, double *ret_ns, struct err *err)
{
	struct kvm_regs regs = {.rip = AT_CODE, .rcx = ACCEL_LOOPS, .rflags = 2};
	double start;
	int r;

	if (ioctl(p->vcpu, KVM_SET_REGS, &regs) < 0)
		return err_sys(err, errno, "KVM takes no registers");
	start = now_ns();
	do
		r = ioctl(p->vcpu, KVM_RUN, 0);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_sys(err, errno, "KVM does not run a CPU");
	if (p->run->exit_reason != KVM_EXIT_HLT)
		return err_set(err, EIO, "KVM left the probe for reason %u (want %d, halted)",
			       p->run->exit_reason, KVM_EXIT_HLT);
	*ret_ns = (now_ns() - start) / ACCEL_LOOPS;
	return 0;
}

int accel_measure(double *ret_ns, struct err *err)
{
	struct probe p = {.kvm = -1, .vm = -1, .vcpu = -1, .ram = MAP_FAILED, .run = MAP_FAILED};
	double ns = 0, best = 0;
	int r = open_kvm(&p, err);

	if (r == 0)
		r = add_ram(&p, err);
	if (r == 0)
		r = add_cpu(&p, err);
	for (int i = 0; i < RUNS && r == 0; i++) {
		r = run_loop(&p, &ns, err);
		if (r == 0 && (i == 0 || ns < best))
			best = ns;
	}
	probe_done(&p);
	if (r == 0)
		*ret_ns = best;
	return r;
}
