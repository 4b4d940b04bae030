/* SPDX-License-Identifier: Apache-2.0 */
/* A route table as the Markdown table of a contract page; tests/docs keeps the pages current. */
#include "net/http.h"

void http_routes_print(FILE *out, const struct http_route *routes, size_t count)
{
	(void)fputs("| method | path | over TCP | what |\n| --- | --- | --- | --- |\n", out);
	for (size_t i = 0; i < count; i++)
		(void)fprintf(out, "| %s | `%s` | %s | %s |\n", routes[i].method, routes[i].pattern,
			      routes[i].tcp ? "yes" : "no", routes[i].doc);
}
