/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of CPUs; see cpus.h. */
#include "base/cpus.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

static int number(const char **at, unsigned long *ret)
{
	char *end;

	if (!isdigit((unsigned char)**at))
		return -EINVAL;
	*ret = strtoul(*at, &end, 10);
	*at = end;
	return *ret < CPU_SETSIZE ? 0 : -EINVAL;
}

int cpus_parse(const char *text, cpu_set_t *ret)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (;; text++) {
		unsigned long first, last;

		if (number(&text, &first) < 0)
			return -EINVAL;
		last = first;
		if (*text == '-') {
			text++;
			if (number(&text, &last) < 0 || last < first)
				return -EINVAL;
		}
		for (; first <= last; first++)
			CPU_SET(first, &set);
		if (*text != ',')
			break;
	}
	if (*text != '\0' && *text != '\n')
		return -EINVAL;
	*ret = set;
	return 0;
}
