/* SPDX-License-Identifier: Apache-2.0 */
/* Pure parts of the OpenNebula driver: base64, XML paths, options, lines, plans, texts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/driver/driver_message.h"
#include "one/driver/driver_options.h"
#include "one/driver/driver_plan.h"
#include "one/driver/driver_queue.h"
#include "one/driver/driver_shell.h"
#include "one/driver/driver_text.h"
#include "one/driver/driver_tm.h"
#include "one/xml.h"

static void test_base64(void **state)
{
	static const char *const rows[][2] = {
		{"", ""},
		{"f", "Zg=="},
		{"fo", "Zm8="},
		{"foo", "Zm9v"},
		{"foob", "Zm9vYg=="},
		{"\xff\xfe\xfd", "//79"},
		{"foobar", "Zm9vYmFy"},
	};
	static const char *const bad[] = {"Zg",     "Zg=",  "Z===",     "Zm9v=",   "Zm 9v",
					  "Zm9v\n", "=Zm9", "Zg==Zg==", "Zm9v===="};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *coded = base64_encode(rows[i][0], strlen(rows[i][0])), *plain;
		size_t len;

		assert_string_equal(coded, rows[i][1]);
		assert_int_equal(base64_decode(coded, strlen(coded), &plain, &len, NULL), 0);
		assert_string_equal(plain, rows[i][0]);
		assert_int_equal(len, strlen(plain));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = {0};
		char *plain;
		size_t len;

		assert_int_equal(base64_decode(bad[i], strlen(bad[i]), &plain, &len, &err),
				 -EINVAL);
		assert_true(str_starts(err.msg, "bad base64: "));
	}
}

static void test_xml_paths(void **state)
{
	static const char text[] =
		"<?xml "
		"version='1.0'?>\n<A><D><ID>0</ID><T>a</T></D><D><ATTACH><![CDATA[YES]]></ATTACH>"
		"<T>x<![CDATA[<y>&]]>z</T></D><E/><D><T>c</T></D></A>";
	static const char *const rows[][2] = {
		{"D/T", "a"},
		{"D[ATTACH='YES']/T", "x<y>&z"},
		{"E", ""},
		{"D[ATTACH='NO']/T", NULL},
		{"D[ID='0']/ID", "0"},
		{"F|E/G|D/ID", "0"},
		{"F", NULL},
		{"D/ATTACH", "YES"},
		{"D[ATTACH/T", NULL},
	};
	AUTO_XML xmlDoc *doc = NULL;
	xmlNode *top;
	AUTO_STRBUF struct strbuf sb = {0};

	assert_int_equal(xml_read(text, strlen(text), "A", &doc, NULL), 0);
	top = xmlDocGetRootElement(doc);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *value = xml_value(top, rows[i][0]);

		if (rows[i][1])
			assert_string_equal(value, rows[i][1]);
		else
			assert_null(value);
	}
	assert_ptr_equal(xml_next(xml_find(top, "D")), xml_find(top, "D[ATTACH='YES']"));
	xml_print(&sb, xml_find(top, "D[ATTACH='YES']/T"));
	assert_string_equal(sb.data, "<T>x<![CDATA[<y>&]]>z</T>");
}

static void test_xml_refused(void **state)
{
	static const char *const rows[][2] = {
		{"<A>", "in line 1"},
		{"", "no element"},
		{"x", "begin with '<'"},
		{"<!DOCTYPE A><A/>", "document types"},
		{" <?x?> <!DOCTYPE A [<!ENTITY b 'c'>]><A>&b;</A>", "document types"},
		{"<?x", "does not end"},
		{"<A>&b;</A>", "Entity 'b' not defined"},
		{"<B/>", "root is <B> (want <A>)"},
		{"<A>\xff</A>", "in line 1"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		xmlDoc *doc = NULL;
		struct err err = {0};

		assert_int_equal(xml_read(rows[i][0], strlen(rows[i][0]), "A", &doc, &err),
				 -EINVAL);
		assert_non_null(strstr(err.msg, rows[i][1]));
		assert_null(doc);
	}
}

static void test_options(void **state)
{
	char *one[] = {
		(char *)"/x/one_vmm_exec",
		(char *)" -t 7 -r kvm -p -l migrate=migrate_local , Save,snapshot_create -w9"};
	char *many[] = {(char *)"one_vmm_sh", (char *)"--threads=3", (char *)"drover",
			(char *)"-i",         (char *)"--delegate",  (char *)"migrate,save"};
	AUTO_OPTIONS struct driver_options o = {.dir = NULL}, sh = {.dir = NULL};

	assert_int_equal(driver_options_read(2, one, &o, NULL), 0);
	assert_string_equal(o.dir, "kvm");
	assert_int_equal(o.threads, 7);
	assert_int_equal(o.retries, 0);
	assert_int_equal(o.timeout_s, 9);
	assert_true(o.parallel);
	assert_string_equal(list_find(&o.local, "migrate")->script, "migrate_local");
	assert_non_null(list_find(&o.local, "save"));
	assert_non_null(list_find(&o.local, "snapshotcreate"));
	assert_null(list_find(&o.local, "deploy"));
	assert_true(list_find(&o.delegate, "MIGRATE") && !o.delegate_given);
	assert_int_equal(driver_options_read(6, many, &sh, NULL), 0);
	assert_string_equal(sh.dir, "drover");
	assert_int_equal(sh.threads, 3);
	assert_true(list_find(&sh.local, "deploy") && list_find(&sh.local, "update_nic"));
	assert_true(sh.delegate_given && list_find(&sh.delegate, "save"));
	assert_true(words_hold("a kvm-ssh", "kvm-ssh") && !words_hold("kvm-sshx", "kvm-ssh"));
	assert_false(words_hold(NULL, "x"));
}

/* Every row can be found, is closed, and each of its steps has all that its driver needs. */
static void check_steps(const struct step *steps)
{
	size_t n = 0;

	for (const struct step *s = steps; s->driver != STEP_END; s++, n++) {
		assert_true(n < 20);
		assert_true(s->driver == STEP_TM || s->driver == STEP_DIR || s->name);
		assert_true(s->driver != STEP_VMM || s->in == IN_ACTION || s->in == IN_DEPLOY);
		if (s->undo)
			check_steps(s->undo);
	}
	assert_true(n > 0);
}

static void test_table(void **state)
{
	const struct action *a;
	unsigned count = 0;

	for (; (a = action_at(count)); count++) {
		assert_ptr_equal(action_find(a->word), a);
		check_steps(a->steps);
	}
	assert_int_equal(count, 27);
	assert_null(action_find("FLY"));
}

static void test_transfer_lines(void **state)
{
	struct tm_script s = {.prefix = "pre", .live = true};
	struct err err = {0};

	assert_int_equal(tm_read("SNAP.x local 'a b' \"c\"d e\\ f  /p:'q r'\n", "/r", &s, NULL), 0);
	assert_string_equal(s.name, "presnap_live");
	assert_string_equal(s.path, "/r/tm/local/presnap_live"); /* there is no script for .x */
	assert_int_equal(s.argc, 4);
	assert_string_equal(s.argv[0], "a b");
	assert_string_equal(s.argv[1], "cd");
	assert_string_equal(s.argv[2], "e f");
	assert_string_equal(s.argv[3], "/p:q r");
	tm_done(&s);
	assert_int_equal(tm_read("LN", "/r", &s, &err), -EINVAL);
	assert_int_equal(tm_read("LN ../x a", "/r", &s, &err), -EINVAL);
	assert_int_equal(tm_read("LN ssh 'a", "/r", &s, &err), -EINVAL);
	assert_string_equal(err.msg, "a quote in the transfer command does not close");
}

static void test_texts(void **state)
{
	static const char printed[] = "INFO: s: note\nERROR MESSAGE --8<------\nbo\nom\n"
				      "ERROR MESSAGE ------>8--\nWARN: x\n";
	struct ended e = {.code = 3, .shell = true, .command = "cmd", .out = "", .errors = printed};
	struct out out = {.fd = -1};
	AUTO_FREE char *old = text_reason(ERA_5, &e, "f"), *new = text_reason(ERA_6, &e, "f");
	AUTO_FREE char *answer = text_answer(" a\n\n b \n"), *nothing = text_answer("\n \n");

	assert_string_equal(old, "bo om");
	assert_string_equal(new, "ERROR MESSAGE --8<------boomERROR MESSAGE ------>8--ExitCode: 3");
	assert_string_equal(answer, "a b");
	assert_string_equal(nothing, "-");
	text_log(&out, ERA_5, 7, &e);
	assert_string_equal(out.lines.data,
			    "LOG I 7 Command execution fail: cmd\nLOG I 7 s: note\nLOG E 7 bo\n"
			    "LOG E 7 om\nLOG I 7 WARN: x\nLOG I 7 ExitCode: 3\n");
	out.lines.len = 0;
	e.shell = false;
	e.code = 0;
	text_log(&out, ERA_6, 7, &e);
	assert_string_equal(out.lines.data, "LOG I -1 s: note\nLOG W -1 x\n");
	out.lines.len = 0;
	out_log(&out, 'I', 1, "a\tb\xc3\xa4\xc3\x1b");
	assert_string_equal(out.lines.data, "LOG I 1 a b\xc3\xa4? \n");
	strbuf_done(&out.lines);
}

static void test_shell_marks(void **state)
{
	AUTO_STRBUF struct strbuf out = {0}, errors = {0};
	int code = -1;

	strbuf_puts(&out, "one-0EOF_OUT_");
	strbuf_puts(&errors, "ExitCode: 9 EOF_ERR_other\nboomExitCode: 17 EOF_ERR_n\n");
	assert_int_equal(shell_check(&out, &errors, "n", &code), SHELL_RUNNING);
	strbuf_puts(&out, "n\n");
	assert_int_equal(shell_check(&out, &errors, "n", &code), SHELL_ENDED);
	assert_int_equal(code, 17);
	assert_string_equal(out.data, "one-0");
	assert_string_equal(errors.data, "ExitCode: 9 EOF_ERR_other\nboom");
}

/* Order and content survive memory, the file, and taking from the middle. */
static void test_queue(void **state)
{
	struct queue q;
	struct message m;
	int next = 0;

	queue_init(&q);
	for (int i = 0; i < 200; i++) {
		m = (struct message){.id = i, .xml = xasprintf("%05d%*s", i, 10000, "x")};
		m.xml_len = strlen(m.xml);
		queue_push(&q, &m);
		assert_null(m.xml);
	}
	assert_true(q.in_memory <= QUEUE_MEMORY);
	assert_int_equal(queue_take(&q, 100, &m), 0);
	assert_int_equal(strtol(m.xml, NULL, 10), 100);
	message_done(&m);
	while (queue_count(&q) > 10) {
		next += next == 100;
		assert_int_equal(queue_at(&q, 0)->id, next);
		assert_int_equal(queue_take(&q, 0, &m), 0);
		assert_int_equal(strtol(m.xml, NULL, 10), next++);
		assert_int_equal(m.xml_len, strlen(m.xml));
		message_done(&m);
	}
	queue_done(&q);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64),      cmocka_unit_test(test_xml_paths),
		cmocka_unit_test(test_xml_refused), cmocka_unit_test(test_options),
		cmocka_unit_test(test_table),       cmocka_unit_test(test_transfer_lines),
		cmocka_unit_test(test_texts),       cmocka_unit_test(test_shell_marks),
		cmocka_unit_test(test_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
