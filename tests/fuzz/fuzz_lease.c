/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a lease file, read twice: what is known of it is ordered, and found by its MAC. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "vmadmd/guest/lease.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *text = xstrndup((const char *)data, size);
	struct leases l = {0}, again = {0};

	(void)leases_read(&l, text, 1700000000000);
	leases_settle(&l, &again, 1);
	(void)leases_read(&again, text, 1700000000000);
	leases_settle(&again, &l, 2);
	if (l.count != again.count)
		abort();
	for (size_t i = 0; i < l.count; i++) {
		size_t count;
		const struct lease *found = leases_of(&again, l.items[i].mac, &count);

		if (!found || count == 0 || again.items[i].since_ms != 1 ||
		    strcmp(l.items[i].ip, again.items[i].ip) != 0)
			abort();
	}
	leases_done(&l);
	leases_done(&again);
	return 0;
}
