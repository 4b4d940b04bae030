/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What scripts get on standard input, made of a message; see driver_input.h. Elements are printed
 * as they came, so that a script sees what the core wrote.
 */
#include "one/driver/driver_input.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "one/driver/driver_message.h"
#include "one/xml.h"

#define DEPLOY_FILE_MAX (64u << 20)

/* clang-format off */
/* What a network driver is given of the VM. */
static const char *const vnm_parts[] = {
	"TEMPLATE/SECURITY_GROUP_RULE", "TEMPLATE/NIC", "TEMPLATE/NIC_ALIAS", "TEMPLATE/PCI",
};
static const char *const vnm_history[] = { "HOSTNAME", "HID", "DS_ID", "VM_MAD" };
/* clang-format on */

static void print_if(struct strbuf *sb, xmlNode *node)
{
	if (node)
		xml_print(sb, node);
}

static void print_networks(const struct message *m, xmlNode *vm, struct strbuf *sb)
{
	strbuf_puts(sb, "<TEMPLATE>");
	print_if(sb, xml_find(vm, "TEMPLATE/CONTEXT"));
	for (size_t i = 0; i < ARRAY_SIZE(vnm_parts); i++) {
		bool rule = i == 0;

		if (str_ends(vnm_parts[i], "PCI") && m->era == ERA_5)
			continue;
		for (xmlNode *n = xml_find(vm, vnm_parts[i]); n; n = xml_next(n))
			if (rule || xml_find(n, "VN_MAD"))
				xml_print(sb, n);
	}
	strbuf_puts(sb, "</TEMPLATE>");
}

/* Source: fact sheet, 4.5, "vnm scripts". */
static void print_vnm(const struct message *m, xmlNode *top, struct strbuf *sb)
{
	xmlNode *vm = xml_find(top, "VM");

	strbuf_puts(sb, "<VM>");
	print_if(sb, xml_find(vm, "ID"));
	print_if(sb, xml_find(vm, "DEPLOY_ID"));
	print_networks(m, vm, sb);
	print_if(sb, xml_find(vm, "USER_TEMPLATE"));
	strbuf_puts(sb, "<HISTORY_RECORDS><HISTORY>");
	for (size_t i = 0; i < ARRAY_SIZE(vnm_history); i++) {
		AUTO_FREE char *path = xasprintf("HISTORY_RECORDS/HISTORY/%s", vnm_history[i]);

		if (m->era == ERA_6 || !str_eq(vnm_history[i], "HID"))
			print_if(sb, xml_find(vm, path));
	}
	strbuf_puts(sb, "</HISTORY></HISTORY_RECORDS></VM>");
}

static void print_failed_backup(xmlNode *top, struct strbuf *sb)
{
	print_if(sb, xml_find(top, "VM"));
	if (sb->len && str_ends(sb->data, "</VM>")) {
		sb->len -= strlen("</VM>");
		strbuf_puts(sb, "<BACKUP_RESULT>FAILURE</BACKUP_RESULT></VM>");
	}
}

static int read_deployment(xmlNode *top, struct strbuf *sb, struct err *err)
{
	AUTO_FREE char *path = xml_value(top, "LOCAL_DEPLOYMENT_FILE");
	AUTO_FREE char *text = NULL;
	struct err why = {0};
	int r = path && *path ? file_read(path, DEPLOY_FILE_MAX, &text, NULL, NULL, &why)
			      : err_set(&why, EINVAL, "the message names none");

	if (r >= 0 && !*text)
		r = err_set(&why, EINVAL, "it is empty");
	if (r < 0)
		return err_set(err, -r, "Cannot open deployment file %s: %s", path ? path : "",
			       err_text(&why, r));
	strbuf_puts(sb, text);
	return 0;
}

int input_make(const struct message *m, xmlNode *top, enum step_in in, struct strbuf *sb,
	       struct err *err)
{
	switch (in) {
	case IN_NONE:
		break;
	case IN_ACTION:
		strbuf_add(sb, m->xml, m->xml_len);
		break;
	case IN_DEPLOY:
		return read_deployment(top, sb, err);
	case IN_VNM:
		print_vnm(m, top, sb);
		break;
	case IN_VM:
	case IN_VM_64:
		print_if(sb, xml_find(top, "VM"));
		break;
	case IN_VM_FAILED:
		print_failed_backup(top, sb);
		break;
	case IN_STORE:
		print_if(sb, xml_find(top, "DATASTORE"));
		break;
	case IN_STORE_ACTION:
		strbuf_puts(sb, "<DS_DRIVER_ACTION_DATA>");
		print_if(sb, xml_find(top, "DATASTORE"));
		print_if(sb, xml_find(top, "VM"));
		strbuf_puts(sb, "</DS_DRIVER_ACTION_DATA>");
		break;
	}
	return 0;
}
