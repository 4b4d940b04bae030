/* SPDX-License-Identifier: Apache-2.0 */
/* How a QMP connection ends: by the peer, by garbage, by its owner inside any callback. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "qemu/qmp.h"
#include "qmp_peer.h"

static void the_end_completes_everybody(void **state)
{
	struct fixture *f = *state;

	greet(f);
	query(f, 5000);
	query(f, 5000);
	say(f, "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true}}\n{\"retu");
	(void)close(steal_fd(&f->peer));
	spin(f);
	assert_string_equal(logged(f),
			    "event SHUTDOWN 0;"
			    "done -104 the connection to QEMU ended: QEMU closed the connection;"
			    "done -104 the connection to QEMU ended: QEMU closed the connection;");
	assert_int_equal(f->closed, 1);
	assert_int_equal(f->closed_r, -ECONNRESET);
}

/* The peer is gone with our bytes unread: writing fails first, its last words still count. */
static void last_words_survive_a_failed_write(void **state)
{
	struct fixture *f = *state;

	greet(f);
	query(f, 5000);
	say(f, "{\"event\":\"SHUTDOWN\"}\n");
	(void)close(steal_fd(&f->peer));
	query(f, 5000);
	qmp_drain(f->q);
	assert_true(str_starts(logged(f), "event SHUTDOWN 0;done -104"));
	assert_int_equal(f->closed, 1);
}

static void garbage_ends_the_connection(void **state)
{
	static const char *const bad[] = {
		"hello\n",
		"[]\n",
		"{}\n",
		"{\"event\":1}\n",
		"{\"event\":\"X\",\"data\":[]}\n",
		"{\"error\":\"x\",\"id\":1}\n",
		"{\"return\":{},\"return\":\"\xff\"}\n",
		HELLO,
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct fixture *f;

		assert_int_equal(setup(state), 0);
		f = *state;
		greet(f);
		query(f, 5000);
		say(f, bad[i]);
		say(f, "{\"event\":\"STOP\"}\n");
		spin(f);
		assert_int_equal(f->closed, 1);
		assert_int_equal(f->closed_r, -EPROTO);
		assert_null(strstr(logged(f), "STOP"));
		teardown(state);
	}
}

static void an_answer_before_the_greeting_is_garbage(void **state)
{
	struct fixture *f = *state;

	say(f, "{\"return\":{},\"id\":0}\n");
	spin(f);
	assert_int_equal(f->closed_r, -EPROTO);
}

static void a_refused_negotiation_ends_it(void **state)
{
	struct fixture *f = *state;

	query(f, 5000);
	say(f, HELLO "{\"id\":0,\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\n");
	spin(f);
	assert_int_equal(f->closed_r, -EPROTO);
	assert_int_equal(f->ready, 0);
	assert_string_equal(logged(f), "done -104 the connection to QEMU ended: "
				       "QEMU refused the negotiation: no;");
}

static void freed_inside_an_event(void **state)
{
	struct fixture *f = *state;

	greet(f);
	query(f, 5000);
	f->free_in_event = true;
	say(f, "{\"event\":\"STOP\"}\n{\"event\":\"STOP\"}\n{\"return\":{},\"id\":1}\n");
	spin(f);
	assert_string_equal(logged(f), "event STOP 0;");
	assert_null(f->q);
}

static void freed_inside_an_answer(void **state)
{
	struct fixture *f = *state;

	greet(f);
	query(f, 5000);
	query(f, 5000);
	f->free_in_done = true;
	say(f, "{\"return\":{},\"id\":1}\n{\"return\":{},\"id\":2}\n");
	spin(f);
	assert_string_equal(logged(f), "done 0 ok;");
}

static void freed_inside_a_deadline(void **state)
{
	struct fixture *f = *state;

	greet(f);
	query(f, 5);
	query(f, 5);
	f->free_in_done = true;
	run_until(f, "done -110 QEMU did not answer within 5 ms;");
	spin(f);
	assert_string_equal(logged(f), "done -110 QEMU did not answer within 5 ms;");
}

static void freed_while_the_end_is_told(void **state)
{
	struct fixture *f = *state;

	greet(f);
	query(f, 5000);
	query(f, 5000);
	f->free_in_done = true;
	(void)close(steal_fd(&f->peer));
	spin(f);
	assert_null(f->q);
	assert_int_equal(f->closed, 0);
}

static void freed_inside_closed(void **state)
{
	struct fixture *f = *state;

	greet(f);
	f->free_in_closed = true;
	(void)close(steal_fd(&f->peer));
	qmp_drain(f->q);
	assert_null(f->q);
	assert_int_equal(f->closed, 1);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_end_completes_everybody),
		T(last_words_survive_a_failed_write),
		cmocka_unit_test(garbage_ends_the_connection),
		T(an_answer_before_the_greeting_is_garbage),
		T(a_refused_negotiation_ends_it),
		T(freed_inside_an_event),
		T(freed_inside_an_answer),
		T(freed_inside_a_deadline),
		T(freed_while_the_end_is_told),
		T(freed_inside_closed),
	};

	return cmocka_run_group_tests_name("qmp_end", tests, NULL, NULL);
}
