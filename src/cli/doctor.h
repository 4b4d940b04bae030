/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmadm doctor: facts of a host as one JSON object (doctor_facts.c), and a table of checks that
 * judge them and nothing else (doctor_checks.c), so that facts of another host can be judged as
 * well, and each check be provoked by a test.
 *
 * Members: uid, daemons{NAME:{reachable, error?, nofile?, memlock_mib?}}, accel, files{NAME:{lost,
 * overflows}}, failed[{name, reason}], broken[{name, reason}], silent[{name, reason}], problems[],
 * space[{what, path, free_mib, total_mib, inodes_free?}], sockets[{path, mode, socket}],
 * untrusted[], private[], kvm, network{bridges{NAME:{exists, uplink, vms}}, nf_iptables,
 * nf_ip6tables, ip_forward, drops[{family, table, chain}], error?}. What could not be learned is
 * absent.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct cli;
struct strbuf;

enum verdict { VERDICT_OK, VERDICT_UNKNOWN, VERDICT_WARN, VERDICT_BAD };

json_t *doctor_facts(struct cli *cli);

/* doctor_network.c: the member `network`; vms: VM objects with alias and nics. */
json_t *doctor_network(const json_t *vms);

/* All checks: [{check, result, text, remedy?}]; *ret_worst of them. */
json_t *doctor_judge(const json_t *facts, enum verdict *ret_worst);
