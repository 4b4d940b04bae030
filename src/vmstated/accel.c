/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the installed QEMU can do and whether KVM is worth using: asked once per boot and binary,
 * by children with deadlines, kept in a file. Starts wait for the answer, nothing else does.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/accel.h"
#include "store/write.h"
#include "vmstated/parts.h"

#define QEMU_NAME  "qemu-system-x86_64"
#define PROBE_ARG  "--probe-accelerator"
#define ASK_MS     30000u /* a busy host takes its time to load QEMU */
#define OUTPUT_MAX 65536u

struct waiting {
	void (*fn)(void *ctx);
	void *ctx;
	struct waiting *next;
};

struct accel_state {
	char *binary;
	struct stat st; /* of the binary when it was asked */
	bool asking;
	bool silent; /* it was asked and has not answered in time */
	int left;    /* children under way */
	char *version_out, *machine_out;
	double ns_per_loop; /* 0: not measured */
	char text[200];
	struct waiting *waiting;
};

const char *accel_text(const struct supervisor *sup)
{
	return sup->accel && sup->accel->text[0] ? sup->accel->text : "not probed yet";
}

json_t *accel_object(const struct supervisor *sup)
{
	const struct qemu_caps *caps = &sup->caps;
	json_t *j =
		json_pack("{s:s, s:s}", "kind", caps->kvm ? "kvm" : "tcg", "text", accel_text(sup));
	AUTO_FREE char *version = NULL;

	if (sup->caps_known)
		version = xasprintf("%d.%d.%d", caps->major, caps->minor, caps->micro);
	json_put_bool(j, "asking", sup->accel->asking);
	json_put_str(j, "qemu", version);
	json_put_str(j, "error", sup->caps_known || !sup->caps_error[0] ? NULL : sup->caps_error);
	return j;
}

/* "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\n...": from the number on, one line. */
static char *version_text(const struct accel_state *a)
{
	static const char head[] = "QEMU emulator version ";
	const char *at = a->version_out ? strstr(a->version_out, head) : NULL;

	return at ? xstrndup(at + strlen(head), strcspn(at + strlen(head), "\n")) : NULL;
}

json_t *accel_installed(const struct supervisor *sup)
{
	const struct accel_state *a = sup->accel;
	AUTO_FREE char *version = version_text(a);

	if (!sup->caps_known || !version)
		return NULL;
	return json_pack("{s:s, s:s, s:I, s:I}", "version", version, "binary", a->binary, "mtime",
			 (json_int_t)a->st.st_mtime, "inode", (json_int_t)a->st.st_ino);
}

int accel_probe_main(void)
{
	struct err err = {0};
	double ns = 0;
	int r = accel_measure(&ns, &err);

	if (r < 0) {
		(void)fprintf(stderr, "%s\n", err_text(&err, r));
		return 1;
	}
	(void)printf("%.2f\n", ns);
	return 0;
}

static char *find_binary(void)
{
	const char *named = getenv("DROVER_QEMU"), *path = getenv("PATH");
	AUTO_FREE char *copy = NULL;
	char *save = NULL;

	if (named)
		return xstrdup(named);
	copy = xstrdup(path ? path : "/usr/local/bin:/usr/bin:/bin");
	for (char *dir = strtok_r(copy, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
		char *full = path_join(dir, QEMU_NAME);

		if (access(full, X_OK) == 0)
			return full;
		free(full);
	}
	return NULL;
}

static char *cache_path(const struct supervisor *sup)
{
	return path_join(sup->paths.run, "accelerator.state");
}

static void tell_waiting(struct supervisor *sup)
{
	struct waiting *w = steal_ptr(sup->accel->waiting);

	while (w) {
		struct waiting *next = w->next;

		w->fn(w->ctx);
		free(w);
		w = next;
	}
}

static void judge_speed(struct supervisor *sup)
{
	struct accel_state *a = sup->accel;

	sup->caps.kvm = a->ns_per_loop > 0 && a->ns_per_loop < ACCEL_NS_PER_LOOP;
	if (a->ns_per_loop > 0)
		(void)snprintf(a->text, sizeof(a->text),
			       "%s: a loop takes %.1f ns under KVM (usable below %.0f ns)",
			       sup->caps.kvm ? "kvm" : "tcg", a->ns_per_loop, ACCEL_NS_PER_LOOP);
	log_info("accelerator %s", a->text);
}

static void learned(struct supervisor *sup)
{
	struct accel_state *a = sup->accel;
	AUTO_FREE char *path = cache_path(sup);
	AUTO_JSON json_t *j = NULL;
	struct err err = {0};
	int r;

	a->asking = false;
	qemu_caps_done(&sup->caps);
	if (a->silent)
		r = err_set(&err, ETIMEDOUT,
			    "'%s' did not tell what it is within %u s; the next start asks again",
			    a->binary, ASK_MS / 1000);
	else
		r = qemu_caps_parse(a->binary, a->version_out ? a->version_out : "",
				    a->machine_out ? a->machine_out : "", &sup->caps, &err);
	sup->caps_known = r == 0;
	if (r < 0) {
		(void)snprintf(sup->caps_error, sizeof(sup->caps_error), "%.255s", err.msg);
		log_error("%s", err.msg);
	}
	judge_speed(sup);
	j = json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:f, s:s}", "boot_id", sup->boot_id, "binary",
		      a->binary, "mtime", (json_int_t)a->st.st_mtime, "inode",
		      (json_int_t)a->st.st_ino, "version", a->version_out ? a->version_out : "",
		      "machines", a->machine_out ? a->machine_out : "", "ns", a->ns_per_loop,
		      "text", a->text);
	if (r == 0 && j)
		(void)state_write(path, 1, j, FILE_NO_SYNC, NULL);
	tell_waiting(sup);
}

static void one_less(struct supervisor *sup)
{
	if (--sup->accel->left == 0)
		learned(sup);
}

static void version_known(void *ctx, const struct child_exit *how, const char *out, const char *e)
{
	struct supervisor *sup = ctx;

	sup->accel->silent |= how->timed_out;
	replace_str(&sup->accel->version_out, xstrdup(out));
	one_less(sup);
}

static void machines_known(void *ctx, const struct child_exit *how, const char *out, const char *e)
{
	struct supervisor *sup = ctx;

	sup->accel->silent |= how->timed_out;
	replace_str(&sup->accel->machine_out, xstrdup(out));
	one_less(sup);
}

static void speed_known(void *ctx, const struct child_exit *how, const char *out, const char *e)
{
	struct supervisor *sup = ctx;
	struct accel_state *a = sup->accel;

	a->ns_per_loop = how->timed_out ? 0 : strtod(out, NULL);
	if (how->timed_out)
		(void)snprintf(a->text, sizeof(a->text), "tcg: KVM did nothing within %d ms",
			       ACCEL_PROBE_MS);
	else if (a->ns_per_loop <= 0)
		(void)snprintf(a->text, sizeof(a->text), "tcg: %.*s", (int)strcspn(e, "\n"), e);
	one_less(sup);
}

static void ask(struct supervisor *sup, const char *program, const char *const *args,
		uint64_t timeout_ms, run_done done)
{
	const char *argv[4] = {program, args[0], args[1], NULL};
	struct child_spec spec = {
		.argv = argv, .in = -1, .out = -1, .errfd = -1, .timeout_ms = timeout_ms};
	struct child_exit failed = {0};
	struct child *child;
	struct err err = {0};

	sup->accel->left++;
	if (child_run(sup->event, &spec, OUTPUT_MAX, done, sup, &child, &err) < 0)
		done(sup, &failed, "", err.msg);
}

static void start_asking(struct supervisor *sup)
{
	struct accel_state *a = sup->accel;

	a->asking = true;
	a->silent = false;
	a->left = 1; /* ours: nothing is finished before all were started */
	ask(sup, a->binary, (const char *const[]){"--version", NULL}, ASK_MS, version_known);
	ask(sup, a->binary, (const char *const[]){"-machine", "help"}, ASK_MS, machines_known);
	ask(sup, "/proc/self/exe", (const char *const[]){PROBE_ARG, NULL}, ACCEL_PROBE_MS,
	    speed_known);
	one_less(sup);
}

static bool load_cache(struct supervisor *sup)
{
	struct accel_state *a = sup->accel;
	AUTO_FREE char *path = cache_path(sup);
	AUTO_JSON json_t *j = NULL;

	if (state_read(path, 1, &j, NULL) < 0)
		return false;
	if (!str_eq(json_get_str(j, "boot_id", ""), sup->boot_id) ||
	    !str_eq(json_get_str(j, "binary", ""), a->binary) ||
	    json_get_int(j, "mtime", 0) != a->st.st_mtime ||
	    json_get_int(j, "inode", 0) != (json_int_t)a->st.st_ino)
		return false;
	if (qemu_caps_parse(a->binary, json_get_str(j, "version", ""),
			    json_get_str(j, "machines", ""), &sup->caps, NULL) < 0)
		return false;
	replace_str(&a->version_out, xstrdup(json_get_str(j, "version", "")));
	a->ns_per_loop = json_real_value(json_object_get(j, "ns"));
	(void)snprintf(a->text, sizeof(a->text), "%s", json_get_str(j, "text", ""));
	judge_speed(sup);
	sup->caps_known = true;
	return true;
}

/* Ask again when the binary was replaced, so that an upgrade counts at the next start. */
static bool up_to_date(struct supervisor *sup)
{
	struct accel_state *a = sup->accel;
	struct stat st;
	bool same;

	if (!a->binary)
		a->binary = find_binary();
	if (!a->binary || stat(a->binary, &st) < 0) {
		sup->caps_known = false;
		(void)snprintf(sup->caps_error, sizeof(sup->caps_error),
			       "'%s' is not installed (Debian: apt-get install qemu-system-x86)",
			       a->binary ? a->binary : QEMU_NAME);
		replace_str(&a->binary, NULL);
		return true;
	}
	same = sup->caps_known && st.st_mtime == a->st.st_mtime && st.st_ino == a->st.st_ino;
	a->st = st;
	return same;
}

void accel_when_known(struct supervisor *sup, void (*fn)(void *ctx), void *ctx)
{
	struct waiting *w;

	if (!sup->accel->asking && (up_to_date(sup) || load_cache(sup))) {
		fn(ctx);
		return;
	}
	w = xcalloc(1, sizeof(*w));
	*w = (struct waiting){.fn = fn, .ctx = ctx, .next = sup->accel->waiting};
	sup->accel->waiting = w;
	if (!sup->accel->asking)
		start_asking(sup);
}

void accel_forget(struct supervisor *sup, void *ctx)
{
	struct waiting **at = sup->accel ? &sup->accel->waiting : NULL;

	while (at && *at) {
		struct waiting *w = *at;

		if (w->ctx == ctx) {
			*at = w->next;
			free(w);
		} else {
			at = &w->next;
		}
	}
}

static void nothing(void *ctx)
{
	(void)ctx;
}

int accel_start(struct supervisor *sup, struct err *err)
{
	sup->accel = xcalloc(1, sizeof(*sup->accel));
	accel_when_known(sup, nothing, NULL);
	return 0;
}

void accel_free(struct supervisor *sup)
{
	struct accel_state *a = sup->accel;

	if (!a)
		return;
	while (a->waiting) {
		struct waiting *next = a->waiting->next;

		free(a->waiting);
		a->waiting = next;
	}
	free(a->binary);
	free(a->version_out);
	free(a->machine_out);
	free(a);
	sup->accel = NULL;
	qemu_caps_done(&sup->caps);
}
