/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both protocols of the metadata service, see metadata.h. A frame is "V2 LENGTH CRC32 BODY", where
 * BODY is "ID COMMAND BASE64" and length and checksum are of BODY; what does not add up is answered
 * by "invalid command", which tells a client to begin anew.
 */
#include "vmadmd/guest/metadata.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/vm.h"

#define KEY_MAX 256

/* --- CRC32 (IEEE 802.3) and base64 --- */

static uint32_t crc32_of(const char *data, size_t len)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < len; i++) {
		crc ^= (uint8_t)data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

/* Text of base64[len], padded or not; NULL when it is none, or holds a NUL byte or no UTF-8. */
static char *base64_text(const char *base64, size_t len)
{
	AUTO_FREE char *text = NULL;
	AUTO_JSON json_t *judge = NULL;
	size_t n;

	while (len > 0 && base64[len - 1] == '=')
		len--;
	if (base64_decode_bare(base64, len, &text, &n, NULL) < 0 || memchr(text, '\0', n))
		return NULL;
	judge = json_stringn(text, n);
	return judge ? steal_ptr(text) : NULL;
}

/* --- requests --- */

void metadata_in_done(struct metadata_in *in)
{
	strbuf_done(&in->data);
}

void metadata_request_done(struct metadata_request *r)
{
	free(r->id);
	free(r->key);
	free(r->value);
	*r = (struct metadata_request){0};
}

void metadata_feed(struct metadata_in *in, const void *data, size_t len)
{
	const char *bytes = data, *end;

	if (in->skipping) {
		end = memchr(bytes, '\n', len);
		if (!end)
			return;
		len -= (size_t)(end - bytes); /* the newline stays: one answer for the line */
		bytes = end;
		in->skipping = false;
	}
	strbuf_add(&in->data, bytes, len);
}

struct span {
	const char *at;
	size_t len;
};

/* The next word of s, which goes on behind it and the blanks that follow. */
static struct span word(struct span *s)
{
	struct span w = {s->at, 0};

	while (s->len > 0 && *s->at != ' ') {
		s->at++;
		s->len--;
		w.len++;
	}
	while (s->len > 0 && *s->at == ' ') {
		s->at++;
		s->len--;
	}
	return w;
}

static bool span_is(struct span s, const char *text)
{
	return strlen(text) == s.len && memcmp(s.at, text, s.len) == 0;
}

/* Digits of base as a number; false for none, others, or more than 9. */
static bool span_number(struct span s, int base, uint64_t *ret)
{
	char text[10] = {0}, *end;

	if (s.len == 0 || s.len >= sizeof(text) || !isxdigit((unsigned char)*s.at))
		return false;
	memcpy(text, s.at, s.len);
	*ret = strtoul(text, &end, base);
	return *end == '\0';
}

static const struct {
	const char *name;
	enum metadata_command command;
	bool v1, v2;
} commands[] = {
	{"GET", METADATA_GET, true, true},
	{"KEYS", METADATA_KEYS, true, true},
	{"PUT", METADATA_PUT, false, true},
	{"DELETE", METADATA_DELETE, false, true},
	{"NEGOTIATE", METADATA_NEGOTIATE, true, false},
};

static enum metadata_command command_of(struct span name, bool v2)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (span_is(name, commands[i].name) && (v2 ? commands[i].v2 : commands[i].v1))
			return commands[i].command;
	}
	return METADATA_UNKNOWN;
}

/* A key or such: text without blanks around it; NULL for none. Takes text. */
static char *trimmed(char *text)
{
	char *begin = text, *end = text ? text + strlen(text) : NULL, *out;

	while (begin < end && isspace((unsigned char)*begin))
		begin++;
	while (end > begin && isspace((unsigned char)end[-1]))
		end--;
	out = begin < end ? xstrndup(begin, (size_t)(end - begin)) : NULL;
	free(text);
	return out;
}

/* PUT has its key and value once more in base64 within. */
static void take_put(struct metadata_request *r)
{
	AUTO_FREE char *both = steal_ptr(r->key);
	struct span rest = {both, both ? strlen(both) : 0};
	struct span key = word(&rest), value = word(&rest);

	if (!both || rest.len > 0)
		return;
	r->key = trimmed(base64_text(key.at, key.len));
	r->value = base64_text(value.at, value.len);
}

static bool parse_frame(struct span s, struct metadata_request *ret)
{
	struct span length = word(&s), crc = word(&s), body, id, name;
	uint64_t len, sum;

	body = s;
	if (!span_number(length, 10, &len) || len != body.len || !span_number(crc, 16, &sum) ||
	    sum != crc32_of(body.at, body.len))
		return false;
	id = word(&s);
	name = word(&s);
	for (size_t i = 0; i < id.len; i++) {
		if (!isxdigit((unsigned char)id.at[i]))
			return false;
	}
	if (id.len == 0 || id.len > 64 || name.len == 0)
		return false;
	ret->id = xstrndup(id.at, id.len);
	ret->command = command_of(name, true);
	ret->key = trimmed(base64_text(s.at, s.len));
	if (ret->command == METADATA_PUT)
		take_put(ret);
	return true;
}

static bool parse_line(struct span s, struct metadata_request *ret)
{
	AUTO_JSON json_t *judge = NULL;
	struct span name = word(&s);

	if (name.len == 0)
		return false;
	if (span_is(name, "V2"))
		return parse_frame(s, ret);
	ret->command = command_of(name, false);
	judge = json_stringn(s.at, s.len);
	if (judge && !memchr(s.at, '\0', s.len))
		ret->key = trimmed(xstrndup(s.at, s.len));
	return true;
}

bool metadata_next(struct metadata_in *in, struct metadata_request *ret)
{
	struct span line = {in->data.data, 0};
	const char *end = in->data.len ? memchr(in->data.data, '\n', in->data.len) : NULL;
	size_t whole = end ? (size_t)(end - in->data.data) + 1 : 0;

	*ret = (struct metadata_request){0};
	if (!end && in->data.len > METADATA_LINE_MAX) {
		in->skipping = true;
		strbuf_drop(&in->data, in->data.len);
	}
	if (!end)
		return false;
	line.len = whole - 1;
	while (line.len > 0 && isspace((unsigned char)line.at[line.len - 1]))
		line.len--;
	if (line.len > METADATA_LINE_MAX || !parse_line(line, ret)) {
		metadata_request_done(ret);
		ret->command = METADATA_INVALID;
	}
	strbuf_drop(&in->data, whole);
	return true;
}

/* --- answers --- */

static const char *const code_names[METADATA_CODE_COUNT] = {
	[METADATA_SUCCESS] = "SUCCESS",
	[METADATA_NOTFOUND] = "NOTFOUND",
	[METADATA_FAILURE] = "FAILURE",
};

static void answer_frame(const struct metadata_request *r, enum metadata_code code,
			 const char *body, struct strbuf *out)
{
	AUTO_STRBUF struct strbuf text = {0};

	strbuf_printf(&text, "%s %s", r->id, code_names[code]);
	if (body && *body) {
		AUTO_FREE char *coded = base64_encode(body, strlen(body));

		strbuf_printf(&text, " %s", coded);
	}
	strbuf_printf(out, "V2 %zu %08" PRIx32 " ", text.len, crc32_of(text.data, text.len));
	strbuf_add(out, text.data, text.len);
	strbuf_putc(out, '\n');
}

static void answer_line(enum metadata_code code, const char *body, struct strbuf *out)
{
	strbuf_printf(out, "%s\n", code_names[code]);
	if (code != METADATA_SUCCESS)
		return;
	for (const char *at = body ? body : ""; *at; at++) { /* a leading dot is doubled */
		if (*at == '.' && (at == body || at[-1] == '\n'))
			strbuf_putc(out, '.');
		strbuf_putc(out, *at);
	}
	strbuf_puts(out, "\n.\n");
}

void metadata_answer(const struct metadata_request *r, enum metadata_code code, const char *body,
		     struct strbuf *out)
{
	if (r->command == METADATA_INVALID)
		strbuf_puts(out, "invalid command\n");
	else if (r->command == METADATA_NEGOTIATE)
		strbuf_puts(out, str_eq(r->key, "V2") ? "V2_OK\n" : "FAILURE\n");
	else if (r->id)
		answer_frame(r, code, body, out);
	else
		answer_line(code, body, out);
}

/* --- keys --- */

/* The VM's namespace that key is in, NULL: none. */
static const char *namespace_of(const struct vm *vm, const char *key)
{
	for (size_t i = 0; i < vm->internal_metadata_namespaces.count; i++) {
		const char *name = vm->internal_metadata_namespaces.items[i];
		size_t len = strlen(name);

		if (strncmp(key, name, len) == 0 && key[len] == ':')
			return name;
	}
	return NULL;
}

static bool is_internal(const struct vm *vm, const char *key)
{
	return str_ends(key, "_pw") || str_eq(key, "operator-script") || namespace_of(vm, key);
}

/* Members of the VM object that guests are told of. Source: the metadata agent of the original. */
static const char *const told[] = {
	"alias",
	"billing_id",
	"brand",
	"cpu_cap",
	"cpu_shares",
	"create_timestamp",
	"server_uuid",
	"image_uuid",
	"datacenter_name",
	"do_not_inventory",
	"dns_domain",
	"hostname",
	"internal_metadata_namespaces",
	"last_modified",
	"max_physical_memory",
	"max_locked_memory",
	"max_lwps",
	"max_swap",
	"nics",
	"owner_uuid",
	"package_name",
	"package_version",
	"quota",
	"ram",
	"resolvers",
	"routes",
	"state",
	"uuid",
	"vcpus",
	"vnc_port",
	"zfs_io_priority",
	"zonename",
};

static const json_t *member(const json_t *at, const char *name)
{
	char *end;
	unsigned long index;

	if (json_is_object(at))
		return json_object_get(at, name);
	index = strtoul(name, &end, 10);
	return isdigit((unsigned char)*name) && !*end ? json_array_get(at, index) : NULL;
}

/* "nics.0.mac" in the object; borrowed. */
static const json_t *find_told(const json_t *object, const char *path)
{
	AUTO_FREE char *copy = xstrdup(path);
	char *rest = copy, *name = strsep(&rest, ".");
	const json_t *at = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
		if (str_eq(name, told[i]))
			at = json_object_get(object, name);
	}
	while (at && (name = strsep(&rest, ".")))
		at = member(at, name);
	return at;
}

static enum metadata_code put_value(const json_t *value, struct strbuf *body)
{
	AUTO_FREE char *text = NULL;

	if (!value || json_is_null(value))
		return METADATA_NOTFOUND;
	text = json_is_string(value) ? xstrdup(json_string_value(value)) : json_text(value);
	strbuf_puts(body, text);
	return METADATA_SUCCESS;
}

enum metadata_code metadata_get(const struct vm *vm, const json_t *object, const char *key,
				struct strbuf *body)
{
	bool computed = str_starts(key, "sdc:");

	if (computed && !str_eq(key, "sdc:operator-script"))
		return put_value(find_told(object, key + 4), body);
	if (computed)
		key += 4;
	return put_value(json_object_get(is_internal(vm, key) ? vm->internal_metadata
							      : vm->customer_metadata,
					 key),
			 body);
}

static void put_keys(const struct vm *vm, const json_t *map, bool internal, struct strbuf *body)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)map, key, value) {
		if (is_internal(vm, key) != internal || str_eq(key, "operator-script"))
			continue;
		if (body->len > 0)
			strbuf_putc(body, '\n');
		strbuf_puts(body, key);
	}
}

void metadata_keys(const struct vm *vm, struct strbuf *body)
{
	put_keys(vm, vm->customer_metadata, false, body);
	put_keys(vm, vm->internal_metadata, true, body);
}

/* --- changes --- */

static size_t weight(const json_t *map)
{
	AUTO_FREE char *text = map ? json_text(map) : NULL;

	return text ? strlen(text) : 0;
}

static int check_room(const struct vm *vm, const struct metadata_request *r, struct err *err)
{
	size_t keys =
		json_object_size(vm->customer_metadata) + json_object_size(vm->internal_metadata);
	AUTO_JSON json_t *more = json_pack("{s:s}", r->key, r->value);

	if (keys >= METADATA_KEYS_MAX && !json_object_get(vm->customer_metadata, r->key) &&
	    !json_object_get(vm->internal_metadata, r->key))
		return err_set(err, E2BIG, "There are %zu keys already (at most %u)", keys,
			       METADATA_KEYS_MAX);
	if (weight(more) + weight(vm->customer_metadata) + weight(vm->internal_metadata) >
	    METADATA_TOTAL_MAX)
		return err_set(err, E2BIG, "The metadata would be over %u bytes",
			       METADATA_TOTAL_MAX);
	return 0;
}

int metadata_payload(const struct vm *vm, const struct metadata_request *r, json_t **ret,
		     struct err *err)
{
	bool put = r->command == METADATA_PUT;
	const char *space, *map;

	if (!r->key || (put && !r->value) || strlen(r->key) > KEY_MAX)
		return err_set(err, EINVAL, "Invalid %s Request", put ? "PUT" : "DELETE");
	for (const char *at = r->key; *at; at++) {
		if (iscntrl((unsigned char)*at))
			return err_set(err, EINVAL, "A key holds no control characters");
	}
	space = str_starts(r->key, "sdc:") ? "sdc" : namespace_of(vm, r->key);
	if (space)
		return err_set(err, EPERM, "Cannot update the \"%s\" Namespace.", space);
	if (str_eq(r->key, "operator-script"))
		return err_set(err, EPERM, "Cannot update \"operator-script\".");
	map = is_internal(vm, r->key) ? "internal_metadata" : "customer_metadata";
	if (!put) {
		AUTO_FREE char *key = xasprintf("remove_%s", map);

		*ret = json_pack("{s:[s]}", key, r->key);
		return 0;
	}
	AUTO_FREE char *key = xasprintf("set_%s", map);
	int status = check_room(vm, r, err);

	if (status == 0)
		*ret = json_pack("{s:{s:s}}", key, r->key, r->value);
	return status;
}
