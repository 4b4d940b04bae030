/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one Ethernet frame on a guest's wire says of the addresses it was given: DHCP, DHCPv6,
 * router advertisements. Pure; frames are anybody's. Source: RFC 2131, 2132, 8415, 4861, 4862.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEARD_MAX     16         /* addresses one frame may tell of */
#define HEARD_FOREVER UINT32_MAX /* seconds */

struct heard {
	bool v6;
	uint8_t prefix; /* 32, 128; 64: any address of an announced prefix */
	uint8_t address[16];
	uint32_t seconds; /* it may be used for; 0: it is given back, or refused */
};

/*
 * mac: of the guest's NIC. to_guest: it is on its way to the guest, so a server or a router spoke;
 * else the guest did. Returns how many are in out.
 */
size_t heard_in(const uint8_t *frame, size_t len, const uint8_t mac[6], bool to_guest,
		struct heard out[HEARD_MAX]);
