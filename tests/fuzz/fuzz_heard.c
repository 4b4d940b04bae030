/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a frame on a guest's wire; the first says which way it goes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "vmstated/heard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t mac[6] = {0x52, 0x54, 0, 0, 0, 0xaa};
	struct heard out[HEARD_MAX];
	size_t count;

	if (size == 0)
		return 0;
	count = heard_in(data + 1, size - 1, mac, data[0] & 1, out);
	if (count > HEARD_MAX)
		abort();
	for (size_t i = 0; i < count; i++) {
		if (out[i].prefix != (out[i].v6 ? out[i].prefix == 64 ? 64 : 128 : 32))
			abort();
	}
	return 0;
}
