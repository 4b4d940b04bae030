# SPDX-License-Identifier: Apache-2.0
"""User-mode networking of a real guest: a forwarded port of the host leads into it."""

import contextlib
import socket

import pytest

from drover import Deadline


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.campaign
def test_forward_leads_into_the_guest(suite):
    port = free_port()
    suite.write_definition("web0", suite.guest("drover.net=dhcp", nic=[
        f'net0 {{ bridge = user; forward = [ "tcp:127.0.0.1:{port}-:22" ]; }}']))
    suite.vmstatedctl("start", "web0", seconds=60)
    suite.log_wait("web0", "NET-UP 10.0.2.15", 60)
    with suite.console(suite.uuid("web0")) as console:
        console.wait("guest# ", 60)
        console.send("while :; do echo HELLO''-OUT | nc -l -p 22; done &\n")
        heard, deadline = b"", Deadline(30)
        while b"HELLO-OUT" not in heard and not deadline.over():
            with contextlib.suppress(OSError), \
                    socket.create_connection(("127.0.0.1", port), deadline.left()) as sock:
                sock.settimeout(2)
                heard = sock.recv(100)  # nothing before the guest listens
    assert heard == b"HELLO-OUT\n"
    # A port that is taken refuses the start and is named.
    suite.write_definition("web1", suite.guest(maxrestart=0, onfailure="fail", nic=[
        f'net0 {{ bridge = user; forward = [ "tcp:127.0.0.1:{port}-:22" ]; }}']))
    refused = suite.vmstatedctl("start", "web1", check=1)
    assert "forwarding rule" in refused.stderr and str(port) in refused.stderr, refused.stderr
    suite.vmstatedctl("stop", "-F", "web0")
