/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drover-vmm: every action program in one; the link it is called by, or its first argument, says
 * which. It reads the message (or deployment file) from standard input, runs the action, and says
 * what went wrong on standard error in the way the core's version reads it.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/host/action.h"
#include "one/xml.h"

#define REMOTES     "/var/tmp/one"
#define INPUT_MS    60000
#define CHUNK       65536
#define VERSION_MAX 4096
#define EXIT_USAGE  2

/* --- input --- */

/* Until its end, which must come: who forgets to close it does not keep a VM waiting for ever. */
static int read_input(struct strbuf *sb, struct err *err)
{
	uint64_t end = clock_ms() + INPUT_MS;

	while (!isatty(STDIN_FILENO)) {
		struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
		uint64_t now = clock_ms();
		ssize_t n;

		if (now >= end || poll(&p, 1, (int)(end - now)) == 0)
			return err_set(err, ETIMEDOUT, "standard input did not end within %d s",
				       INPUT_MS / 1000);
		strbuf_reserve(sb, CHUNK);
		n = read(STDIN_FILENO, sb->data + sb->len, CHUNK);
		if (n == 0 || (n < 0 && errno == EBADF))
			break;
		if (n < 0 && errno != EINTR)
			return err_sys(err, errno, "cannot read standard input");
		sb->len += n > 0 ? (size_t)n : 0;
		if (sb->len > ACTION_INPUT_MAX)
			return err_set(err, E2BIG, "standard input is larger than %u MiB",
				       ACTION_INPUT_MAX >> 20);
	}
	strbuf_reserve(sb, 1);
	sb->data[sb->len] = '\0';
	return 0;
}

/* On the front-end (-l) what is XML on a host comes as base64. */
static int take_input(struct call *call, struct strbuf *sb, struct err *err)
{
	size_t lead = strspn(sb->data, " \t\r\n"), len = sb->len;
	int r;

	while (len > lead && strchr(" \t\r\n", sb->data[len - 1]))
		len--;
	if (len == lead)
		return 0;
	if (sb->data[lead] != '<') {
		r = base64_decode(sb->data + lead, len - lead, &call->input, &call->input_len, err);
		return r < 0 ? err_wrap(err, r, "standard input is neither XML nor base64") : 0;
	}
	call->input_len = sb->len;
	call->input = strbuf_steal(sb);
	return 0;
}

/* A deployment file is read by its action, after it is stored. */
static int read_message(struct call *call, struct err *err)
{
	AUTO_STRBUF struct strbuf sb = {0};
	int r = read_input(&sb, err);

	if (r == 0)
		r = take_input(call, &sb, err);
	if (r < 0 || !call->input || str_eq(call->action->name, "deploy"))
		return r;
	r = xml_read(call->input, call->input_len, NULL, &call->doc, err);
	call->data = r == 0 ? xmlDocGetRootElement(call->doc) : NULL;
	return r < 0 ? err_wrap(err, r, "the message on standard input") : 0;
}

/* --- failure --- */

/*
 * Up to 6.0.0 the core's driver looks for a block between two marks and shows nothing else; later
 * ones show what stands on standard error, marks and all. VERSION of the remotes tells.
 */
static bool wants_marks(const struct call *call)
{
	AUTO_FREE char *path = path_join(call->remotes, "VERSION"), *text = NULL;
	unsigned long number[3] = {0};
	char *at;

	if (file_read(path, VERSION_MAX, &text, NULL, NULL, NULL) < 0)
		return true;
	at = text + strcspn(text, "0123456789");
	for (int i = 0; i < 3 && *at; i++) {
		number[i] = strtoul(at, &at, 10);
		at += *at == '.';
	}
	return number[0] < 6 || (number[0] == 6 && number[1] == 0 && number[2] < 3);
}

static void complain(const struct call *call, const char *text)
{
	AUTO_STRBUF struct strbuf sb = {0};

	strbuf_put_escaped(&sb, text);
	if (wants_marks(call))
		(void)fprintf(stderr, "ERROR MESSAGE --8<------\n%s\nERROR MESSAGE ------>8--\n",
			      sb.data);
	else
		(void)fprintf(stderr, "%s\n", sb.data);
}

static int usage(void)
{
	(void)fprintf(stderr, "usage: drover-vmm ACTION ARGUMENT...\n");
	for (size_t i = 0; i < action_count; i++)
		(void)fprintf(stderr, "  %-16s %-32s %s\n", actions[i].name, actions[i].words,
			      actions[i].doc);
	return EXIT_USAGE;
}

/* --- which, and where --- */

static const struct action *action_of(char *program)
{
	char *slash = strrchr(program, '/'), *dot;
	AUTO_FREE char *name = xstrdup(slash ? slash + 1 : program);

	dot = strrchr(name, '.');
	if (dot)
		*dot = '\0';
	return action_find(name);
}

/* The folder of the link we were called by, and two above it the remotes. */
static void find_places(struct call *call, char *program, struct strbuf *scripts,
			struct strbuf *remotes)
{
	char *slash = strrchr(program, '/');
	const char *given = getenv("DROVER_ONE_REMOTES");

	call->scripts = "";
	if (slash) {
		strbuf_add(scripts, program, (size_t)(slash - program));
		call->scripts = scripts->data;
		strbuf_printf(remotes, "%s/../..", scripts->data);
	}
	if (given || !slash || !action_of(program)) {
		remotes->len = 0;
		strbuf_puts(remotes, given ? given : REMOTES);
	}
	call->remotes = remotes->data;
}

/* Those it cannot do without, and not empty. */
static bool has_arguments(const struct call *call)
{
	if (call->argc < call->action->need)
		return false;
	for (int i = 0; i < call->action->need; i++)
		if (!*call->argv[i])
			return false;
	return true;
}

static int run(struct call *call, struct err *err)
{
	int r;

	if (!has_arguments(call))
		return err_set(err, EINVAL, "%s: want the arguments: %s", call->action->name,
			       call->action->words);
	r = paths_init(&call->paths, NULL, err);
	if (r == 0)
		r = read_message(call, err);
	return r < 0 ? r : call->action->run(call, err);
}

int main(int argc, char *argv[])
{
	AUTO_STRBUF struct strbuf scripts = {0}, remotes = {0};
	struct call call = {.action = action_of(argv[0]), .argc = argc - 1, .argv = argv + 1};
	struct err err = {0};
	sigset_t none;
	int r;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	find_places(&call, argv[0], &scripts, &remotes);
	if (!call.action && argc > 1) {
		call.action = action_find(argv[1]);
		call.argc--;
		call.argv++;
	}
	if (!call.action)
		return usage();
	r = run(&call, &err);
	if (r == 0 && fflush(stdout) != 0)
		r = err_sys(&err, errno, "cannot write the answer");
	if (r < 0)
		complain(&call, err_text(&err, r));
	if (call.doc)
		xmlFreeDoc(call.doc);
	free(call.input);
	paths_done(&call.paths);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
