/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers made of many objects, kept until the next change: for those who may see all, and for
 * those who may see no secret. Who owns some of the VMs gets his own, made for him.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/sock.h"
#include "net/http.h"
#include "vminfod/cache_impl.h"
#include "vminfod/filter.h"

#define FIELDS_KEPT 256 /* bytes of a field list worth keeping a body for */

bool viewer_may(const struct viewer *who, uint32_t owner_uid, uint32_t group_gid)
{
	return who->all || (who->peer && sock_peer_may(who->peer, owner_uid, group_gid));
}

static const struct text *text_for(const struct cached *v, const struct viewer *who)
{
	if (!v->open.data || viewer_may(who, v->owner_uid, v->group_gid))
		return &v->full;
	return &v->open;
}

/* Do secrets of one VM but not of another matter to him? */
static bool sees_some(const struct cache *c, const struct viewer *who)
{
	if (who->all || !who->peer)
		return false;
	for (size_t i = 0; i < c->count; i++) {
		const struct cached *v = c->vms[i];

		if (v->open.data && viewer_may(who, v->owner_uid, v->group_gid))
			return true;
	}
	return false;
}

static void bodies_drop(struct cached_bodies *b)
{
	http_body_unref(steal_ptr(b->whole));
	http_body_unref(steal_ptr(b->quoted));
	for (size_t i = 0; i < FIELD_BODIES; i++) {
		http_body_unref(b->fields[i].body);
		free(b->fields[i].fields);
		b->fields[i] = (struct field_body){0};
	}
}

void cache_drop_bodies(struct cache *c)
{
	bodies_drop(&c->bodies[0]);
	bodies_drop(&c->bodies[1]);
}

void cache_drop_quoted(struct cache *c)
{
	http_body_unref(steal_ptr(c->bodies[0].quoted));
	http_body_unref(steal_ptr(c->bodies[1].quoted));
}

/* Which of the VMs, and what of them. Members may be NULL: no choice. */
struct choice {
	const struct fields *fields;
	const struct filters *filters;
	const char *uuids;
};

static struct http_body *make_body(const struct cache *c, const struct viewer *who,
				   const struct choice *of)
{
	struct strbuf sb = {0};
	size_t len;

	strbuf_putc(&sb, '[');
	for (size_t i = 0; i < c->count; i++) {
		const struct text *t = text_for(c->vms[i], who);

		if ((of->uuids && !strstr(of->uuids, c->vms[i]->uuid)) ||
		    !filters_match(of->filters, t))
			continue;
		if (sb.len > 1)
			strbuf_putc(&sb, ',');
		text_put(t, of->fields, &sb);
	}
	strbuf_putc(&sb, ']');
	len = sb.len;
	/* It is kept: without the room it grew by. */
	return http_body_new(xrealloc(strbuf_steal(&sb), len + 1), len);
}

static struct http_body *whole_body(struct cache *c, const struct viewer *who)
{
	struct cached_bodies *b = &c->bodies[who->all];

	if (sees_some(c, who))
		return make_body(c, who, &(struct choice){0});
	if (!b->whole)
		b->whole = make_body(c, who, &(struct choice){0});
	return http_body_ref(b->whole);
}

/* The slot that has these fields, else the one used longest ago. */
static struct field_body *slot_of(struct cached_bodies *b, const char *list)
{
	struct field_body *oldest = &b->fields[0];

	for (size_t i = 0; i < FIELD_BODIES; i++) {
		struct field_body *f = &b->fields[i];

		if (f->fields && strcmp(f->fields, list) == 0)
			return f;
		if (f->used < oldest->used)
			oldest = f;
	}
	return oldest;
}

static struct http_body *fields_body(struct cache *c, const struct viewer *who, const char *list,
				     const struct fields *fields)
{
	struct field_body *f = slot_of(&c->bodies[who->all], list);

	if (strlen(list) > FIELDS_KEPT || sees_some(c, who))
		return make_body(c, who, &(struct choice){.fields = fields});
	f->used = ++c->clock;
	if (!f->fields || strcmp(f->fields, list) != 0) {
		http_body_unref(f->body);
		f->body = make_body(c, who, &(struct choice){.fields = fields});
		replace_str(&f->fields, xstrdup(list));
	}
	return http_body_ref(f->body);
}

int cache_vms(struct cache *c, const struct viewer *who, const char *fields,
	      const struct filters *filters, struct http_body **ret)
{
	struct fields f;

	if (fields && !fields_parse(fields, &f))
		return -E2BIG;
	if (filters)
		*ret = make_body(
			c, who, &(struct choice){.fields = fields ? &f : NULL, .filters = filters});
	else
		*ret = fields ? fields_body(c, who, fields, &f) : whole_body(c, who);
	return 0;
}

struct http_body *cache_vms_quoted(struct cache *c, const struct viewer *who, const char *uuids)
{
	struct cached_bodies *b = &c->bodies[who->all];
	bool own = uuids || sees_some(c, who);
	struct http_body *whole, *quoted;
	struct strbuf sb = {0};
	const char *data;
	size_t len;

	if (!own && b->quoted)
		return http_body_ref(b->quoted);
	whole = make_body(c, who, &(struct choice){.uuids = uuids}); /* not kept for this */
	data = http_body_data(whole, &len);
	put_quoted(&sb, data, len);
	http_body_unref(whole);
	strbuf_puts(&sb, "}\n");
	len = sb.len;
	quoted = http_body_new(strbuf_steal(&sb), len);
	if (!own)
		b->quoted = http_body_ref(quoted);
	return quoted;
}

int cache_vm(struct cache *c, const struct viewer *who, const char *uuid, const char *fields,
	     struct strbuf *to)
{
	const struct cached *v = cache_find(c, uuid);
	struct fields f;

	if (!v || !v->visible)
		return -ENOENT;
	if (fields && !fields_parse(fields, &f))
		return -E2BIG;
	text_put(text_for(v, who), fields ? &f : NULL, to);
	return 0;
}
