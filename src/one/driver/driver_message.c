/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading lines of the core; see driver_message.h. Every action is checked to the end before it
 * is queued, so that what waits can run: word, id, base64, XML, the host.
 */
#include "one/driver/driver_message.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/driver/driver_steps.h"
#include "one/xml.h"

#define ID_DIGITS 10

/* A word and the blanks behind it. */
struct field {
	const char *at;
	size_t len, blanks;
};

static struct field next_field(const char **at, const char *end)
{
	struct field f = {.at = *at};
	const char *blank = memchr(f.at, ' ', (size_t)(end - f.at));
	const char *tab = memchr(f.at, '\t', (size_t)((blank ? blank : end) - f.at));

	f.len = (size_t)((tab ? tab : blank ? blank : end) - f.at);
	while (f.at + f.len + f.blanks < end && strchr(" \t\r", f.at[f.len + f.blanks]) &&
	       f.at[f.len + f.blanks])
		f.blanks++;
	*at = f.at + f.len + f.blanks;
	return f;
}

static char upper(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static int read_word(const struct field *f, struct message *m, struct err *err)
{
	bool good = f->len > 0 && f->len <= MESSAGE_WORD_MAX;

	for (size_t i = 0; good && i < f->len; i++) {
		m->word[i] = upper(f->at[i]);
		good = isalpha((unsigned char)f->at[i]) || f->at[i] == '_';
	}
	if (!good)
		return err_set(err, EINVAL, "a line that does not begin with an action word");
	return 0;
}

static int read_id(const struct field *f, struct message *m, struct err *err)
{
	long id = 0;

	for (size_t i = 0; i < f->len; i++) {
		if (!isdigit((unsigned char)f->at[i]) || i >= ID_DIGITS)
			return err_set(err, EINVAL, "%s without the id of a VM", m->word);
		id = id * 10 + (f->at[i] - '0');
	}
	if (!f->len)
		return err_set(err, EINVAL, "%s without the id of a VM", m->word);
	m->id = id;
	return 0;
}

static int check_host(const char *host, struct err *err)
{
	if (!host || !*host)
		return err_set(err, EINVAL, "no HOST in the message");
	if (host[0] == '-')
		return err_set(err, EINVAL, "'%s' is not a host name", host);
	for (const char *c = host; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr(".-_:@%[]", *c))
			return err_set(err, EINVAL, "'%.64s' is not a host name", host);
	return 0;
}

static int read_payload(const struct field *f, struct message *m, struct err *err)
{
	AUTO_XML xmlDoc *doc = NULL;
	AUTO_FREE char *migr = NULL;
	int r;

	if (!f->len)
		return err_set(err, EINVAL, "no message after the id");
	r = base64_decode(f->at, f->len, &m->xml, &m->xml_len, err);
	if (r == 0)
		r = xml_read(m->xml, m->xml_len, "VMM_DRIVER_ACTION_DATA", &doc, err);
	if (r < 0)
		return r;
	m->host = xml_value(xmlDocGetRootElement(doc), "HOST");
	migr = xml_value(xmlDocGetRootElement(doc), "MIGR_HOST");
	r = check_host(m->host, err);
	return r == 0 && migr && *migr ? check_host(migr, err) : r;
}

/* Word, kind, id and action; what is left of the line is the payload. */
static int read_head(const char **at, const char *end, struct message *m, struct err *err)
{
	struct field word = next_field(at, end), id;
	int r = read_word(&word, m, err);

	if (r < 0)
		return r;
	if (str_eq(m->word, "INIT") || str_eq(m->word, "FINALIZE")) {
		m->kind = m->word[0] == 'I' ? MESSAGE_INIT : MESSAGE_FINALIZE;
		return 0;
	}
	m->era = word.blanks > 1 ? ERA_6 : ERA_5;
	id = next_field(at, end);
	r = read_id(&id, m, err);
	if (r < 0)
		return r;
	m->kind = str_eq(m->word, "DRIVER_CANCEL") ? MESSAGE_CANCEL : MESSAGE_ACTION;
	m->action = action_find(m->word);
	if (m->kind == MESSAGE_ACTION && !m->action) {
		m->kind = MESSAGE_REFUSED;
		return err_set(err, ENOSYS, "this driver knows no action %s", m->word);
	}
	return 0;
}

void message_read(const char *line, size_t len, struct message *ret, struct err *err)
{
	const char *at = line, *end = line + len;
	struct field payload, more;
	int r;

	*ret = (struct message){.kind = MESSAGE_NOISE};
	r = read_head(&at, end, ret, err);
	if (r < 0 || ret->kind != MESSAGE_ACTION)
		return;
	payload = next_field(&at, end);
	more = next_field(&at, end);
	if (payload.len && payload.at[payload.len - 1] == '\r')
		payload.len--;
	if (more.len)
		r = err_set(err, EINVAL, "more than one word after the id");
	else
		r = read_payload(&payload, ret, err);
	if (r < 0)
		ret->kind = MESSAGE_REFUSED;
}

void message_read_long(const char *line, size_t len, size_t max, struct message *ret,
		       struct err *err)
{
	const char *at = line;

	*ret = (struct message){.kind = MESSAGE_NOISE};
	if (read_head(&at, line + len, ret, err) < 0)
		return;
	ret->kind = ret->action ? MESSAGE_REFUSED : MESSAGE_NOISE;
	(void)err_set(err, E2BIG, "the message is longer than %zu MiB", max >> 20);
}

void message_done(struct message *m)
{
	free(m->xml);
	free(m->host);
	m->xml = m->host = NULL;
}
