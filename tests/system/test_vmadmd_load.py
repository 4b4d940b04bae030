# SPDX-License-Identifier: Apache-2.0
"""vmadmd under load: many clients at once, nonsense on the wire, ten thousand requests."""

import http.client
import os
import socket

import drover
import pytest
from test_vmadmd import call
from test_vmadmd_qmp import fake

CLIENTS = 500


def answer_of(sock):
    reply = http.client.HTTPResponse(sock)
    reply.begin()
    return reply.status, reply.read()


def test_many_clients(cold):
    """500 at once, all with a request under way before the first answer is read."""
    uuid, = fake(cold, {"commands": {"qmp:query-pci": {"delay_ms": 300}}}, "web0")
    targets = ["/ping", "/stats", f"/vm/{uuid}?type=pci", "/jobs", "/vm/nobody"]
    clients = []
    for number in range(CLIENTS):
        sock = drover.unix_connect(cold.socket("vmadmd"))
        sock.settimeout(30)
        target = targets[number % len(targets)]
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        clients.append((target, sock))
    for target, sock in clients:
        status, body = answer_of(sock)
        assert status == (404 if target == "/vm/nobody" else 200), (target, status, body)
        sock.close()


NONSENSE = [
    b"\r\n\r\n", b"GET\r\n\r\n", b"GET /ping\r\n\r\n", b"\0\0\0\0\r\n\r\n",
    b"GET /ping HTTP/9.9\r\n\r\n",
    b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /ping HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
    b"POST /vms HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /vms HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /vms HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{{{{",
    b"POST /vms HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /vm/%00%ff?action=%zz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"GET /vm/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01",
    b"DELETE /jobs/ HTTP/1.1\r\nHost: x\r\n\r\n", b"BREW /ping HTTP/1.1\r\nHost: x\r\n\r\n",
]


def test_nonsense(cold):
    """Whatever is sent is refused or cut off, and others are served meanwhile."""
    cold.start("vmadmd")
    open_ends = []
    for text in NONSENSE:
        sock = drover.unix_connect(cold.socket("vmadmd"))
        sock.settimeout(5)
        try:
            sock.sendall(text)
        except (BrokenPipeError, ConnectionResetError):
            pass
        open_ends.append((text, sock))
        assert call(cold, "GET", "/ping").json() == {"ping": "pong"}
    for text, sock in open_ends:
        try:
            sock.shutdown(socket.SHUT_WR)
            got = sock.recv(4096)
        except OSError:
            got = b""
        words = got.split(b" ", 2)
        assert not got or words[1] in (b"400", b"404", b"405", b"413", b"414", b"431", b"501",
                                       b"505"), (text[:60], got)
        sock.close()
    assert call(cold, "GET", "/ping").json() == {"ping": "pong"}


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@pytest.mark.timeout(90)
def test_ten_thousand_requests(cold):
    """Neither memory nor descriptors grow."""
    cold.env["ASAN_OPTIONS"] += ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64"
    uuid, = fake(cold, {}, "web0")
    daemon = cold.daemons["vmadmd"]
    targets = [("GET", f"/vm/{uuid}?type=status,vnc", 200), ("GET", "/stats", 200),
               ("GET", "/ping", 200), ("GET", "/vm/nobody", 404), ("GET", "/jobs", 200),
               ("POST", f"/vm/{uuid}?action=sysrq&request=nmi", 202),
               ("POST", f"/vm/{uuid}?action=nothing", 400), ("GET", "/nowhere", 404)]
    connection = drover.UnixHTTPConnection(cold.socket("vmadmd"), 20)
    seen = {}
    for number in range(10000):
        method, target, status = targets[number % len(targets)]
        connection.request(method, target)
        reply = connection.getresponse()
        reply.read()
        assert reply.status == status, (target, reply.status)
        if number in (1999, 9999):
            seen[number] = rss_kib(daemon.pid), len(os.listdir(f"/proc/{daemon.pid}/fd"))
    connection.close()
    (rss, fds), (rss_after, fds_after) = seen[1999], seen[9999]
    assert fds_after == fds and rss_after - rss < 2048, seen
