/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest boots: the order of `boot` as boot indices of the devices (the only thing UEFI
 * firmware reads), a firmware image with its variables, or a kernel given directly.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/argv_private.h"

#define ORDER_DEFAULT "cd" /* Source: smartos facts, `boot` */

/* --- order --- */

struct boot {
	char *order, *once;
	bool menu;
};

static int bad_boot(struct build *b)
{
	return err_set(b->err, EINVAL,
		       "boot: '%s' is not understood (want order=LETTERS, once=LETTERS, menu=on; "
		       "c disks, d CD drives, n NICs)",
		       b->vm->boot);
}

/* One "key=value" out of word; a bare value is the order, as QEMU takes it too. */
static int take_boot_word(struct build *b, const char *word, struct boot *boot)
{
	const char *eq = strchr(word, '=');
	const char *value = eq ? eq + 1 : word;

	if (str_eq(word, "menu=on") || str_eq(word, "menu=off")) {
		boot->menu = str_eq(value, "on");
		return 0;
	}
	if (!*value || value[strspn(value, "cdn")])
		return bad_boot(b);
	if (!eq || str_starts(word, "order="))
		replace_str(&boot->order, xstrdup(value));
	else if (str_starts(word, "once="))
		replace_str(&boot->once, xstrdup(value));
	else
		return bad_boot(b);
	return 0;
}

static int parse_boot(struct build *b, struct boot *boot)
{
	const char *p = b->vm->boot ? b->vm->boot : "";
	int r = 0;

	boot->order = xstrdup(ORDER_DEFAULT);
	while (*p && r == 0) {
		size_t len = strcspn(p, ",");
		AUTO_FREE char *word = xstrndup(p, len);

		r = take_boot_word(b, word, boot);
		p += len + (p[len] == ',');
	}
	return r;
}

/* first: only those marked (boot, primary), then only the others. */
static void index_disks(struct build *b, enum disk_media media, bool marked, int *next)
{
	for (size_t i = 0; i < b->vm->ndisks; i++)
		if (b->vm->disks[i]->media == media && b->vm->disks[i]->boot == marked)
			b->boot_disk[i] = (*next)++;
}

static void index_nics(struct build *b, bool marked, int *next)
{
	for (size_t i = 0; i < b->vm->nnics; i++)
		if (b->vm->nics[i]->primary == marked)
			b->boot_nic[i] = (*next)++;
}

/* From 1: 0 is QEMU's own for a kernel given directly. A letter twice counts once. */
static void give_indices(struct build *b, const char *order)
{
	int next = 1;

	for (const char *p = order; *p; p++) {
		if (memchr(order, *p, (size_t)(p - order)))
			continue;
		for (int marked = 1; marked >= 0; marked--) {
			if (*p == 'n')
				index_nics(b, marked, &next);
			else
				index_disks(b, *p == 'd' ? MEDIA_CDROM : MEDIA_DISK, marked, &next);
		}
	}
}

/*
 * once= exists for the legacy order only, which BIOS reads when no device has an index; so it does
 * nothing under UEFI firmware.
 */
static void put_boot(struct build *b, const struct boot *boot)
{
	if (!boot->once)
		give_indices(b, boot->order);
	b->net_boot = strchr(boot->order, 'n') || (boot->once && strchr(boot->once, 'n'));
	if (!boot->once && !boot->menu)
		return;
	argv_add(b->out, "-boot");
	if (boot->once)
		argv_add(b->out, "order=%s,once=%s%s", boot->order, boot->once,
			 boot->menu ? ",menu=on" : "");
	else
		argv_add(b->out, "menu=on");
}

/* --- kernel --- */

static int kernel(struct build *b)
{
	const struct vm *vm = b->vm;
	const struct {
		const char *option, *value, *name;
	} parts[] = {
		{"-kernel", vm->kernel, "kernel"},
		{"-initrd", vm->initrd, "initrd"},
		{"-append", vm->cmdline, "cmdline"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!parts[i].value || !parts[i].value[0])
			continue;
		if (!vm->kernel || !vm->kernel[0])
			return err_set(b->err, EINVAL, "%s: given without kernel", parts[i].name);
		argv_add(b->out, "%s", parts[i].option);
		argv_add(b->out, "%s", parts[i].value);
	}
	return 0;
}

int argv_boot(struct build *b)
{
	struct boot boot = {0};
	int r = parse_boot(b, &boot);

	if (r == 0) {
		put_boot(b, &boot);
		r = kernel(b);
	}
	free(boot.order);
	free(boot.once);
	return r;
}

/* --- firmware --- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

bool argv_secure(const struct vm *vm)
{
	const char *name = vm->bootrom ? base_name(vm->bootrom) : "";

	return strstr(name, ".secboot.") || strstr(name, ".ms.") || strstr(name, ".snakeoil.");
}

char *qemu_vars_template(const char *bootrom)
{
	static const char code[] = "CODE", secboot[] = ".secboot";
	const char *name = base_name(bootrom), *at = strstr(name, code), *rest, *cut;

	if (!at)
		return NULL;
	rest = at + strlen(code);
	cut = strstr(rest, secboot); /* such code runs with the plain, unenrolled variables */
	return xasprintf("%.*sVARS%.*s%s", (int)(at - bootrom), bootrom,
			 cut ? (int)(cut - rest) : (int)strlen(rest), rest,
			 cut ? cut + strlen(secboot) : "");
}

static void flash(struct build *b, const char *node, const char *path, bool readonly)
{
	json_t *file = json_object(), *j = json_object();

	json_put_str(file, "driver", "file");
	json_put_str(file, "filename", path);
	json_put_str(j, "driver", str_ends(path, ".qcow2") ? "qcow2" : "raw");
	json_put_str(j, "node-name", node);
	json_put_bool(j, "read-only", readonly);
	(void)json_object_set_new(j, "file", file);
	argv_json(b, "-blockdev", j);
}

int argv_firmware(struct build *b)
{
	const char *rom = b->vm->bootrom;

	if (!rom)
		return 0;
	if (strstr(base_name(rom), "BHYVE"))
		return err_set(b->err, EINVAL,
			       "bootrom: '%s' is a bhyve firmware (want an OVMF image)", rom);
	flash(b, "pflash0", rom, true);
	if (b->fds->vars)
		flash(b, "pflash1", b->fds->vars, false);
	if (argv_secure(b->vm)) {
		argv_add(b->out, "-global");
		argv_add(b->out, "driver=cfi.pflash01,property=secure,value=on");
	}
	return 0;
}
