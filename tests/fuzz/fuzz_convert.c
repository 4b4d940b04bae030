/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the VM of another manager: what begins with '<' is a domain of libvirt, all else an
 * object of SmartOS. What is taken is a payload that can be judged and, when it is right, a
 * definition.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/problems.h"
#include "base/strbuf.h"
#include "model/model.h"
#include "model/vm.h"
#include "one/convert/convert.h"

#define UUID "5c9f4c4e-9d3a-4a70-9d8e-2f0c7b4d1a11"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(json_t *payload)
{
	AUTO_PROBLEMS struct problems p = {0};
	AUTO_VM struct vm *vm = NULL, *given = NULL;
	AUTO_FREE char *text = NULL;

	if (!json_object_get(payload, "uuid"))
		json_put_str(payload, "uuid", UUID);
	vm = vm_from_payload(payload, &p);
	if (p.errors)
		return;
	vm_finish(vm, NULL);
	vm_validate(vm, &p);
	if (p.errors)
		return;
	given = vm_from_object(payload, NULL, &p);
	text = vm_to_ucl(given);
	if (!text || !*text)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct convert_bridge bridge = {"default", "br0"};
	const struct convert_bridges bridges = {&bridge, 1};
	AUTO_FREE char *text = xstrndup((const char *)data, size);
	AUTO_PROBLEMS struct problems notes = {0};
	AUTO_JSON json_t *payload = NULL;
	struct err err = {0};
	size_t len = strlen(text);
	int r = (*text == '<' ? convert_libvirt : convert_smartos)(text, len, &bridges, &payload,
								   &notes, &err);

	if (r < 0 && (payload || !err.msg[0] || r != -err.code))
		abort();
	if (r == 0)
		judge(payload);
	return 0;
}
