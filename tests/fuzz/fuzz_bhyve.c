/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as a bhyve_config file. Loading either gives hardware or at least one error, never
 * both; what loads gives a vector whose JSON parses and loads the same again
 * from its merged text.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/vm.h"
#include "qemu/argv.h"
#include "qemu/bhyve.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A broken promise, told before the abort that the fuzzer catches. */
static void require(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "broken: %s\n", what);
	abort();
}

static void check_findings(const struct problems *p)
{
	bool warned = false;

	for (size_t i = 0; i < p->count; i++) {
		require(!warned || p->items[i].kind == PROBLEM_WARNING, "errors first");
		warned = p->items[i].kind == PROBLEM_WARNING;
		require(p->items[i].where[0] && p->items[i].text[0], "where and what");
	}
}

static void check_vector(const struct argv *argv)
{
	for (size_t i = 0; i < argv->count; i++) {
		const char *text = argv->items[i];
		json_t *j;

		if (text[0] != '{')
			continue;
		require(json_parse_object(text, strlen(text), "argument", &j, NULL) == 0, "JSON");
		json_decref(j);
	}
}

static void use(const struct bhyve *b, const struct vm *vm)
{
	struct qemu_caps caps = {.binary = (char[]){"qemu"}, .machine = (char[]){"q35"}};
	struct qemu_fds fds = {
		.mon = 3, .qmp = -1, .ttya = 4, .ttyb = -1, .agent = -1, .lock = -1, .taps = {5}};
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *merged = bhyve_generated(b);
	struct bhyve *again = NULL;
	struct argv argv = {0};
	struct err err = {0};

	if (bhyve_argv(b, vm, &caps, &fds, &argv, &err) < 0)
		require(false, err.msg);
	check_vector(&argv);
	argv_done(&argv);
	require(bhyve_info(b)->vcpus > 0 && bhyve_info(b)->ram_mib >= 16, "processors, memory");
	require(bhyve_load_text("/again", merged, vm, &again, &p) == 0, "loads again");
	bhyve_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_FREE char *text = xstrndup((const char *)data, size);
	char uuid[] = "5c9f4c4e-9d3a-4a70-9d8e-2f0c7b4d1a11", name[] = "fuzz";
	struct vm vm = {.uuid = uuid, .name = size % 2 ? name : NULL};
	struct bhyve *b = NULL;
	int r = bhyve_load_text("/f", text, &vm, &b, &p);

	require((r == 0) == (b != NULL) && (r < 0) == (p.errors > 0), "hardware or errors");
	check_findings(&p);
	if (b)
		use(b, &vm);
	bhyve_free(b);
	return 0;
}
