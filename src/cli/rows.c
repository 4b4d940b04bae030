/* SPDX-License-Identifier: Apache-2.0 */
/* Picking, filtering and sorting VMs; see rows.h. */
#include "cli/rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"

/*
 * `type` exists in lists alone: the first letters of the brand's kind of machine. Every VM of this
 * host is of brand kvm. Source: smartos facts 6.3.
 */
#define MEMBER_TYPE  "type"
#define MEMBER_BRAND "brand"
#define BRAND_KVM    "kvm"

size_t rows_need(struct rows_query *q, const char *member)
{
	for (size_t i = 0; i < q->nmembers; i++)
		if (str_eq(q->members[i], member))
			return i;
	q->members = xrealloc(q->members, (q->nmembers + 1) * sizeof(*q->members));
	q->members[q->nmembers] = xstrdup(member);
	if (str_eq(member, MEMBER_TYPE)) {
		size_t at = q->nmembers++;

		(void)rows_need(q, MEMBER_BRAND);
		return at;
	}
	return q->nmembers++;
}

/* A column or sort key; word: "order" or "sort". */
static int parse_named(const char *text, const char *word, struct field *ret, struct err *err)
{
	if (field_parse(text, ret) < 0)
		return err_set(err, EINVAL, "invalid %s field: %s", word, text);
	if (!field_is_wild(ret))
		return 0;
	field_done(ret);
	return err_set(err, EINVAL, "Invalid %s key: \"%s\"", word, text);
}

/* The next piece of a comma list, freed by the caller; NULL at the end. */
static char *next_piece(const char **at)
{
	const char *from = *at;
	size_t len;

	if (!from)
		return NULL;
	len = strcspn(from, ",");
	*at = from[len] ? from + len + 1 : NULL;
	return xstrndup(from, len);
}

static int too_many(const char *word, struct err *err)
{
	return err_set(err, E2BIG, "too many %s fields (at most %u)", word, ROWS_FIELDS_MAX);
}

int rows_add_columns(struct rows_query *q, const char *list, struct err *err)
{
	while (list) {
		AUTO_FREE char *name = next_piece(&list);
		struct field f;
		int r = parse_named(name, "order", &f, err);

		if (r < 0)
			return r;
		if (q->ncolumns == ROWS_FIELDS_MAX) {
			field_done(&f);
			return too_many("order", err);
		}
		f.at = rows_need(q, f.member);
		q->columns = xrealloc(q->columns, (q->ncolumns + 1) * sizeof(f));
		q->columns[q->ncolumns++] = f;
	}
	return 0;
}

int rows_add_sort(struct rows_query *q, const char *list, struct err *err)
{
	while (list) {
		AUTO_FREE char *name = next_piece(&list);
		bool sign = *name == '-' || *name == '+';
		struct sort_key key = {.descending = *name == '-'};
		int r = parse_named(name + sign, "sort", &key.field, err);

		if (r < 0)
			return r;
		if (q->nsort == ROWS_FIELDS_MAX) {
			field_done(&key.field);
			return too_many("sort", err);
		}
		key.field.at = rows_need(q, key.field.member);
		q->sort = xrealloc(q->sort, (q->nsort + 1) * sizeof(key));
		q->sort[q->nsort++] = key;
	}
	return 0;
}

static struct filter *same_filter(struct rows_query *q, const char *key)
{
	for (size_t i = 0; i < q->nfilters; i++)
		if (str_eq(q->filters[i].field.text, key))
			return &q->filters[i];
	return NULL;
}

int rows_add_filter(struct rows_query *q, const char *text, const char *word, struct err *err)
{
	struct filter f, *old;
	int r = filter_parse(text, &f, err);

	if (r == -EINVAL)
		return err_set(err, EINVAL, "Invalid %s key: \"%.*s\"", word,
			       (int)strcspn(text, "="), text);
	if (r < 0)
		return r;
	f.field.at = rows_need(q, f.field.member);
	old = same_filter(q, f.field.text);
	if (old) { /* the last one wins */
		filter_done(old);
		*old = f;
		return 0;
	}
	if (q->nfilters == ROWS_FIELDS_MAX) {
		filter_done(&f);
		return too_many(word, err);
	}
	q->filters = xrealloc(q->filters, (q->nfilters + 1) * sizeof(f));
	q->filters[q->nfilters++] = f;
	return 0;
}

void rows_query_done(struct rows_query *q)
{
	for (size_t i = 0; i < q->nmembers; i++)
		free(q->members[i]);
	for (size_t i = 0; i < q->ncolumns; i++)
		field_done(&q->columns[i]);
	for (size_t i = 0; i < q->nsort; i++)
		field_done(&q->sort[i].field);
	for (size_t i = 0; i < q->nfilters; i++)
		filter_done(&q->filters[i]);
	free(q->members);
	free(q->columns);
	free(q->sort);
	free(q->filters);
	*q = (struct rows_query){0};
}

char *rows_target(const struct rows_query *q)
{
	struct strbuf sb = {0};

	strbuf_puts(&sb, "/vms");
	for (size_t i = 0; i < q->nmembers; i++) {
		strbuf_puts(&sb, i ? "," : "?fields=");
		strbuf_puts(&sb, q->members[i]);
	}
	return strbuf_steal(&sb);
}

static void compute_type(const struct rows_query *q, struct slice *cells)
{
	static const char kvm[] = "\"KVM\"", other[] = "\"OS\"";
	struct slice *type = NULL, brand = {0};

	for (size_t i = 0; i < q->nmembers; i++) {
		if (str_eq(q->members[i], MEMBER_TYPE))
			type = &cells[i];
		if (str_eq(q->members[i], MEMBER_BRAND))
			brand = cells[i];
	}
	if (!type || type->p)
		return;
	if (js_is(brand, BRAND_KVM))
		*type = (struct slice){kvm, sizeof(kvm) - 1};
	else
		*type = (struct slice){other, sizeof(other) - 1};
}

static void read_row(const struct rows_query *q, struct slice object, struct slice *cells)
{
	struct slice key, value;
	struct js_iter it;

	js_iter_init(&it, object);
	while (js_next(&it, &key, &value))
		for (size_t i = 0; i < q->nmembers; i++)
			if (js_is(key, q->members[i])) {
				cells[i] = value;
				break;
			}
	compute_type(q, cells);
}

struct slice rows_value(const struct row *row, const struct field *f)
{
	return field_value(f, row->members[f->at]);
}

static bool row_matches(const struct rows_query *q, const struct row *row)
{
	for (size_t i = 0; i < q->nfilters; i++)
		if (!filter_match(&q->filters[i], row->members[q->filters[i].field.at]))
			return false;
	return true;
}

static int compare_rows(const void *pa, const void *pb, void *ctx)
{
	const struct rows_query *q = ctx;
	const struct row *a = pa, *b = pb;

	for (size_t i = 0; i < q->nsort; i++) {
		const struct sort_key *k = &q->sort[i];
		int r = field_compare(rows_value(a, &k->field), rows_value(b, &k->field));

		if (r)
			return k->descending ? -r : r;
	}
	/* Equal ones keep vminfod's order, which is that of their text. */
	return (a->object.p > b->object.p) - (a->object.p < b->object.p);
}

int rows_read(const struct rows_query *q, const char *text, size_t len, struct rows *ret,
	      struct err *err)
{
	struct slice all = js_value(text, len), v;
	struct rows rows = {0};
	struct js_iter it;
	size_t n;

	if (js_type(all) != '[')
		return err_set(err, EPROTO, "vminfod's answer is no JSON array of VMs");
	n = js_count(all);
	rows.items = xcalloc(n + 1, sizeof(*rows.items));
	rows.cells = xcalloc(n * q->nmembers + 1, sizeof(*rows.cells));
	js_iter_init(&it, all);
	for (size_t i = 0; i < n && js_next(&it, NULL, &v); i++) {
		struct slice *cells = rows.cells + i * q->nmembers;
		struct row row = {.object = v, .members = cells};

		read_row(q, v, cells);
		if (row_matches(q, &row))
			rows.items[rows.count++] = row;
	}
	if (it.bad) {
		rows_done(&rows);
		return err_set(err, EPROTO, "vminfod's answer is broken JSON");
	}
	qsort_r(rows.items, rows.count, sizeof(*rows.items), compare_rows, (void *)q);
	*ret = rows;
	return 0;
}

void rows_done(struct rows *r)
{
	free(r->items);
	free(r->cells);
	*r = (struct rows){0};
}
