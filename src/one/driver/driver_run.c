/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The course of an action; see driver_run.h. A turn goes on until something must be waited for:
 * the end of a process, the end marks of the shell on a host, a pause before another try.
 */
#include "one/driver/driver_run.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "one/driver/driver_message.h"
#include "one/driver/driver_options.h"
#include "one/driver/driver_plan.h"
#include "one/driver/driver_proc.h"
#include "one/driver/driver_shell.h"
#include "one/driver/driver_text.h"

#define CONNS       2     /* HOST and MIGR_HOST */
#define PAUSE_MS    1000  /* between tries; source: fact sheet, 4.3 */
#define PATIENCE_MS 10000 /* for what we told to end */
#define SCRIPT_GONE 42
#define SSH_FAILED  255

enum phase {
	PHASE_NEXT,  /* nothing under way */
	PHASE_JOB,   /* a process of its own */
	PHASE_SHELL, /* a command in the shell on the host */
	PHASE_COPY,  /* the remotes are copied to the host */
	PHASE_PAUSE, /* before another try */
};

struct conn {
	const char *host;
	struct proc proc;
	char nonce[SHELL_NONCE + 1];
	bool answered; /* a command came back over it */
};

struct run {
	struct message m;
	const struct driver_options *o;
	struct graveyard *g;
	struct plan plan;
	struct err refused;
	bool is_refused;
	struct conn conns[CONNS];
	struct proc job;
	const struct command *list; /* of the plan, or what undoes the failed one */
	size_t count, at;
	const struct command *failed;
	char *info;             /* answer */
	char *reason;           /* of the failure */
	struct strbuf networks; /* answers of the step's network drivers */
	enum phase phase;
	bool copied;
	unsigned tries; /* left */
	uint64_t deadline_ms, pause_ms;
};

struct run *run_new(struct message *m, const struct driver_options *o, struct graveyard *g)
{
	struct run *run = xcalloc(1, sizeof(*run));

	run->m = *m;
	m->xml = m->host = NULL;
	run->o = o;
	run->g = g;
	run->is_refused = plan_make(&run->m, o, &run->plan, &run->refused) < 0;
	run->list = run->plan.commands;
	run->count = run->plan.count;
	run->tries = o->retries;
	replace_str(&run->m.xml, NULL); /* the plan has what is needed of it */
	return run;
}

void run_free(struct run *run)
{
	for (size_t i = 0; i < CONNS; i++)
		bury(run->g, &run->conns[i].proc, 0, 0);
	bury(run->g, &run->job, 0, 0);
	plan_done(&run->plan);
	message_done(&run->m);
	strbuf_done(&run->networks);
	free(run->info);
	free(run->reason);
	free(run);
}

long run_id(const struct run *run)
{
	return run->m.id;
}

const char *run_host(const struct run *run)
{
	return run->m.host;
}

static const struct command *current(const struct run *run)
{
	return &run->list[run->at];
}

static struct conn *conn_of(struct run *run, const char *host)
{
	struct conn *free_one = NULL;

	for (size_t i = 0; i < CONNS; i++) {
		struct conn *conn = &run->conns[i];

		if (conn->proc.pid && str_eq(conn->host, host))
			return conn;
		if (!conn->proc.pid)
			free_one = conn;
	}
	return free_one;
}

/* --- starting a command --- */

#define SSH_WORDS 12

/* "ssh", its options, the host; returns how many words. */
static size_t ssh_words(const struct run *run, const char *host, const char *words[SSH_WORDS])
{
	static const char *const forward[] = {"-o", "ForwardAgent=yes", "-o", "ControlMaster=no",
					      "-o", "ControlPath=none"};
	size_t n = 0;

	words[n++] = "ssh";
	for (size_t i = 0; run->plan.delegate && i < ARRAY_SIZE(forward); i++)
		words[n++] = forward[i];
	words[n++] = host;
	return n;
}

static int start(struct run *run, struct proc *p, const char *const *words, enum phase phase,
		 struct err *err)
{
	int r = proc_start(p, (char *const *)words, err);

	if (r < 0)
		return r;
	run->phase = phase;
	run->deadline_ms = run->o->timeout_s ? clock_ms() + run->o->timeout_s * 1000ull : 0;
	return 0;
}

static int start_shell(struct run *run, const struct command *c, struct err *err)
{
	struct conn *conn = conn_of(run, c->host);
	const char *words[SSH_WORDS];
	size_t n = ssh_words(run, c->host, words);

	proc_io(&conn->proc, true);
	if (conn->proc.ended) /* while it was idle: a new one will do */
		bury(run->g, &conn->proc, 0, 0);
	if (!conn->proc.pid) {
		int r;

		*conn = (struct conn){.host = c->host};
		words[n] = run->o->shell;
		words[n + 1] = "-s";
		words[n + 2] = NULL;
		r = start(run, &conn->proc, words, PHASE_SHELL, err);
		if (r < 0)
			return r;
	}
	shell_nonce(conn->nonce);
	conn->proc.output.len = conn->proc.error_output.len = 0;
	conn->proc.cut = false;
	shell_feed(&conn->proc.input, &run->plan, c, conn->nonce);
	proc_io(&conn->proc, true);
	run->phase = PHASE_SHELL;
	run->deadline_ms = run->o->timeout_s ? clock_ms() + run->o->timeout_s * 1000ull : 0;
	return 0;
}

/* A process here, or ssh with a command. */
static int start_job(struct run *run, const struct command *c, struct err *err)
{
	AUTO_FREE char *text = NULL;
	AUTO_FREE const char **words = xcalloc(c->argc + SSH_WORDS, sizeof(*words));
	size_t n = 0;

	if (c->in)
		strbuf_add(&run->job.input, c->in, c->in_len);
	if (c->via == VIA_SSH) {
		n = ssh_words(run, c->host, words);
		words[n++] = text = shell_one_shot(&run->plan, c);
	} else if (c->step->driver == STEP_DIR || c->step->driver == STEP_PUT) {
		words[n++] = "/bin/sh";
		words[n++] = "-c";
		words[n++] = c->step->driver == STEP_DIR ? "exec /bin/mkdir -p \"$1\""
							 : "exec /bin/cat - >\"$1\"";
		words[n++] = "sh";
		words[n++] = c->path;
	} else {
		words[n++] = c->path;
		for (size_t i = 0; i < c->argc; i++)
			words[n++] = command_arg(&run->plan, c, i);
	}
	return start(run, &run->job, words, PHASE_JOB, err);
}

/* What "onehost sync" does, for a host that has no or old scripts. */
static int start_copy(struct run *run, const struct command *c, struct err *err)
{
	const char *const words[] = {
		"/bin/sh",
		"-c",
		"ssh \"$1\" mkdir -p \"$2\" && scp -rp \"$3\"/* \"$1:$2\" </dev/null",
		"sh",
		c->host,
		run->o->remote_dir,
		run->o->remotes,
		NULL};

	run->copied = true;
	return start(run, &run->job, words, PHASE_COPY, err);
}

/* --- the end of a command --- */

static const char *kind_of(const struct command *c)
{
	/* clang-format off */
	static const char *const kinds[] = {
		[STEP_VMM] = "virtualization", [STEP_VNM] = "network", [STEP_DS] = "datastore",
		[STEP_TM] = "transfer manager", [STEP_DIR] = "virtualization",
		[STEP_PUT] = "virtualization",
	};
	/* clang-format on */
	return kinds[c->step->driver];
}

static void log_step(const struct run *run, struct out *out, const struct command *c, bool success)
{
	AUTO_FREE char *text =
		xasprintf("%s execute %s driver operation: %s.",
			  success ? "Successfully" : "Failed to", kind_of(c), c->log_name);

	if (!(c->step->flags & ONE_SHOT))
		out_log(out, 'I', run->m.id, text);
}

static void succeeded(struct run *run, struct out *out, const char *answer)
{
	const struct command *c = current(run);

	if (c->network)
		strbuf_printf(&run->networks, " %s: %s", c->network, answer);
	if (c->step->flags & ANSWER && c->last && !run->failed)
		replace_str(&run->info,
			    c->step->driver == STEP_VNM
				    ? xstrdup(run->networks.len ? run->networks.data : "")
				    : xstrdup(answer));
	if (c->last) {
		log_step(run, out, c, true);
		run->networks.len = 0;
	}
	run->at++;
	run->phase = PHASE_NEXT;
}

/* reason: taken. */
static void failed(struct run *run, struct out *out, char *reason)
{
	const struct command *c = current(run);

	run->phase = PHASE_NEXT;
	run->networks.len = 0;
	if (!run->failed && !(c->step->flags & NO_FAIL)) {
		run->failed = c;
		run->reason = c->network ? xasprintf(" %s: %s", c->network, reason) : reason;
		if (c->network)
			free(reason);
		run->list = c->undo;
		run->count = c->undo_count;
		run->at = 0;
		return;
	}
	free(reason);
	log_step(run, out, c, false);
	while (!run->list[run->at].last) /* the other network drivers of the step */
		run->at++;
	run->at++;
}

/* How a failure is told when the script itself said nothing. */
static char *fallback(const struct command *c, int code)
{
	const char *where = c->via == VIA_LOCAL ? "the front-end" : c->host;

	if (c->via == VIA_SSH && code == SSH_FAILED)
		return xasprintf("Error connecting to %s", where);
	if (c->via == VIA_SSH && code == SCRIPT_GONE)
		return xasprintf("%s is not on %s (copy it there with 'onehost sync'), or it "
				 "ended with exit code 42",
				 c->path, where);
	if (code > 128 && c->via == VIA_LOCAL)
		return xasprintf("%s on %s was ended by signal %d", c->path, where, code - 128);
	return xasprintf("%s on %s failed with exit code %d", c->path, where, code);
}

static void put_deploy_id(struct run *run, const char *answer)
{
	replace_str(&run->plan.deploy_id, xstrndup(answer, strcspn(answer, " ")));
}

/* A command ended by itself with e->code. */
static void judge(struct run *run, struct out *out, struct proc *p, int code)
{
	const struct command *c = current(run);
	AUTO_FREE char *text = shell_log_text(&run->plan, c, run->m.era);
	struct ended e = {.code = code, .shell = c->via == VIA_SHELL, .command = text};
	AUTO_FREE char *answer = NULL;

	strbuf_puts(&p->output, "");
	strbuf_puts(&p->error_output, "");
	e.out = p->output.data;
	e.errors = p->error_output.data;
	text_log(out, run->m.era, run->m.id, &e);
	if (p->cut)
		out_log(out, 'W', run->m.id,
			"The script's output was too long; its middle is lost");
	if (code != 0) {
		AUTO_FREE char *plain = fallback(c, code);

		failed(run, out, text_reason(run->m.era, &e, plain));
		return;
	}
	answer = text_answer(e.out);
	if (c->step->flags & DEPLOYS) {
		if (str_eq(answer, "-")) {
			failed(run, out,
			       xasprintf("%s printed no deploy id (want it on standard output)",
					 c->path));
			return;
		}
		put_deploy_id(run, answer);
	}
	succeeded(run, out, answer);
}

/* It did not end as commands do: no code, our own words; p may be none. */
static void broke(struct run *run, struct out *out, struct proc *p, char *reason)
{
	if (p && p->error_output.len) {
		const struct command *c = current(run);
		AUTO_FREE char *text = shell_log_text(&run->plan, c, run->m.era);
		struct ended e = {.code = -1, .shell = true, .command = text, .out = ""};

		e.errors = p->error_output.data;
		text_log(out, run->m.era, run->m.id, &e);
	} else {
		out_log(out, 'I', run->m.id, reason);
	}
	failed(run, out, reason);
}

/* The last line of what a process complained. */
static char *complaint(struct proc *p)
{
	struct ended e = {.code = -1};

	strbuf_puts(&p->error_output, "");
	e.errors = p->error_output.data;
	/* as for old cores without markers: only the last line */
	return text_reason(ERA_5, &e, "");
}

/* --- waiting --- */

static bool timed_out(struct run *run, struct out *out, struct proc *p, int signal, uint64_t now)
{
	const struct command *c = current(run);
	char *text;

	if (!run->deadline_ms || now < run->deadline_ms)
		return false;
	text = xasprintf("Timeout executing %s%s%s: not done after %u seconds", c->path,
			 c->via == VIA_LOCAL ? "" : " on ", c->via == VIA_LOCAL ? "" : c->host,
			 run->o->timeout_s);
	bury(run->g, p, signal, now + PATIENCE_MS);
	broke(run, out, NULL, text);
	return true;
}

static void drop(struct run *run, struct proc *p)
{
	bury(run->g, p, 0, 0);
}

/* Another try of a one-shot command, if there is one left. */
static bool try_again(struct run *run, struct out *out, int code, uint64_t now)
{
	const struct command *c = current(run);
	struct err err;

	if (c->via != VIA_SSH || code == 0 || run->tries == 0)
		return false;
	run->tries--;
	out_log(out, 'I', run->m.id, "Command failed, trying again");
	drop(run, &run->job);
	run->pause_ms = now + PAUSE_MS;
	run->phase = PHASE_PAUSE;
	if (code == SCRIPT_GONE && !run->copied)
		(void)start_copy(run, c, &err);
	return true;
}

static bool turn_job(struct run *run, struct out *out, uint64_t now)
{
	int code;

	proc_io(&run->job, false);
	if (!run->job.ended)
		return timed_out(run, out, &run->job, SIGTERM, now);
	code = run->job.code;
	if (try_again(run, out, code, now))
		return true;
	judge(run, out, &run->job, code);
	drop(run, &run->job);
	return true;
}

static bool turn_copy(struct run *run, struct out *out, uint64_t now)
{
	const struct command *c = current(run);

	proc_io(&run->job, false);
	if (!run->job.ended)
		return timed_out(run, out, &run->job, SIGTERM, now);
	if (run->job.code != 0 && c->via == VIA_SHELL) {
		AUTO_FREE char *why = complaint(&run->job);

		broke(run, out, NULL,
		      xasprintf("%s is not on %s, and the remotes could not be copied there%s",
				c->path, c->host, why));
	} else {
		run->phase = c->via == VIA_SSH ? PHASE_PAUSE : PHASE_NEXT;
	}
	drop(run, &run->job);
	return true;
}

static void no_script(struct run *run, struct out *out, struct conn *conn)
{
	const struct command *c = current(run);
	struct err err = {0};

	conn->answered = true;
	if (!run->copied) {
		out_log(out, 'I', run->m.id, "Remote worker node files not found, copying them");
		if (start_copy(run, c, &err) == 0)
			return;
	}
	broke(run, out, NULL,
	      xasprintf("%s is neither on %s nor among the remotes of the front-end%s%s", c->path,
			c->host, err.code ? ": " : "", err.code ? err.msg : ""));
}

static void lost(struct run *run, struct out *out, struct conn *conn)
{
	const struct command *c = current(run);
	AUTO_FREE char *why = complaint(&conn->proc);
	bool connected = conn->answered || conn->proc.output.len;
	char *text = connected ? xasprintf("Connection to %s was lost while it ran %s%s",
					   conn->host, c->path, why)
			       : xasprintf("Error connecting to %s%s", conn->host, why);

	broke(run, out, &conn->proc, text);
	drop(run, &conn->proc);
}

static bool turn_shell(struct run *run, struct out *out, uint64_t now)
{
	struct conn *conn = conn_of(run, current(run)->host);
	int code = 0;

	proc_io(&conn->proc, true);
	switch (shell_check(&conn->proc.output, &conn->proc.error_output, conn->nonce, &code)) {
	case SHELL_ENDED:
		conn->answered = true;
		judge(run, out, &conn->proc, code);
		return true;
	case SHELL_NO_SCRIPT:
		no_script(run, out, conn);
		return true;
	case SHELL_RUNNING:
		break;
	}
	if (!conn->proc.ended)
		return timed_out(run, out, &conn->proc, SIGHUP, now);
	lost(run, out, conn);
	return true;
}

static bool turn_next(struct run *run, struct out *out)
{
	const struct command *c = current(run);
	struct err err = {0};
	int r;

	if (!c->path) { /* a VM without network drivers */
		succeeded(run, out, "-");
		return true;
	}
	r = c->via == VIA_SHELL ? start_shell(run, c, &err) : start_job(run, c, &err);
	if (r < 0)
		broke(run, out, NULL, xstrdup(err_text(&err, r)));
	return true;
}

/* --- the end of the action --- */

static void finish(struct run *run, struct out *out)
{
	const char *text = run->info ? run->info : "";
	AUTO_FREE char *prefixed = NULL;
	uint64_t until = clock_ms() + PATIENCE_MS;

	if (run->is_refused) {
		text = err_text(&run->refused, -run->refused.code);
	} else if (run->failed) {
		log_step(run, out, run->failed, false);
		text = run->reason;
	}
	if (run->plan.prefix && !run->is_refused) {
		prefixed = xasprintf("%s%s%s", run->plan.prefix, *text == ' ' ? "" : " ", text);
		text = prefixed;
	}
	out_result(out, run->m.word, !run->failed && !run->is_refused, run->m.id, text);
	for (size_t i = 0; i < CONNS; i++)
		bury(run->g, &run->conns[i].proc, 0, until);
}

bool run_turn(struct run *run, struct out *out, uint64_t now_ms, uint64_t *next_ms)
{
	bool moved = true;

	/* Idle connections, too: what comes from them, or their end, must not wake us for ever. */
	for (size_t i = 0; i < CONNS; i++)
		proc_io(&run->conns[i].proc, true);
	while (moved) {
		if (run->is_refused || run->at == run->count) {
			finish(run, out);
			return true;
		}
		switch (run->phase) {
		case PHASE_NEXT:
			moved = turn_next(run, out);
			break;
		case PHASE_JOB:
			moved = turn_job(run, out, now_ms);
			break;
		case PHASE_SHELL:
			moved = turn_shell(run, out, now_ms);
			break;
		case PHASE_COPY:
			moved = turn_copy(run, out, now_ms);
			break;
		case PHASE_PAUSE:
			moved = now_ms >= run->pause_ms;
			if (moved)
				run->phase = PHASE_NEXT;
			else if (run->pause_ms < *next_ms)
				*next_ms = run->pause_ms;
			break;
		}
	}
	if (run->phase != PHASE_PAUSE && run->deadline_ms && run->deadline_ms < *next_ms)
		*next_ms = run->deadline_ms;
	return false;
}

size_t run_polls(const struct run *run, struct pollfd *fds)
{
	size_t n = proc_polls(&run->job, fds);

	for (size_t i = 0; i < CONNS; i++)
		n += proc_polls(&run->conns[i].proc, fds + n);
	return n;
}
