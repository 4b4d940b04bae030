/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what the driver was told; see driver_options.h. Options and the directory may be mixed
 * in any order; -r and -t may stand without a number. The rc files are shell: what is understood
 * of them is KEY=VALUE with or without "export" and quotes, which is all the stock ones hold.
 */
#include "one/driver/driver_options.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define WORDS_MAX  64
#define CONFIG_MAX (1u << 20) /* bytes of a configuration file */

/* What one_vmm_sh runs on the front-end: everything. */
static const char *const all_local =
	"deploy,shutdown,reboot,cancel,save,restore,migrate,poll,pre,post,clean,update_sg,"
	"snapshotcreate,snapshotrevert,snapshotdelete,attach_nic,detach_nic,update_nic,reset,"
	"prereconfigure,reconfigure,attach_disk,detach_disk,resize_disk,resize,exec,exec_cancel";

enum option_arg { ARG_NONE, ARG_MAYBE, ARG_MUST };

static int set_retries(struct driver_options *o, const char *text, struct err *err);
static int set_threads(struct driver_options *o, const char *text, struct err *err);
static int set_timeout(struct driver_options *o, const char *text, struct err *err);
static int set_local(struct driver_options *o, const char *text, struct err *err);
static int set_delegate(struct driver_options *o, const char *text, struct err *err);
static int set_shell(struct driver_options *o, const char *text, struct err *err);
static int set_parallel(struct driver_options *o, const char *text, struct err *err);
static int set_help(struct driver_options *o, const char *text, struct err *err);
static int ignore(struct driver_options *o, const char *text, struct err *err);

/* clang-format off */
static const struct option_row {
	char letter;
	const char *name;
	enum option_arg arg;
	int (*set)(struct driver_options *o, const char *text, struct err *err);
} option_rows[] = {
	{ 'r', "retries",  ARG_MAYBE, set_retries },
	{ 't', "threads",  ARG_MAYBE, set_threads },
	{ 'l', "local",    ARG_MUST,  set_local },
	{ 'p', "parallel", ARG_NONE,  set_parallel },
	{ 's', "shell",    ARG_MUST,  set_shell },
	{ 'w', "timeout",  ARG_MUST,  set_timeout },
	{ 'd', "delegate", ARG_MUST,  set_delegate },
	{ 'i', "",         ARG_NONE,  ignore },
	{ 'h', "help",     ARG_NONE,  set_help },
};
/* clang-format on */

static int number(const char *text, const char *what, unsigned max, unsigned *ret, struct err *err)
{
	char *end;
	unsigned long v;

	if (!text)
		return 0;
	errno = 0;
	v = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || v > max)
		return err_set(err, EINVAL, "%s '%s' is not a number from 0 to %u", what, text,
			       max);
	*ret = (unsigned)v;
	return 0;
}

static int set_retries(struct driver_options *o, const char *text, struct err *err)
{
	return number(text, "-r, retries,", 1000, &o->retries, err);
}

static int set_threads(struct driver_options *o, const char *text, struct err *err)
{
	int r = number(text, "-t, actions at a time,", DRIVER_THREADS_MAX, &o->threads, err);

	if (r == 0 && o->threads == 0)
		return err_set(err, EINVAL, "-t 0 would never run an action (want at least 1)");
	return r;
}

static int set_timeout(struct driver_options *o, const char *text, struct err *err)
{
	return number(text, "-w, seconds,", 30 * 24 * 3600, &o->timeout_s, err);
}

static int set_shell(struct driver_options *o, const char *text, struct err *err)
{
	replace_str(&o->shell, xstrdup(text));
	return 0;
}

static int set_parallel(struct driver_options *o, const char *text, struct err *err)
{
	o->parallel = true;
	return 0;
}

static int set_help(struct driver_options *o, const char *text, struct err *err)
{
	o->help = true;
	return 0;
}

/* -i was an option of 4.14 that old documents still show. */
static int ignore(struct driver_options *o, const char *text, struct err *err)
{
	return 0;
}

static void list_done(struct list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i].name);
		free(list->items[i].script);
	}
	list->count = 0;
}

/* "a, b=script,c" */
static int list_add(struct list *list, const char *text, struct err *err)
{
	for (const char *at = text; *at;) {
		size_t len = strcspn(at, ", "), name = strcspn(at, ",= ");
		struct listed *item = &list->items[list->count];

		if (list->count == DRIVER_LISTED_MAX)
			return err_set(err, E2BIG, "more than %d names in '%.40s...'",
				       DRIVER_LISTED_MAX, text);
		if (name) {
			item->name = xstrndup(at, name);
			item->script = name < len ? xstrndup(at + name + 1, len - name - 1) : NULL;
			list->count++;
			if (item->script && (!*item->script || strchr(item->script, '/')))
				return err_set(err, EINVAL, "'%.*s' is not ACTION=SCRIPT", (int)len,
					       at);
		}
		at += len + strspn(at + len, ", ");
	}
	return 0;
}

static int set_local(struct driver_options *o, const char *text, struct err *err)
{
	return list_add(&o->local, text, err);
}

static int set_delegate(struct driver_options *o, const char *text, struct err *err)
{
	o->delegate_given = true;
	return list_add(&o->delegate, text, err);
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool same_name(const char *a, const char *b)
{
	for (;; a++, b++) {
		while (*a == '_')
			a++;
		while (*b == '_')
			b++;
		if (lower(*a) != lower(*b))
			return false;
		if (!*a)
			return true;
	}
}

const struct listed *list_find(const struct list *list, const char *name)
{
	for (size_t i = list->count; i; i--) /* the last word on it counts */
		if (same_name(list->items[i - 1].name, name))
			return &list->items[i - 1];
	return NULL;
}

bool words_hold(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = words ? words : ""; *at;) {
		size_t n = strcspn(at, " \t");

		if (n == len && memcmp(at, word, n) == 0)
			return true;
		at += n + strspn(at + n, " \t");
	}
	return false;
}

struct words {
	char *items[WORDS_MAX];
	size_t count;
};

static void words_done(struct words *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->items[i]);
}

/*
 * The core gives all arguments as one string: each element is cut at blanks. A list with blanks
 * round its commas stays one word.
 */
static int words_split(struct words *w, int argc, char *const argv[], struct err *err)
{
	for (int i = 1; i < argc; i++) {
		for (const char *at = argv[i] + strspn(argv[i], " \t"); *at;) {
			size_t len = strcspn(at, " \t"), gap = strspn(at + len, " \t");
			char **last = w->count ? &w->items[w->count - 1] : NULL;

			if (last && (at[0] == ',' || str_ends(*last, ","))) {
				replace_str(last, xasprintf("%s%.*s", *last, (int)len, at));
			} else if (w->count == WORDS_MAX) {
				return err_set(err, E2BIG, "more than %d words", WORDS_MAX);
			} else {
				w->items[w->count++] = xstrndup(at, len);
			}
			at += len + gap;
		}
	}
	return 0;
}

static const struct option_row *option_of(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(option_rows); i++) {
		const struct option_row *row = &option_rows[i];
		size_t len = strlen(row->name);

		if (word[1] != '-' ? word[1] == row->letter
				   : len && strncmp(word + 2, row->name, len) == 0 &&
					     (!word[2 + len] || word[2 + len] == '='))
			return row;
	}
	return NULL;
}

/* What is glued to the option itself: "-t15", "--threads=15". */
static const char *glued(const struct option_row *row, const char *word)
{
	const char *rest = word[1] == '-' ? word + 2 + strlen(row->name) : word + 2;

	if (*rest == '=' && word[1] == '-')
		rest++;
	return *rest ? rest : NULL;
}

static int take_option(struct driver_options *o, const struct words *w, size_t *at, struct err *err)
{
	const char *word = w->items[*at];
	const struct option_row *row = option_of(word);
	const char *value = row ? glued(row, word) : NULL;
	const char *next = *at + 1 < w->count ? w->items[*at + 1] : NULL;

	if (!row || (row->arg == ARG_NONE && value))
		return err_set(err, EINVAL, "unknown option '%s' (want -r -t -l -p -s -w -d)",
			       word);
	if (!value && next &&
	    (row->arg == ARG_MUST || (row->arg == ARG_MAYBE && isdigit((unsigned char)*next)))) {
		value = next;
		(*at)++;
	}
	if (!value && row->arg == ARG_MUST)
		return err_set(err, EINVAL, "option '%s' needs an argument", word);
	return row->set(o, value, err);
}

static int take_words(struct driver_options *o, const struct words *w, struct err *err)
{
	for (size_t i = 0; i < w->count; i++) {
		const char *word = w->items[i];
		int r;

		if (word[0] != '-' || !word[1]) {
			if (!o->dir)
				o->dir = xstrdup(word);
			continue;
		}
		r = take_option(o, w, &i, err);
		if (r < 0)
			return r;
	}
	if (o->help)
		return 0;
	if (!o->dir)
		return err_set(err, EINVAL, "no driver directory given (such as kvm or drover)");
	if (strchr(o->dir, '/') || o->dir[0] == '.')
		return err_set(err, EINVAL, "'%s' is not the name of a directory below vmm/",
			       o->dir);
	return 0;
}

/* The value of "KEY=VALUE", quotes off; NULL when the line sets something else. */
static char *value_of(const char *line, size_t len, const char *key)
{
	const char *end = line + len;
	size_t key_len = strlen(key);

	while (line < end && (*line == ' ' || *line == '\t'))
		line++;
	if ((size_t)(end - line) > 7 && str_starts(line, "export "))
		line += 7;
	if ((size_t)(end - line) <= key_len || strncmp(line, key, key_len) != 0 ||
	    line[key_len] != '=')
		return NULL;
	line += key_len + 1;
	if (line < end && (*line == '"' || *line == '\'')) {
		const char *close = memchr(line + 1, *line, (size_t)(end - line - 1));

		return xstrndup(line + 1, (size_t)((close ? close : end) - line - 1));
	}
	len = (size_t)(end - line);
	for (size_t i = 0; i < len; i++)
		if (line[i] == ' ' || line[i] == '\t' || line[i] == '#')
			len = i;
	return xstrndup(line, len);
}

/* The last value of key in a file; NULL when the file or the key is not there. */
static char *setting(const char *path, const char *key)
{
	AUTO_FREE char *text = NULL;
	char *found = NULL;

	if (file_read(path, CONFIG_MAX, &text, NULL, NULL, NULL) < 0)
		return NULL;
	for (const char *at = text; *at;) {
		size_t len = strcspn(at, "\n");
		char *value = value_of(at, len, key);

		if (value)
			replace_str(&found, value);
		at += len + (at[len] == '\n');
	}
	return found;
}

/* A self-contained installation below ONE_LOCATION, or the places of the packages. */
static void find_places(struct driver_options *o)
{
	const char *location = getenv("ONE_LOCATION");
	bool own = location && *location;
	AUTO_FREE char *etc = own ? path_join(location, "etc") : xstrdup("/etc/one");
	AUTO_FREE char *defaults = path_join(etc, "defaultrc");
	AUTO_FREE char *execrc = path_join(etc, "vmm_exec/vmm_execrc");
	AUTO_FREE char *priority = setting(defaults, "PRIORITY");
	AUTO_FREE char *debug = setting(defaults, "ONE_MAD_DEBUG");
	AUTO_FREE char *config = NULL;
	char *end;

	o->var = own ? path_join(location, "var") : xstrdup("/var/lib/one");
	o->log = own ? xstrdup(o->var) : xstrdup("/var/log/one");
	o->remotes = path_join(o->var, "remotes");
	config = path_join(o->var, "config");
	o->remote_dir = setting(config, "SCRIPTS_REMOTE_DIR");
	if (!o->remote_dir || o->remote_dir[0] != '/')
		replace_str(&o->remote_dir, xstrdup("/var/tmp/one"));
	o->live_snapshots = setting(execrc, "LIVE_DISK_SNAPSHOTS");
	if (!o->live_snapshots)
		o->live_snapshots = xstrdup(getenv("LIVE_DISK_SNAPSHOTS"));
	o->local_networks = setting(execrc, "VNMAD_LOCAL_ACTIONS");
	if (!o->local_networks)
		o->local_networks = xstrdup("elastic-post elastic-clean");
	o->debug = (debug && *debug) || getenv("ONE_MAD_DEBUG");
	o->nice = INT_MIN;
	if (priority && *priority) {
		long v = strtol(priority, &end, 10);

		if (!*end && v >= -20 && v <= 19)
			o->nice = (int)v;
	}
}

int driver_options_read(int argc, char *const argv[], struct driver_options *o, struct err *err)
{
	const char *path = argc > 0 ? argv[0] : "one_vmm_exec", *slash = strrchr(path, '/');
	struct words words = {.count = 0};
	int r;

	*o = (struct driver_options){.threads = DRIVER_THREADS};
	o->program = xstrdup(slash ? slash + 1 : path);
	o->shell = xstrdup("bash");
	find_places(o);
	r = str_eq(o->program, "one_vmm_sh") ? list_add(&o->local, all_local, err) : 0;
	if (r == 0)
		r = words_split(&words, argc, argv, err);
	if (r == 0)
		r = take_words(o, &words, err);
	words_done(&words);
	if (r == 0 && !o->delegate_given)
		r = list_add(&o->delegate, "migrate", err);
	return r;
}

void driver_options_done(struct driver_options *o)
{
	list_done(&o->local);
	list_done(&o->delegate);
	free(o->program);
	free(o->dir);
	free(o->shell);
	free(o->var);
	free(o->log);
	free(o->remotes);
	free(o->remote_dir);
	free(o->live_snapshots);
	free(o->local_networks);
}
