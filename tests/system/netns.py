# SPDX-License-Identifier: Apache-2.0
"""A network namespace for a test, with all of its process in it meanwhile."""

import contextlib
import ctypes
import json
import os
import select
import socket
import struct
import subprocess

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            import pytest  # the benchmarks do without

            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        ip("link", "set", "lo", "up")
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)


@contextlib.contextmanager
def inside(pid):
    """In the network namespace of that process meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    home, there = (os.open(f"/proc/{one}/ns/net", os.O_RDONLY | os.O_CLOEXEC) for one in ("self", pid))
    try:
        assert libc.setns(there, CLONE_NEWNET) == 0
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)
        os.close(there)


def run(*argv, text=None):
    return subprocess.run(argv, check=True, capture_output=True, text=True, input=text).stdout


def ip(*arguments):
    return run("ip", *arguments)


def links():
    """{interface: its bridge or None} in the namespace."""
    return {link["ifname"]: link.get("master") for link in json.loads(ip("-j", "link"))}


def link(name):
    return json.loads(ip("-d", "-j", "link", "show", name))[0]


def taps():
    return {name: bridge for name, bridge in links().items() if name.startswith("vm")}


def tables():
    """Our nftables tables in the namespace."""
    return sorted(line.split()[2] for line in run("nft", "list", "tables").splitlines()
                  if line.split()[2].startswith("drover_"))


def taps_of(pid):
    """Names of the tap interfaces a process has open."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fdinfo"):
        with open(f"/proc/{pid}/fdinfo/{fd}", encoding="utf-8") as info:
            found += [line.split()[1] for line in info if line.startswith("iff:")]
    return found


# --- packets, as a guest would send them ---

GETFD = 438  # pidfd_getfd(2)
VNET = 10    # bytes before each packet on a tap opened for QEMU


class Tap:
    """The tap a (fake) QEMU has open, used in its place."""

    def __init__(self, pid, mac):
        libc = ctypes.CDLL(None, use_errno=True)
        (number,) = [int(fd) for fd in os.listdir(f"/proc/{pid}/fd")
                     if os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/net/tun"]
        process = os.pidfd_open(pid)
        self.fd = libc.syscall(GETFD, process, number, 0)
        os.close(process)
        assert self.fd >= 0, os.strerror(ctypes.get_errno())
        self.text = mac
        self.mac = bytes.fromhex(mac.replace(":", ""))
        self.marks = 0

    def close(self):
        os.close(self.fd)

    def send_to(self, target, ethertype, payload, source=None):
        os.write(self.fd, bytes(VNET) + target + (source or self.mac) +
                 struct.pack("!H", ethertype) + payload)

    def send(self, other, ethertype, payload, source=None):
        self.send_to(other.mac, ethertype, payload, source)

    def next_frame(self, deadline):
        """What is sent to this guest next."""
        assert select.select([self.fd], [], [], deadline.left())[0], "nothing came"
        return os.read(self.fd, 65536)[VNET:]

    def reaches(self, other, ethertype, payload, source=None):
        """Send one; whether it came to the other, seen by one sent after it that always does."""
        self.marks += 1
        mark = arp(self.mac, "0.0.0.0") + b"mark%04d" % self.marks
        self.send(other, ethertype, payload, source)
        self.send(other, 0x0806, mark)
        came = False
        while True:
            assert select.select([other.fd], [], [], 10)[0], "the mark did not come"
            got = os.read(other.fd, 65536)[VNET:]
            if got[14:].startswith(mark):
                return came
            came = came or got[12:14] == struct.pack("!H", ethertype) and \
                got[14:].startswith(payload)


def arp(mac, sender, target="10.9.0.99", reply=None):
    """A question, or the reply to a MAC."""
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2 if reply else 1) + mac + \
        socket.inet_aton(sender) + (reply or bytes(6)) + socket.inet_aton(target)


def udp4(source, ports, data=b"hello"):
    head = struct.pack("!BBHHHBB", 0x45, 0, 28 + len(data), 0, 0, 64, 17)
    addresses = socket.inet_aton(source) + socket.inet_aton("10.9.0.99")
    total = sum(struct.unpack("!9H", head + addresses))
    check = 0xffff - (total % 0xffff or 0xffff)  # the kernel's bridges may look
    return head + struct.pack("!H", check) + addresses + \
        struct.pack("!HHHH", *ports, 8 + len(data), 0) + data


def ipv6(source, protocol, data):
    return struct.pack("!IHBB", 6 << 28, len(data), protocol, 255) + \
        socket.inet_pton(socket.AF_INET6, source) + \
        socket.inet_pton(socket.AF_INET6, "ff02::1") + data


def udp6(source, ports, data=b""):
    return ipv6(source, 17, struct.pack("!HHHH", *ports, 8 + len(data), 0) + data)


def advertisement(source, address):
    """Of a neighbour: who has that address."""
    return ipv6(source, 58, struct.pack("!BBHI", 136, 0, 0, 0) +
               socket.inet_pton(socket.AF_INET6, address))


def router(source, *prefixes):
    """A router's advertisement; prefixes: (address, seconds) of 64 bits that make addresses."""
    options = b"".join(
        struct.pack("!BBBBIII", 3, 4, 64, 0xc0, seconds, seconds, 0) +
        socket.inet_pton(socket.AF_INET6, address) for address, seconds in prefixes)
    return ipv6(source, 58, struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + options)


def dhcp(mac, address, seconds=600, kind=5):
    """A DHCP server's acknowledgement, or another kind of message; a guest's when below 5."""
    op = 1 if kind in (4, 7) else 2
    ciaddr, yiaddr = (address, "0.0.0.0") if op == 1 else ("0.0.0.0", address)
    return struct.pack("!BBBBIHH", op, 1, 6, 0, 1, 0, 0) + socket.inet_aton(ciaddr) + \
        socket.inet_aton(yiaddr) + bytes(8) + mac + bytes(10 + 64 + 128) + b"\x63\x82\x53\x63" + \
        struct.pack("!BBBBBI", 53, 1, kind, 51, 4, seconds) + b"\xff"


def dhcp6(source, address, seconds, kind=7):
    """A DHCPv6 server's reply, or another kind of message."""
    one = socket.inet_pton(socket.AF_INET6, address) + struct.pack("!II", seconds, seconds)
    inner = struct.pack("!III", 1, 0, 0) + struct.pack("!HH", 5, len(one)) + one
    ports = (547, 546) if kind == 7 else (546, 547)
    data = struct.pack("!I", kind << 24 | 1) + struct.pack("!HH", 3, len(inner)) + inner
    return udp6(source, ports, data)
