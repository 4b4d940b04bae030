# SPDX-License-Identifier: Apache-2.0
"""The test guest itself under plain QEMU: what the other tests build on."""

import os
import socket
import subprocess

import pytest

import drover


class Machine:
    """QEMU with the guest, its serial port on a pipe and QMP on a socket pair."""

    def __init__(self, images, cmdline, more=(), initrd="initramfs.gz", fds=()):
        ours, theirs = socket.socketpair()
        self.monitor = ours.makefile("rw")
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "128", "-nodefaults",
             "-no-user-config", "-display", "none", "-no-reboot", "-kernel", f"{images}/vmlinuz",
             "-initrd", f"{images}/{initrd}", "-append", f"console=ttyS0 quiet {cmdline}",
             "-serial", "stdio", "-chardev", f"socket,id=q,fd={theirs.fileno()}",
             "-mon", "chardev=q,mode=control", *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[theirs.fileno(), *fds])
        ours.close()
        theirs.close()
        self.text, self.at = b"", 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.monitor.close()

    def wait(self, text, seconds=30):
        """Read the serial port until text; None waits for its end."""
        deadline = drover.Deadline(seconds)
        while text is None or text.encode() not in self.text[self.at:]:
            got = b""
            if drover.wait_readable(self.process.stdout, deadline):
                got = os.read(self.process.stdout.fileno(), 65536)
                if not got and text is None:
                    return
            assert got, f"no {text!r} within {seconds} s: {self.text[-800:]!r}"
            self.text += got
        self.at = self.text.index(text.encode(), self.at) + len(text)

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def power_button(self):
        self.monitor.readline()
        self.monitor.write('{"execute":"qmp_capabilities"}\n{"execute":"system_powerdown"}\n')
        self.monitor.flush()


@pytest.mark.smoke
def test_power_button_and_shell(guest_images):
    with Machine(guest_images, "") as guest:
        guest.wait("GUEST-UP")
        guest.type("echo $((40 + 2)) is it\n")
        guest.wait("42 is it")
        guest.power_button()
        guest.wait("GUEST-BUTTON")
        guest.wait(None, 10)
        assert guest.process.wait(10) == 0


def test_ignore_button_and_poweroff(guest_images):
    with Machine(guest_images, "drover.ignore-button drover.poweroff=2") as guest:
        guest.wait("GUEST-UP")
        guest.power_button()
        guest.wait("GUEST-POWEROFF", 20)
        assert b"GUEST-BUTTON" not in guest.text
        guest.wait(None, 10)


@pytest.mark.parametrize("argument, text", [("drover.reboot=1", "GUEST-REBOOT"),
                                            ("drover.panic=1 panic=1", "Kernel panic")])
def test_reset(guest_images, argument, text):
    with Machine(guest_images, argument) as guest:
        guest.wait("GUEST-UP")
        guest.wait(text)
        guest.wait(None, 10)


def test_disk_net_and_devices(guest_images, tmp_path):
    disk = tmp_path / "disk.raw"
    with open(disk, "wb") as file:
        file.truncate(8 << 20)
    more = ["-drive", f"file={disk},format=raw,if=none,id=d",
            "-device", "virtio-blk-pci,drive=d,serial=abc", "-netdev", "user,id=n",
            "-device", "virtio-net-pci,netdev=n,mac=52:54:00:00:00:09"]
    with Machine(guest_images, "drover.disk=/dev/vda drover.net=dhcp drover.devices", more) as guest:
        guest.wait("DISK-OK")
        guest.wait("NET-UP 10.0.2.15/24")
        guest.wait("DEV block vda 8 MiB abc")
        guest.wait("DEV net eth0 52:54:00:00:00:09")
        guest.wait("DEV end")


def test_static_address_and_tick(guest_images):
    more = ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n"]
    with Machine(guest_images, "drover.net=10.9.8.7/24 drover.tick", more) as guest:
        guest.wait("NET-UP 10.9.8.7/24")
        guest.wait("TICK 50\r")


def test_agent(guest_images):
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    more = ["-device", "virtio-serial", "-chardev", f"socket,id=a,fd={theirs.fileno()}",
            "-device", "virtserialport,chardev=a,name=org.qemu.guest_agent.0"]
    with ours, theirs, Machine(guest_images, "drover.agent", more, "initramfs-agent.gz",
                               [theirs.fileno()]) as guest:
        guest.wait("AGENT-UP")
        ours.sendall(b'{"execute":"guest-sync","arguments":{"id":77}}\n')
        assert b'{"return": 77}' in ours.recv(4096)
