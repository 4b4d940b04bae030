/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to the room: the functions the rows of the property tables name. Findings go to p; where
 * and key are as in base/problems.h.
 */
#pragma once
#include <stdbool.h>

#include <jansson.h>

struct problems;
struct vm;

/* --- checks of single values, see struct prop --- */
void check_uuid(const char *value, const char *where, const char *key, struct problems *p);
void check_name(const char *value, const char *where, const char *key, struct problems *p);
void check_mac(const char *value, const char *where, const char *key, struct problems *p);
void check_ip(const char *value, const char *where, const char *key, struct problems *p);
void check_ip4(const char *value, const char *where, const char *key, struct problems *p);
void check_nic_ip(const char *value, const char *where, const char *key, struct problems *p);
void check_cidr(const char *value, const char *where, const char *key, struct problems *p);
void check_netmask(const char *value, const char *where, const char *key, struct problems *p);
void check_nic_tag(const char *value, const char *where, const char *key, struct problems *p);
void check_interface(const char *value, const char *where, const char *key, struct problems *p);
void check_ifname(const char *value, const char *where, const char *key, struct problems *p);
void check_forward(const char *value, const char *where, const char *key, struct problems *p);
void check_port(const char *value, const char *where, const char *key, struct problems *p);
void check_cpus(const char *value, const char *where, const char *key, struct problems *p);
void check_hugepages(const char *value, const char *where, const char *key, struct problems *p);
void check_block_size(const char *value, const char *where, const char *key, struct problems *p);
void check_path(const char *value, const char *where, const char *key, struct problems *p);
/* "nbd:host:10809" and the like are no files: not relative to anything. */
bool path_has_protocol(const char *path);
void check_word(const char *value, const char *where, const char *key, struct problems *p);
void check_namespace(const char *value, const char *where, const char *key, struct problems *p);
void check_boot(const char *value, const char *where, const char *key, struct problems *p);
void check_after(const char *value, const char *where, const char *key, struct problems *p);
void check_vnc_password(const char *value, const char *where, const char *key, struct problems *p);
void check_spice_port(const char *value, const char *where, const char *key, struct problems *p);
void check_disk_driver(const char *value, const char *where, const char *key, struct problems *p);
void check_nic_driver(const char *value, const char *where, const char *key, struct problems *p);

/* --- rules across members, in the order of the rows that carry them --- */
void rule_name(const struct vm *vm, struct problems *p);
void rule_hugepages(const struct vm *vm, struct problems *p);
void rule_vcpus(const struct vm *vm, struct problems *p);
void rule_disks(const struct vm *vm, struct problems *p);
void rule_nics(const struct vm *vm, struct problems *p);
void rule_consoles(const struct vm *vm, struct problems *p);
void rule_routes(const struct vm *vm, struct problems *p);
void rule_kernel(const struct vm *vm, struct problems *p);
void rule_bootrom(const struct vm *vm, struct problems *p);
void rule_nvram(const struct vm *vm, struct problems *p);
void rule_after(const struct vm *vm, struct problems *p);
void rule_uuid(const struct vm *vm, struct problems *p);

/* --- computed members; fact: the fact of that name, borrowed, NULL without --- */
json_t *compute_zonename(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_brand(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_last_modified(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_state(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_zone_state(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_failed(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_true(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_null(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_type(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_zonedid(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_zonepath(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_zfs_filesystem(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_snapshots(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_v(const struct vm *vm, const json_t *facts, const json_t *fact);
json_t *compute_true_only(const struct vm *vm, const json_t *facts, const json_t *fact);
