/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving up powers; see confine.h. Order: the user (while we may), capabilities, no new
 * privileges, Landlock, the filter last, as it forbids some of the calls before it.
 */
#include "vminfod/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pwd.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"

/* The leak check at the end stops the process and looks at it, from another. */
#if defined(__SANITIZE_ADDRESS__)
#define LEAKS_CHECKED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LEAKS_CHECKED
#endif
#endif

#define KEPT_CAP CAP_DAC_READ_SEARCH
#define CAPS_MAX 63

/* Landlock's rights by the version that brought them; headers may be older than the kernel. */
#define FS_EXECUTE        (1ull << 0)
#define FS_WRITE          (1ull << 1)
#define FS_REMOVE_FILE    (1ull << 5)
#define FS_CHANGES_V1     (0x1ff0ull | FS_EXECUTE | FS_WRITE) /* bits 4 to 12: remove and make */
#define FS_REFER_V2       (1ull << 13)
#define FS_TRUNCATE_V3    (1ull << 14)
#define NET_BIND_V4       1ull
#define RULE_PATH_BENEATH 1
#define VERSION_FLAG      1u

struct ruleset_attr {
	uint64_t fs, net;
};

struct path_beneath_attr {
	uint64_t allowed;
	int32_t parent_fd;
} __attribute__((packed));

int confine_find_user(const char *name, struct confine_user *ret, struct err *err)
{
	const struct passwd *pw = getpwnam(name);
	char *end;

	if (!pw && *name >= '0' && *name <= '9') {
		unsigned long n = strtoul(name, &end, 10);

		pw = *end || n >= UINT32_MAX ? NULL : getpwuid((uid_t)n);
	}
	if (!pw)
		return err_set(err, ENOENT, "'%s' is not a user of this host", name);
	*ret = (struct confine_user){true, pw->pw_uid, pw->pw_gid, xstrdup(pw->pw_name)};
	return 0;
}

static int become(const struct confine_user *user, struct err *err)
{
	if (!user->given || user->uid == geteuid())
		return 0;
	if (geteuid() != 0)
		return err_set(err, EPERM, "only root can run as '%s'", user->name);
	/* Capabilities stay over the change, and are cut down next. */
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || initgroups(user->name, user->gid) < 0 ||
	    setresgid(user->gid, user->gid, user->gid) < 0 ||
	    setresuid(user->uid, user->uid, user->uid) < 0)
		return err_sys(err, errno, "cannot become '%s'", user->name);
	return 0;
}

/* Whoever has none has nothing to give up. */
static int keep_reading_only(struct err *err)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
	uint32_t kept;

	if (syscall(SYS_capget, &head, data) < 0)
		return err_sys(err, errno, "cannot read our capabilities");
	kept = data[0].permitted & (1u << KEPT_CAP);
	for (unsigned long cap = 0; cap <= CAPS_MAX; cap++) {
		if (cap != KEPT_CAP)
			(void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	}
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	data[0] = (struct __user_cap_data_struct){.effective = kept, .permitted = kept};
	data[1] = (struct __user_cap_data_struct){0};
	if (syscall(SYS_capset, &head, data) < 0)
		return err_sys(err, errno, "cannot give up capabilities");
	return 0;
}

static uint64_t fs_rights(long version)
{
	uint64_t rights = FS_CHANGES_V1;

	if (version >= 2)
		rights |= FS_REFER_V2;
	if (version >= 3)
		rights |= FS_TRUNCATE_V3;
	return rights;
}

static int restrict_files(const char *run, struct err *err)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, VERSION_FLAG);
	struct ruleset_attr attr = {.fs = fs_rights(version), .net = NET_BIND_V4};
	struct path_beneath_attr removable = {.allowed = FS_REMOVE_FILE};
	AUTO_FD int fd = -1, folder = -1;

	if (version < 0) {
		log_info("no Landlock in this kernel: files are protected by permissions alone");
		return 0;
	}
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr,
			  version >= 4 ? sizeof(attr) : sizeof(attr.fs), 0);
	folder = open(run, O_PATH | O_DIRECTORY | O_CLOEXEC);
	removable.parent_fd = folder;
	if (fd < 0 || folder < 0 ||
	    syscall(SYS_landlock_add_rule, fd, RULE_PATH_BENEATH, &removable, 0) < 0 ||
	    syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return err_sys(err, errno, "cannot forbid writing (Landlock version %ld)", version);
	return 0;
}

/*
 * What nobody who only reads has to ask of the kernel. A list of what is forbidden, as what the C
 * library needs to look up a user's name is not ours to know.
 */
static const uint32_t forbidden[] = {
	SYS_execve,
	SYS_execveat,
#ifndef LEAKS_CHECKED
	SYS_ptrace,
#ifdef SYS_fork
	SYS_fork,
	SYS_vfork,
#endif
#endif
	SYS_process_vm_readv,
	SYS_process_vm_writev,
	SYS_mount,
	SYS_umount2,
	SYS_pivot_root,
	SYS_chroot,
	SYS_unshare,
	SYS_setns,
	SYS_init_module,
	SYS_finit_module,
	SYS_delete_module,
	SYS_kexec_load,
	SYS_reboot,
	SYS_swapon,
	SYS_swapoff,
	SYS_sethostname,
	SYS_settimeofday,
	SYS_clock_settime,
	SYS_adjtimex,
	SYS_bpf,
	SYS_perf_event_open,
	SYS_userfaultfd,
	SYS_add_key,
	SYS_request_key,
	SYS_keyctl,
	SYS_io_uring_setup,
	SYS_open_by_handle_at,
	SYS_name_to_handle_at,
	SYS_memfd_create,
	SYS_setuid,
	SYS_setgid,
	SYS_setresuid,
	SYS_setresgid,
	SYS_setgroups,
	SYS_capset,
	SYS_personality,
	SYS_acct,
	SYS_quotactl,
	SYS_mknodat,
	SYS_fchmodat,
	SYS_fchmod,
	SYS_fchownat,
	SYS_fchown,
	SYS_linkat,
	SYS_symlinkat,
	SYS_setxattr,
	SYS_fsetxattr,
#ifdef SYS_chmod
	SYS_chmod,
	SYS_chown,
	SYS_lchown,
	SYS_link,
	SYS_symlink,
	SYS_mknod,
#endif
};

#if defined(__x86_64__)
#define AUDIT_ARCH_OURS AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define AUDIT_ARCH_OURS AUDIT_ARCH_AARCH64
#endif
#define X32_BIT 0x40000000u

#ifdef AUDIT_ARCH_OURS
static int filter_calls(struct err *err)
{
	struct sock_filter code[ARRAY_SIZE(forbidden) + 8];
	struct sock_fprog program = {.filter = code};
	size_t n = 0, last = ARRAY_SIZE(forbidden);

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, arch));
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_OURS, 1, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	/* The other numbering of the same calls. */
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT,
						 (uint8_t)(last + 1), 0);
	for (size_t i = 0; i < last; i++)
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, forbidden[i],
							 (uint8_t)(last - i), 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	program.len = (unsigned short)n;
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0)
		return err_sys(err, errno, "cannot install the filter of system calls");
	return 0;
}
#else
static int filter_calls(struct err *err)
{
	return 0; /* no numbers for this machine */
}
#endif

int confine(const struct confine_user *user, const char *run, struct err *err)
{
	int r = become(user, err);

	if (r == 0)
		r = keep_reading_only(err);
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = err_sys(err, errno, "cannot refuse new privileges");
	if (r == 0)
		r = restrict_files(run, err);
	return r < 0 ? r : filter_calls(err);
}
