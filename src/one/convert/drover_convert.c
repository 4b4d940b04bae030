/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drover-convert: a VM of another manager as a definition, or as a payload of vmadm create. The
 * result goes to standard output, what could not be taken to standard error, a line each.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/status.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "base/uuid.h"
#include "model/model.h"
#include "model/props.h"
#include "model/vm.h"
#include "one/convert/convert.h"

#define BRIDGES_MAX 64

static const struct source {
	const char *name;
	int (*convert)(const char *text, size_t len, const struct convert_bridges *bridges,
		       json_t **ret, struct problems *notes, struct err *err);
	const char *doc;
} sources[] = {
	{"libvirt", convert_libvirt, "a domain as `virsh dumpxml --inactive` prints it"},
	{"smartos", convert_smartos, "an object as `vmadm get` prints it there"},
};

static int usage(FILE *out)
{
	(void)fprintf(out,
		      "usage: drover-convert [--json] [--bridge NETWORK=BRIDGE ...] KIND [FILE]\n"
		      "\n"
		      "Prints a definition for etc/vmstated/DIR/config, or with --json a payload\n"
		      "for vmadm create. What could not be taken is told on standard error.\n"
		      "\n");
	for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
		(void)fprintf(out, "  %-8s %s\n", sources[i].name, sources[i].doc);
	return out == stdout ? EXIT_OK : EXIT_USAGE;
}

static int fail(int code, const char *text)
{
	(void)fprintf(stderr, "drover-convert: %s\n", text);
	return code;
}

/* Standard input, bounded; the caller frees. */
static int read_input(char **ret, size_t *ret_len, struct err *err)
{
	AUTO_STRBUF struct strbuf sb = {0};
	ssize_t n;

	do {
		strbuf_reserve(&sb, 65536);
		n = read(STDIN_FILENO, sb.data + sb.len, 65536);
		if (n < 0)
			return err_sys(err, errno, "cannot read standard input");
		sb.len += (size_t)n;
	} while (n > 0 && sb.len <= CONVERT_MAX);
	if (n > 0)
		return err_set(err, E2BIG, "standard input has more than %u MiB",
			       CONVERT_MAX >> 20);
	*ret_len = sb.len;
	*ret = strbuf_steal(&sb);
	return 0;
}

static void print_problems(const struct problems *p, const char *what)
{
	for (size_t i = 0; i < p->count; i++) {
		AUTO_STRBUF struct strbuf line = {0}, safe = {0};

		problem_print(&line, &p->items[i]);
		strbuf_put_escaped(&safe, line.data);
		(void)fprintf(stderr, "%s: %s\n", what, safe.data);
	}
}

/* Tags, metadata and routes are no part of a definition. */
static void tell_maps(const json_t *payload)
{
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)payload, name, value) {
		const struct prop *row = prop_find(&vm_props, name, false);

		if (row && row->type == PROP_MAP && json_object_size(value) > 0)
			(void)fprintf(stderr,
				      "note: %s: not kept in a definition: use --json and vmadm "
				      "create\n",
				      name);
	}
}

/* The payload as vmadmd would judge it, and print it. */
static int finish(json_t *payload, bool json)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_VM struct vm *vm = NULL, *given = NULL;
	AUTO_FREE char *text = NULL;
	char uuid[UUID_LEN + 1];

	if (!json_object_get(payload, "uuid")) {
		uuid_random(uuid);
		json_put_str(payload, "uuid", uuid);
	}
	vm = vm_from_payload(payload, &p);
	if (!p.errors) {
		vm_finish(vm, NULL);
		vm_validate(vm, &p);
	}
	if (p.errors) {
		print_problems(&p, "wrong");
		return fail(EXIT_FAILED, "no definition was made");
	}
	if (!json)
		tell_maps(payload);
	/* What creation would add is no part of a definition. */
	given = vm_from_object(payload, NULL, &p);
	text = json ? json_pretty(payload) : vm_to_ucl(given);
	if (fprintf(stdout, "%s%s", text, json ? "\n" : "") < 0 || fflush(stdout) != 0)
		return fail(EXIT_FAILED, "cannot write to standard output");
	return EXIT_OK;
}

static bool add_bridge(struct convert_bridges *b, char *text)
{
	char *eq = strchr(text, '=');

	if (!eq || eq == text || !eq[1] || b->count == BRIDGES_MAX)
		return false;
	*eq = '\0';
	b->items[b->count++] = (struct convert_bridge){.network = text, .bridge = eq + 1};
	return true;
}

static int run(const struct source *source, const char *file, const struct convert_bridges *bridges,
	       bool json)
{
	AUTO_PROBLEMS struct problems notes = {0};
	AUTO_JSON json_t *payload = NULL;
	AUTO_FREE char *text = NULL;
	struct err err = {0};
	size_t len;
	int r;

	if (file && !str_eq(file, "-"))
		r = file_read(file, CONVERT_MAX, &text, &len, NULL, &err);
	else
		r = read_input(&text, &len, &err);
	if (r == 0)
		r = source->convert(text, len, bridges, &payload, &notes, &err);
	if (r < 0)
		return fail(EXIT_FAILED, err_text(&err, r));
	print_problems(&notes, "note");
	return finish(payload, json);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"bridge", required_argument, NULL, 'b'},
						{"json", no_argument, NULL, 'j'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	struct convert_bridge items[BRIDGES_MAX];
	struct convert_bridges bridges = {.items = items};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "hjb:", options, NULL)) != -1) {
		if (c == 'b' && !add_bridge(&bridges, optarg))
			return fail(EXIT_USAGE, "--bridge wants NETWORK=BRIDGE, at most 64 times");
		json |= c == 'j';
		if (c == 'h' || c == '?')
			return usage(c == 'h' ? stdout : stderr);
	}
	for (size_t i = 0; i < ARRAY_SIZE(sources) && argc - optind >= 1 && argc - optind <= 2; i++)
		if (str_eq(sources[i].name, argv[optind]))
			return run(&sources[i], argv[optind + 1], &bridges, json);
	return usage(stderr);
}
