/* SPDX-License-Identifier: Apache-2.0 */
/* The inotify descriptor and its users; see watch.h. */
#include "store/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"

int watches_init(struct watches *w, struct err *err)
{
	*w = (struct watches){.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};
	if (w->fd < 0)
		return err_sys(err, errno,
			       "cannot watch files (fs.inotify.max_user_instances reached?)");
	return 0;
}

void watches_done(struct watches *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->items[i].users);
	free(w->items);
	if (w->fd >= 0)
		(void)close(w->fd);
	*w = (struct watches){.fd = -1};
}

/* Index of wd, or of where it belongs. The kernel counts up, so mostly that is the end. */
static size_t place(const struct watches *w, int wd)
{
	size_t low = 0, high = w->count;

	if (high > 0 && w->items[high - 1].wd < wd)
		return high;
	while (low < high) {
		size_t mid = (low + high) / 2;

		if (w->items[mid].wd < wd)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const struct watch *watch_find(const struct watches *w, int wd)
{
	size_t i = place(w, wd);

	return i < w->count && w->items[i].wd == wd ? &w->items[i] : NULL;
}

bool watch_used_by(const struct watches *w, int wd, const struct unit *user)
{
	const struct watch *watch = watch_find(w, wd);

	for (size_t i = 0; watch && i < watch->nusers; i++) {
		if (watch->users[i] == user)
			return true;
	}
	return false;
}

int watch_add(struct watches *w, const char *path, uint32_t mask, struct unit *user)
{
	int wd = inotify_add_watch(w->fd, path, mask | IN_MASK_ADD);
	struct watch *watch;
	size_t i;

	if (wd < 0)
		return -errno;
	i = place(w, wd);
	if (i == w->count || w->items[i].wd != wd) {
		w->items = xrealloc(w->items, (w->count + 1) * sizeof(*w->items));
		memmove(&w->items[i + 1], &w->items[i], (w->count - i) * sizeof(*w->items));
		w->items[i] = (struct watch){.wd = wd};
		w->count++;
	}
	if (watch_used_by(w, wd, user))
		return wd;
	watch = &w->items[i];
	watch->users = xrealloc(watch->users, (watch->nusers + 1) * sizeof(struct unit *));
	watch->users[watch->nusers++] = user;
	return wd;
}

void watch_narrow(struct watches *w, const char *path, uint32_t mask)
{
	int wd = inotify_add_watch(w->fd, path, mask);

	/* Something else is at path by now: its event is queued, and it is not ours yet. */
	if (wd >= 0 && !watch_find(w, wd))
		(void)inotify_rm_watch(w->fd, wd);
}

void watch_forget(struct watches *w, int wd)
{
	size_t i = place(w, wd);

	if (i == w->count || w->items[i].wd != wd)
		return;
	free(w->items[i].users);
	w->count--;
	memmove(&w->items[i], &w->items[i + 1], (w->count - i) * sizeof(*w->items));
}

void watch_drop(struct watches *w, int wd, const struct unit *user)
{
	size_t i = place(w, wd);
	struct watch *watch;

	if (i == w->count || w->items[i].wd != wd)
		return;
	watch = &w->items[i];
	for (size_t k = 0; k < watch->nusers; k++) {
		if (watch->users[k] != user)
			continue;
		watch->users[k] = watch->users[--watch->nusers];
		break;
	}
	if (watch->nusers > 0)
		return;
	(void)inotify_rm_watch(w->fd, wd);
	watch_forget(w, wd);
}
