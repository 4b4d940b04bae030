/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest of 512 bytes that boots in a second where everything is emulated twice. It says GUEST-UP on
 * its first serial port and powers off when the ACPI power button is pressed. With DEAF the button is
 * not seen; with SPIN it takes all the CPU it gets. Ports are those SeaBIOS gives to q35: PM1 status
 * at 0x600, enable at 0x602, control at 0x604.
 */
.code16
_start:
	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %ss
	mov $0x7c00, %sp
	ljmp $0, $0x7c00 + (1f - _start)
1:	mov $0x7c00 + (text - _start), %si
	mov $0x3f8, %dx
2:	lodsb
	test %al, %al
	jz 3f
	out %al, %dx
	jmp 2b
3:
.ifndef DEAF
	mov $0x602, %dx
	mov $0x100, %ax /* the button may tell */
	out %ax, %dx
.endif
	sti
4:
.ifndef SPIN
	hlt /* until the next tick */
.endif
	mov $0x600, %dx
	in %dx, %ax
	test $0x100, %ax
	jz 4b
	mov $0x604, %dx
	mov $0x2000, %ax /* sleep type 0, now: soft off */
	out %ax, %dx
5:	hlt
	jmp 5b
text:	.asciz "GUEST-UP\r\n"
	.org 510
	.word 0xaa55
