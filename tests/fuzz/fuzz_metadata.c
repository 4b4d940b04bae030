/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what a guest sends to the metadata service. The first byte chooses how long the
 * pieces are; each request is served from one VM. Every line gets one answer, which is whole lines.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/vm.h"
#include "vmadmd/guest/metadata.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vm *make_vm(void)
{
	struct vm *vm = vm_new();

	vm->customer_metadata = json_pack("{s:s, s:i, s:b}", "key", "v\n.x", "n", 5, "b", 1);
	vm->internal_metadata = json_pack("{s:s, s:s}", "root_pw", "secret", "ns:x", "y");
	str_list_add(&vm->internal_metadata_namespaces, "ns");
	return vm;
}

static void serve(const struct vm *vm, struct metadata_request *r, struct strbuf *out)
{
	AUTO_JSON json_t *object = json_pack("{s:[{s:s}], s:s}", "nics", "mac", "m", "uuid", "u");
	AUTO_JSON json_t *payload = NULL;
	AUTO_STRBUF struct strbuf body = {0};
	enum metadata_code code = METADATA_FAILURE;
	struct err err = {0};

	if (r->command == METADATA_GET && r->key)
		code = metadata_get(vm, object, r->key, &body);
	else if (r->command == METADATA_KEYS)
		metadata_keys(vm, &body);
	else if ((r->command == METADATA_PUT || r->command == METADATA_DELETE) &&
		 metadata_payload(vm, r, &payload, &err) == 0 && json_object_size(payload) != 1)
		abort();
	metadata_answer(r, code, body.data, out);
	if (out->len == 0 || out->data[out->len - 1] != '\n')
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct metadata_in in = {0};
	struct metadata_request r;
	AUTO_VM struct vm *vm = make_vm();
	size_t piece = size > 0 ? 1 + data[0] * 16u : 1;

	for (size_t at = 1; at < size; at += piece) {
		metadata_feed(&in, data + at, size - at < piece ? size - at : piece);
		while (metadata_next(&in, &r)) {
			AUTO_STRBUF struct strbuf out = {0};

			serve(vm, &r, &out);
			metadata_request_done(&r);
		}
	}
	metadata_in_done(&in);
	return 0;
}
