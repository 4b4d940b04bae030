/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text work of requests: normal paths, route patterns, escapes, arguments, Host. Pure
 * functions. Source of the path rules: node's url and path modules as the original uses them.
 */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "net/http_private.h"

static const char *skip_authority(const char *target, const char *end)
{
	const char *p = target;

	if (p < end && *p == '/')
		return p;
	p = memmem(target, (size_t)(end - target), "://", 3);
	if (!p)
		return target;
	p = memchr(p + 3, '/', (size_t)(end - p - 3));
	return p ? p : end;
}

char *http_path_normal(const char *target, size_t len)
{
	const char *end = target + len, *p = skip_authority(target, end);
	struct strbuf sb = {0};

	while (p < end) {
		const char *slash = memchr(p, '/', (size_t)(end - p));
		size_t n = (size_t)((slash ? slash : end) - p);

		if (n == 2 && memcmp(p, "..", 2) == 0) {
			const char *last = sb.len ? memrchr(sb.data, '/', sb.len) : NULL;

			if (last)
				sb.len = (size_t)(last - sb.data); /* one part back */
		} else if (n > 0 && !(n == 1 && *p == '.')) {
			strbuf_putc(&sb, '/');
			strbuf_add(&sb, p, n);
		}
		p += n + 1;
	}
	if (sb.len == 0)
		strbuf_putc(&sb, '/');
	return strbuf_steal(&sb);
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *http_decode(const char *text, size_t len, bool form)
{
	char *out = xmalloc(len + 1);
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		int high = text[i] == '%' && i + 2 < len ? hex(text[i + 1]) : -1;
		int low = high >= 0 ? hex(text[i + 2]) : -1;

		if (low >= 0 && high * 16 + low != 0) {
			out[n++] = (char)(high * 16 + low);
			i += 2;
		} else {
			out[n++] = form && text[i] == '+' ? ' ' : text[i];
		}
	}
	out[n] = '\0';
	return out;
}

void http_parse_args(const char *text, size_t len, struct http_arg **args, size_t *nargs)
{
	const char *p = text, *end = text + len;

	while (p < end && *nargs < HTTP_ARGS_MAX) {
		const char *amp = memchr(p, '&', (size_t)(end - p));
		const char *stop = amp ? amp : end;
		const char *eq = memchr(p, '=', (size_t)(stop - p));
		const char *name_end = eq ? eq : stop;

		if (name_end > p) {
			*args = xrealloc(*args, (*nargs + 1) * sizeof(**args));
			(*args)[(*nargs)++] = (struct http_arg){
				http_decode(p, (size_t)(name_end - p), true),
				eq ? http_decode(eq + 1, (size_t)(stop - eq - 1), true)
				   : xstrdup(""),
			};
		}
		p = stop + 1;
	}
}

static void add_param(struct http_param *params, size_t *nparams, struct http_param p)
{
	if (*nparams < HTTP_PARAMS_MAX)
		params[(*nparams)++] = p;
	else
		free(p.value);
}

bool http_match(const char *pattern, const char *path, struct http_param *params, size_t *nparams)
{
	const char *p = pattern + 1, *t = path + 1;

	*nparams = 0;
	for (;;) {
		size_t pn = strcspn(p, "/"), tn = strcspn(t, "/");

		if (pn == 2 && memcmp(p, "..", 2) == 0) {
			add_param(params, nparams, (struct http_param){"..", 2, xstrdup(t)});
			return true;
		}
		if (pn > 1 && *p == ':' && tn > 0)
			add_param(params, nparams,
				  (struct http_param){p + 1, pn - 1, http_decode(t, tn, false)});
		else if (pn != tn || memcmp(p, t, pn) != 0)
			break;
		if (!p[pn] && !t[tn])
			return true;
		if (!p[pn] || (!t[tn] && strcmp(p + pn, "/..") != 0))
			break;
		p += pn + 1;
		t += tn + (t[tn] ? 1 : 0);
	}
	http_params_done(params, nparams);
	return false;
}

void http_params_done(struct http_param *params, size_t *nparams)
{
	for (size_t i = 0; i < *nparams; i++)
		free(params[i].value);
	*nparams = 0;
}

bool http_host_is_local(const char *host)
{
	static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};

	for (size_t i = 0; host && i < ARRAY_SIZE(names); i++) {
		size_t n = strlen(names[i]);
		const char *port = host + n;

		if (strncasecmp(host, names[i], n) != 0)
			continue;
		if (*port == '\0')
			return true;
		if (*port++ == ':' && *port && strspn(port, "0123456789") == strlen(port) &&
		    strlen(port) <= 5)
			return true;
	}
	return false;
}
