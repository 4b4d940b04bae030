/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Edits of UCL text in place. Order of events for each: find the path in the parsed text, say
 * the change as a change of the tree, splice the text, parse it again, and take it only when the
 * new tree is the old one with exactly that change. See edit.h.
 */
#include "ucl/edit.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "ucl/change.h"
#include "ucl/parse.h"

static const struct ucl_options folded = {.fold_keys = true};
static const struct ucl_options value_options = {.fold_keys = true, .no_includes = true};

static void auto_doc_fn(struct ucl_doc **doc)
{
	ucl_free(*doc);
}

#define AUTO_DOC __attribute__((cleanup(auto_doc_fn)))

/* An object or array on the way from the root, and the key under which it was found. */
struct step {
	const struct ucl_value *v;
	const char *key; /* NULL in an explicit array, and for the root */
};

struct editor {
	const char *name;
	struct ucl_text text; /* before this edit */
	const struct ucl_edit *edit;
	char *shown; /* the path, for messages */
	struct step steps[UCL_DEPTH_MAX + 2];
	size_t depth;   /* steps taken; the last is where we are */
	size_t missing; /* the first component of the path that is not there; its end if all are */
	struct err *err;
};

char *ucl_quote(const char *text)
{
	static const char shorts[] = "\nn\rr\tt\"\"\\\\$$"; /* character, letter, ... */
	struct strbuf sb = {0};

	strbuf_putc(&sb, '"');
	for (const char *p = text; *p; p++) {
		const char *found = NULL;

		for (size_t i = 0; i + 1 < sizeof(shorts) && !found; i += 2)
			if (shorts[i] == *p)
				found = &shorts[i + 1];
		if (found)
			strbuf_printf(&sb, "\\%c", *found);
		else if ((unsigned char)*p < 0x20)
			strbuf_printf(&sb, "\\u%04x", (unsigned char)*p);
		else
			strbuf_putc(&sb, *p);
	}
	strbuf_putc(&sb, '"');
	return strbuf_steal(&sb);
}

static bool same_key(const char *folded_key, const char *wanted)
{
	for (; *folded_key && *wanted; folded_key++, wanted++) {
		bool upper = *wanted >= 'A' && *wanted <= 'Z';

		if (*folded_key != (upper ? *wanted - 'A' + 'a' : *wanted))
			return false;
	}
	return *folded_key == *wanted;
}

static struct ucl_value *const *get(const struct ucl_value *v, const char *key)
{
	for (size_t i = 0; v->type == UCL_OBJECT && i < v->count; i++)
		if (same_key(v->keys[i], key))
			return &v->items[i];
	return NULL;
}

static int refuse(const struct editor *ed, const struct ucl_value *v, const char *reason)
{
	return err_set(ed->err, ENOTSUP,
		       "%s:%d: '%s' cannot be changed in place: %s; edit the file by hand",
		       v->key.file, v->key.line, ed->shown, reason);
}

static int refuse_repeat(const struct editor *ed, const struct ucl_value *a,
			 const struct ucl_value *b)
{
	AUTO_FREE char *reason =
		xasprintf("it is given more than once (lines %d and %d)", a->key.line, b->key.line);

	return refuse(ed, a, reason);
}

/* Decimal number as index, -1 when it is none. */
static long index_of(const char *name)
{
	long n = 0;

	if (!isdigit((unsigned char)*name) || strlen(name) > 6)
		return -1;
	for (; *name; name++) {
		if (!isdigit((unsigned char)*name))
			return -1;
		n = n * 10 + (*name - '0');
	}
	return n;
}

static void step_to(struct editor *ed, const struct ucl_value *v, const char *key)
{
	ed->steps[ed->depth++] = (struct step){v, key};
}

/*
 * The key was given several times, each an object perhaps: which of them is meant is told by the
 * next component, a member of exactly one of them or a number. Steps into it.
 */
static int choose_repeat(struct editor *ed, struct ucl_repeats all, const char *key, size_t *at)
{
	const char *next = ed->edit->path[*at + 1];
	const struct ucl_value *found = NULL, *last = NULL;
	long n = next ? index_of(next) : -1;

	if (!next)
		return refuse_repeat(ed, all.items[0], all.items[1]);
	for (size_t i = 0; i < all.count; i++) {
		struct ucl_value *const *member = get(all.items[i], next);

		if (all.items[i]->type == UCL_OBJECT)
			last = all.items[i];
		if (member && found)
			return refuse_repeat(ed, *get(found, next), *member);
		if (member)
			found = all.items[i];
	}
	if (!found && n >= 0 && (size_t)n < all.count) {
		step_to(ed, all.items[n], key);
		(*at)++;
		return 0;
	}
	if (!found && !last)
		return refuse_repeat(ed, all.items[0], all.items[1]);
	step_to(ed, found ? found : last, key);
	return 0;
}

/* Follow the path as far as it exists. */
static int locate(struct editor *ed, const struct ucl_value *root)
{
	const char *const *path = ed->edit->path;
	size_t at;

	ed->depth = 0;
	step_to(ed, root, NULL);
	for (at = 0; path[at]; at++) {
		const struct ucl_value *v = ed->steps[ed->depth - 1].v;
		struct ucl_value *const *child = NULL;
		struct ucl_repeats all;
		long n = index_of(path[at]);
		int r;

		if (v->type != UCL_OBJECT && v->type != UCL_ARRAY)
			return refuse(ed, v, "a part of it is a plain value, not a section");
		if (v->type == UCL_OBJECT)
			child = get(v, path[at]);
		else if (n >= 0 && (size_t)n < v->count)
			child = &v->items[n];
		if (!child)
			break;
		all = ucl_repeats_of(child);
		if (all.count == 1) {
			step_to(ed, *child, v->type == UCL_OBJECT ? path[at] : NULL);
			continue;
		}
		r = choose_repeat(ed, all, path[at], &at);
		if (r < 0)
			return r;
	}
	ed->missing = at;
	return 0;
}

/* Is step n an object that only named keys make, as the value of disk in `disk root { }`? */
static bool is_named(const struct editor *ed, size_t n)
{
	const struct ucl_value *v = ed->steps[n].v;

	return n > 0 && v->type == UCL_OBJECT && ed->text.data[v->start] != '{';
}

static bool is_bare_key(const char *key)
{
	if (!ucl_is_key_start((unsigned char)*key))
		return false;
	while (ucl_is_key_char((unsigned char)*key))
		key++;
	return *key == '\0';
}

/* `a b c { ... }`, `c = value;` or `a b { c = value; }`, from keys[count]. */
static char *item_text(const char *const *keys, size_t count, const char *value)
{
	struct strbuf sb = {0};

	for (size_t i = 0; i < count; i++) {
		AUTO_FREE char *quoted = is_bare_key(keys[i]) ? NULL : ucl_quote(keys[i]);

		if (*value != '{' && i > 0 && i + 1 == count)
			strbuf_puts(&sb, "{ ");
		strbuf_puts(&sb, quoted ? quoted : keys[i]);
		strbuf_putc(&sb, ' ');
	}
	if (*value == '{')
		strbuf_puts(&sb, value);
	else
		strbuf_printf(&sb, "= %s;%s", value, count > 1 ? " }" : "");
	return strbuf_steal(&sb);
}

/* value without blanks around, if it is one UCL value and nothing more; else -EINVAL. */
static int check_value(const struct editor *ed, char **ret, struct ucl_doc **ret_doc)
{
	static const char head[] = "value = ";
	const char *from = ed->edit->value, *end;
	AUTO_DOC struct ucl_doc *doc = NULL;
	AUTO_FREE char *text = NULL;
	const struct ucl_value *v = NULL;
	struct err why = {0};
	int r;

	if (!from)
		return err_set(ed->err, EINVAL, "no value for '%s'", ed->shown);
	from += strspn(from, " \t\r\n");
	end = from + strlen(from);
	while (end > from && strchr(" \t\r\n", end[-1]))
		end--;
	text = xasprintf("%s%.*s", head, (int)(end - from), from);
	r = ucl_parse(ed->name, text, strlen(text), &value_options, &doc, &why);
	if (r == 0 && from < end && ucl_root(doc)->count == 1)
		v = ucl_root(doc)->items[0];
	if (!v || v->start != strlen(head) || v->end != strlen(text) || v->implicit)
		return err_set(ed->err, EINVAL, "the new value of '%s' is not one UCL value: %.80s",
			       ed->shown, ed->edit->value);
	*ret = xstrdup(text + strlen(head));
	*ret_doc = steal_ptr(doc);
	return 0;
}

/* Everything one edit needs, freed together. */
struct plan {
	struct ucl_change change;
	struct ucl_splice splice;
	struct ucl_doc *value_doc;
	char *value, *item;
};

static void plan_done(struct plan *plan)
{
	ucl_free(plan->value_doc);
	free(plan->splice.text);
	free(plan->value);
	free(plan->item);
}

static int plan_append(struct editor *ed, struct plan *plan)
{
	const struct ucl_value *array = ed->steps[ed->depth - 1].v;
	const char *const *rest = ed->edit->path + ed->missing;
	struct err why = {0};
	size_t count = 0;
	int r;

	if (index_of(rest[0]) != (long)array->count)
		return err_set(ed->err, EINVAL, "%s:%d: '%s': the array has %zu elements",
			       array->key.file, array->key.line, ed->shown, array->count);
	while (rest[count + 1])
		count++;
	if (count > 0) {
		AUTO_FREE char *member = item_text(rest + 1, count, plan->value);

		ucl_free(steal_ptr(plan->value_doc));
		replace_str(&plan->value, xasprintf("{ %s }", member));
	}
	plan->item = xasprintf("value = %s", plan->value);
	if (count > 0) {
		r = ucl_parse(ed->name, plan->item, strlen(plan->item), &value_options,
			      &plan->value_doc, &why);
		if (r < 0)
			return refuse(ed, array, "the path cannot be written");
	}
	plan->change.kind = UCL_CHANGE_APPEND;
	plan->change.target = array;
	plan->change.value = ucl_root(plan->value_doc)->items[0];
	ucl_splice_insert(ed->text, &plan->change, plan->value, &plan->splice);
	return 0;
}

/* The object that really has braces gets the item, with the names between as named keys. */
static int plan_add(struct editor *ed, struct plan *plan)
{
	const char *keys[2 * UCL_DEPTH_MAX + 4];
	const char *const *rest = ed->edit->path + ed->missing;
	size_t n = ed->depth - 1, first, count = 0;
	struct err why = {0};
	int r;

	while (is_named(ed, n))
		n--;
	for (first = n + 1; first < ed->depth; first++)
		keys[count++] = ed->steps[first].key;
	for (; *rest; rest++) {
		if (count > UCL_DEPTH_MAX)
			return refuse(ed, ed->steps[n].v, "the path is too long");
		keys[count++] = *rest;
	}
	plan->item = item_text(keys, count, plan->value);
	ucl_free(steal_ptr(plan->value_doc));
	r = ucl_parse(ed->name, plan->item, strlen(plan->item), &value_options, &plan->value_doc,
		      &why);
	if (r < 0 || ucl_root(plan->value_doc)->count != 1)
		return refuse(ed, ed->steps[n].v, "the path cannot be written");
	plan->change.kind = UCL_CHANGE_ADD;
	plan->change.target = ed->steps[n].v;
	plan->change.key = ucl_root(plan->value_doc)->keys[0];
	plan->change.value = ucl_root(plan->value_doc)->items[0];
	ucl_splice_insert(ed->text, &plan->change, plan->item, &plan->splice);
	return 0;
}

static int plan_set(struct editor *ed, struct plan *plan)
{
	const struct ucl_value *v = ed->steps[ed->depth - 1].v;
	int r = check_value(ed, &plan->value, &plan->value_doc);

	if (r < 0)
		return r;
	if (ed->edit->path[ed->missing])
		return v->type == UCL_ARRAY ? plan_append(ed, plan) : plan_add(ed, plan);
	plan->change.kind = UCL_CHANGE_REPLACE;
	plan->change.target = v;
	plan->change.value = ucl_root(plan->value_doc)->items[0];
	ucl_splice_replace(ed->text, &plan->change, plan->value, &plan->splice);
	return 0;
}

static int plan_remove(struct editor *ed, struct plan *plan)
{
	size_t n = ed->depth - 1;

	if (ed->edit->path[ed->missing])
		return err_set(ed->err, ENOENT, "%s: there is no '%s'", ed->name, ed->shown);
	/* With `root` goes the whole of `disk root { }`. */
	while (is_named(ed, n - 1))
		n--;
	plan->change.kind = UCL_CHANGE_REMOVE;
	plan->change.target = ed->steps[n].v;
	plan->change.parent = ed->steps[n - 1].v;
	ucl_splice_remove(ed->text, &plan->change, &plan->splice);
	return 0;
}

static int check_place(const struct editor *ed, const struct ucl_value *root)
{
	const struct ucl_value *v = ed->steps[ed->depth - 1].v;
	const char *at;

	if (v->pos.file != root->pos.file)
		return refuse(ed, v, "it stands in an included file");
	if (ed->edit->path[ed->missing])
		return 0;
	at = ed->text.data + v->start;
	if (v->type == UCL_STRING && at[0] == '<' && memchr(at, '\n', v->end - v->start))
		return refuse(ed, v, "it is a multi-line text (<<)");
	return 0;
}

static char *spliced(struct ucl_text t, const struct ucl_splice *s, size_t *ret_len)
{
	struct strbuf sb = {0};

	strbuf_add(&sb, t.data, s->from);
	strbuf_puts(&sb, s->text);
	strbuf_add(&sb, t.data + s->to, t.len - s->to);
	*ret_len = sb.len;
	return strbuf_steal(&sb);
}

/* Take the new text when it means what it should. */
static int judge(const struct editor *ed, const struct plan *plan, const struct ucl_value *root,
		 char **ret, size_t *ret_len, struct ucl_doc **ret_doc)
{
	size_t len;
	AUTO_FREE char *text = spliced(ed->text, &plan->splice, &len);
	AUTO_DOC struct ucl_doc *doc = NULL;
	struct err why = {0};

	if (ucl_parse(ed->name, text, len, &folded, &doc, &why) < 0 ||
	    !ucl_change_is(root, ucl_root(doc), &plan->change))
		return refuse(ed, plan->change.target, "the text around it does not allow that");
	*ret = steal_ptr(text);
	*ret_len = len;
	*ret_doc = steal_ptr(doc);
	return 0;
}

static char *show_path(const char *const *path)
{
	struct strbuf sb = {0};

	for (size_t i = 0; path[i]; i++) {
		if (i)
			strbuf_putc(&sb, '.');
		strbuf_put_escaped(&sb, path[i]);
	}
	return strbuf_steal(&sb);
}

static int edit_once(struct editor *ed, struct ucl_doc **doc, char **text, size_t *len)
{
	const struct ucl_value *root = ucl_root(*doc);
	AUTO_FREE char *shown = show_path(ed->edit->path);
	AUTO_DOC struct ucl_doc *next = NULL;
	__attribute__((cleanup(plan_done))) struct plan plan = {0};
	char *made = NULL;
	int r;

	ed->text = (struct ucl_text){*text, *len};
	ed->shown = shown;
	if (!ed->edit->path[0])
		return err_set(ed->err, EINVAL, "%s: an edit without a path", ed->name);
	r = locate(ed, root);
	if (r == 0)
		r = check_place(ed, root);
	if (r == 0)
		r = ed->edit->op == UCL_EDIT_SET ? plan_set(ed, &plan) : plan_remove(ed, &plan);
	if (r == 0)
		r = judge(ed, &plan, root, &made, len, &next);
	if (r < 0)
		return r;
	replace_str(text, made);
	ucl_free(*doc);
	*doc = steal_ptr(next);
	return 0;
}

int ucl_edit(const char *name, const char *text, size_t len, const struct ucl_edit *edits,
	     size_t count, char **ret, struct err *err)
{
	AUTO_DOC struct ucl_doc *doc = NULL;
	AUTO_FREE char *now = NULL;
	struct editor ed = {.name = name, .err = err};
	int r = ucl_parse(name, text, len, &folded, &doc, err);

	if (r < 0)
		return r;
	now = xmalloc(len + 1);
	memcpy(now, text, len);
	now[len] = '\0';
	for (size_t i = 0; i < count; i++) {
		ed.edit = &edits[i];
		r = edit_once(&ed, &doc, &now, &len);
		if (r < 0)
			return r;
	}
	*ret = steal_ptr(now);
	return 0;
}
