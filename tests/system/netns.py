# SPDX-License-Identifier: Apache-2.0
"""A network namespace for a test, with all of its process in it meanwhile."""

import contextlib
import ctypes
import json
import os
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
