/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups of guests, and what else is looked at before QEMU may have it. Groups are made
 * when the host has controllers for them; without, only a definition that asks for something is
 * refused. A limit changed while the guest runs is written by the worker: memory.max waits until
 * enough was reclaimed.
 */
#include "vmstated/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statfs.h>

#include "base/cpus.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "vmstated/limits.h"
#include "vmstated/parts.h"
#include "vmstated/worker.h"

#define BASE     "drover.slice"
#define TEXT_MAX 4096u
#define ONLINE   "/sys/devices/system/cpu/online"
#define HUGE     "/sys/kernel/mm/hugepages/hugepages-%ukB/%s_hugepages"

static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

static bool is_cgroup2(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

void cgroup_set_base(struct supervisor *sup, const char *dir)
{
	replace_str(&sup->cgroup, xstrdup(dir));
	sup->cgroup_given = dir != NULL;
	for (size_t i = 0; i < ARRAY_SIZE(mounts) && !sup->cgroup; i++) {
		if (is_cgroup2(mounts[i]))
			sup->cgroup = path_join(mounts[i], BASE);
	}
}

static char *group_of(const struct guest *g)
{
	return g->sup->cgroup ? path_join(g->sup->cgroup, g->uuid) : NULL;
}

static int put(const char *dir, const char *file, const char *value)
{
	AUTO_FREE char *path = path_join(dir, file);
	AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	return fd < 0 ? -errno : fd_write_all(fd, value, strlen(value));
}

/* The controllers a folder's groups may have, as one line; "" when there are none. */
static char *controllers_of(const char *dir)
{
	AUTO_FREE char *path = path_join(dir, "cgroup.controllers");
	char *text = NULL;

	if (file_read(path, TEXT_MAX, &text, NULL, NULL, NULL) < 0)
		return xstrdup("");
	text[strcspn(text, "\n")] = '\0';
	return text;
}

static bool has_word(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = words; (at = strstr(at, word)) != NULL; at += len) {
		if ((at == words || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0'))
			return true;
	}
	return false;
}

/* Hand every controller we use down from dir; those it has not are missed later, by name. */
static void hand_down(const char *dir, const struct limit *list)
{
	AUTO_FREE char *there = controllers_of(dir);

	for (size_t i = 0; i < LIMITS_MAX; i++) {
		AUTO_FREE char *word = xasprintf("+%s", list[i].controller);

		if ((i == 0 || strcmp(list[i].controller, list[i - 1].controller) != 0) &&
		    has_word(there, list[i].controller))
			(void)put(dir, "cgroup.subtree_control", word);
	}
}

/* The folder of the groups, with all controllers there are. *ret: what its groups can limit. */
static int open_base(const struct supervisor *sup, const struct limit *list, char **ret,
		     struct err *err)
{
	AUTO_FREE char *above = NULL;
	int r;

	if (!sup->cgroup)
		return err_set(err, ENOTSUP, "this host has no cgroup v2 hierarchy");
	above = xstrndup(sup->cgroup, (size_t)(strrchr(sup->cgroup, '/') - sup->cgroup));
	if (!sup->cgroup_given) {
		AUTO_FREE char *there = controllers_of(above);

		if (!*there) {
			*ret = steal_ptr(there);
			return 0;
		}
		hand_down(above, list);
	}
	r = dir_make(sup->cgroup, 0755, err);
	if (r < 0)
		return r;
	hand_down(sup->cgroup, list);
	*ret = controllers_of(sup->cgroup);
	return 0;
}

static bool wants_any(const struct limit *list)
{
	bool any = false;

	for (size_t i = 0; i < LIMITS_MAX; i++)
		any = any || list[i].wanted;
	return any;
}

static int missing(const struct supervisor *sup, const struct limit *list, const char *there,
		   struct err *err)
{
	for (size_t i = 0; i < LIMITS_MAX; i++) {
		if (list[i].wanted && !has_word(there, list[i].controller))
			return err_set(err, ENOTSUP,
				       "%s: the host's cgroup v2 hierarchy has no controller '%s' "
				       "for guests ('%s' below %s)",
				       list[i].property, list[i].controller, there, sup->cgroup);
	}
	return 0;
}

static int write_limits(const char *group, const struct limit *list, const char *there,
			struct err *err)
{
	for (size_t i = 0; i < LIMITS_MAX; i++) {
		int r = has_word(there, list[i].controller)
				? put(group, list[i].file, list[i].value)
				: 0;

		if (r < 0 && list[i].wanted)
			return err_sys(err, -r, "%s: cannot write '%s' to %s/%s", list[i].property,
				       list[i].value, group, list[i].file);
		if (r < 0)
			log_debug("%s/%s not written: %s", group, list[i].file, strerror(-r));
	}
	return 0;
}

/* --- CPUs and huge pages --- */

int cgroup_cpus(const struct vm *vm, cpu_set_t *ret, struct err *err)
{
	AUTO_FREE char *text = NULL;
	cpu_set_t online;
	int r = file_read(ONLINE, TEXT_MAX, &text, NULL, NULL, err);

	if (r < 0)
		return err_wrap(err, r, "cpu_affinity");
	text[strcspn(text, "\n")] = '\0';
	if (cpus_parse(text, &online) < 0 || cpus_parse(vm->cpu_affinity, ret) < 0)
		return err_set(err, EINVAL, "cpu_affinity: '%s' is not a list of CPUs",
			       vm->cpu_affinity);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, ret) && !CPU_ISSET(i, &online))
			return err_set(err, ENXIO,
				       "cpu_affinity: the host has no CPU %d (it has %s)", i, text);
	}
	return 0;
}

static int64_t huge_count(uint32_t mib, const char *which)
{
	AUTO_FREE char *path = xasprintf(HUGE, mib << 10, which);
	AUTO_FREE char *text = NULL;

	return file_read(path, TEXT_MAX, &text, NULL, NULL, NULL) < 0 ? -1
								      : strtoll(text, NULL, 10);
}

static int check_hugepages(const struct vm *vm, struct err *err)
{
	uint32_t mib = vm->hugepages_mib;
	int64_t free_pages = mib ? huge_count(mib, "free") : 0;
	int64_t promised = mib ? huge_count(mib, "resv") : 0;
	int64_t want = mib ? vm->ram_mib / mib : 0;

	if (free_pages < 0 || promised < 0)
		return err_set(err, ENOTSUP, "hugepages: this host has no huge pages of %u MiB",
			       mib);
	if (free_pages - promised < want)
		return err_set(err, ENOMEM,
			       "hugepages: %lld of %u MiB are needed, %lld are free (echo COUNT > "
			       "/sys/kernel/mm/hugepages/hugepages-%ukB/nr_hugepages)",
			       (long long)want, mib, (long long)(free_pages - promised), mib << 10);
	return 0;
}

/* --- for the rest of vmstated --- */

static int make_group(struct guest *g, const struct limit *list, const char *there,
		      char **ret_procs, struct err *err)
{
	AUTO_FREE char *group = group_of(g);
	int r;

	cgroup_release(g); /* counters begin anew */
	r = dir_make(group, 0755, err);
	if (r == 0)
		r = write_limits(group, list, there, err);
	if (r == 0)
		*ret_procs = path_join(group, "cgroup.procs");
	return r;
}

int cgroup_prepare(struct guest *g, char **ret_procs, struct err *err)
{
	struct limit list[LIMITS_MAX];
	AUTO_FREE char *there = NULL;
	struct err why = {0};
	int r = check_hugepages(g->started, err);

	if (r < 0)
		return r;
	limits_of(g->started, list);
	r = open_base(g->sup, list, &there, &why);
	if (r == 0)
		r = missing(g->sup, list, there, &why);
	if (r == 0 && *there)
		r = make_group(g, list, there, ret_procs, &why);
	if (r == 0)
		return 0;
	if (!wants_any(list)) { /* nobody asked for what cannot be had */
		log_debug("vm=%s runs without limits: %s", g->uuid, why.msg);
		return 0;
	}
	return err_set(err, -r, "limits: %s", why.msg);
}

static void changed(void *ctx, const struct child_exit *how, const char *out, const char *errors)
{
	if (errors[0])
		log_warn("limits not changed: %.300s", errors);
}

/* No group counts this: it is a limit of the process. */
static void change_locked(const struct guest *g)
{
	rlim_t bytes = (rlim_t)g->started->max_locked_memory_mib << 20;
	struct rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};

	if (prlimit(g->pid, RLIMIT_MEMLOCK, &limit, NULL) < 0)
		log_debug("vm=%s max_locked_memory: %s", g->uuid, strerror(errno));
}

void cgroup_change(struct guest *g)
{
	AUTO_FREE char *group = group_of(g);
	AUTO_JSON json_t *plan = NULL;
	AUTO_FREE char *there = NULL;
	struct limit list[LIMITS_MAX];
	struct err err = {0};
	json_t *files;

	if (g->pid <= 0 || !g->started)
		return;
	change_locked(g);
	if (!group || !file_exists(group))
		return;
	there = controllers_of(g->sup->cgroup);
	limits_of(g->started, list);
	files = json_array();
	plan = json_pack("{s:o}", "write", files);
	for (size_t i = 0; i < LIMITS_MAX; i++) {
		AUTO_FREE char *path = path_join(group, list[i].file);

		if (has_word(there, list[i].controller) && file_exists(path))
			(void)json_array_append_new(files, json_pack("{s:s, s:s}", "path", path,
								     "value", list[i].value));
	}
	if (worker_run(g->sup->event, plan, -1, changed, NULL, NULL, &err) < 0)
		log_warn("vm=%s limits not changed: %s", g->uuid, err.msg);
}

void cgroup_release(struct guest *g)
{
	AUTO_FREE char *group = group_of(g);

	/* A group refuses with EBUSY; only a plain folder in its place can be not empty. */
	if (group && rmdir(group) < 0 && errno == ENOTEMPTY)
		(void)dir_remove_tree(group, NULL);
}

void cgroup_sweep(struct supervisor *sup)
{
	for (struct guest *g = sup->guests; g; g = g->next) {
		if (g->pid <= 0 && g->settled)
			cgroup_release(g);
	}
}
