/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting actions; see driver_queue.h. Where there is no room for the file, memory must do. */
#include "one/driver/driver_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

void queue_init(struct queue *q)
{
	*q = (struct queue){.fd = -1};
}

void queue_done(struct queue *q)
{
	for (size_t i = 0; i < queue_count(q); i++)
		message_done(&q->items[q->first + i].m);
	free(q->items);
	if (q->fd >= 0)
		(void)close(q->fd);
	queue_init(q);
}

size_t queue_count(const struct queue *q)
{
	return q->count;
}

const struct message *queue_at(const struct queue *q, size_t i)
{
	return &q->items[q->first + i].m;
}

static bool file_open(struct queue *q)
{
	const char *dir = getenv("TMPDIR");

	if (q->fd < 0 && !q->no_file) {
		q->fd = open(dir && *dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		q->no_file = q->fd < 0;
	}
	return q->fd >= 0;
}

/* Move the text of w into the file; it stays in memory when that fails. */
static void put_away(struct queue *q, struct waiting *w)
{
	size_t done = 0;

	if (!file_open(q))
		return;
	while (done < w->m.xml_len) {
		ssize_t n =
			pwrite(q->fd, w->m.xml + done, w->m.xml_len - done, q->end + (off_t)done);

		if (n <= 0)
			return;
		done += (size_t)n;
	}
	w->at = q->end;
	q->end += (off_t)done;
	q->in_file++;
	replace_str(&w->m.xml, NULL);
}

static void make_room(struct queue *q)
{
	if (q->first && q->first >= q->count) {
		memmove(q->items, q->items + q->first, q->count * sizeof(*q->items));
		q->first = 0;
	}
	if (q->first + q->count < q->cap)
		return;
	q->cap = q->cap ? q->cap * 2 : 16;
	q->items = xrealloc(q->items, q->cap * sizeof(*q->items));
}

void queue_push(struct queue *q, struct message *m)
{
	struct waiting *w;

	make_room(q);
	w = &q->items[q->first + q->count++];
	*w = (struct waiting){.m = *m, .at = -1};
	m->xml = m->host = NULL;
	if (q->in_memory + w->m.xml_len > QUEUE_MEMORY)
		put_away(q, w);
	if (w->m.xml)
		q->in_memory += w->m.xml_len;
}

static int fetch(struct queue *q, struct waiting *w)
{
	AUTO_FREE char *text = xmalloc(w->m.xml_len + 1);
	size_t done = 0;

	while (done < w->m.xml_len) {
		ssize_t n = pread(q->fd, text + done, w->m.xml_len - done, w->at + (off_t)done);

		if (n <= 0)
			return -EIO;
		done += (size_t)n;
	}
	text[done] = '\0';
	w->m.xml = steal_ptr(text);
	return 0;
}

int queue_take(struct queue *q, size_t i, struct message *ret)
{
	struct waiting w = q->items[q->first + i];
	int r = 0;

	if (i == 0)
		q->first++;
	else
		memmove(&q->items[q->first + i], &q->items[q->first + i + 1],
			(q->count - i - 1) * sizeof(w));
	q->count--;
	if (w.at < 0) {
		q->in_memory -= w.m.xml_len;
	} else {
		r = fetch(q, &w);
		if (--q->in_file == 0 && ftruncate(q->fd, 0) == 0)
			q->end = 0;
	}
	*ret = w.m;
	return r;
}
