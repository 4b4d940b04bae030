#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The console command on a pseudo-terminal and on pipes: bytes both ways, Ctrl-], and the terminal put
back on every way out. Usage: console.py BUILD/src/cli. Speaks TAP.
"""
import os
import pathlib
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading

UUID = "54f1cc77-68f1-42ab-acac-5c4f64f5d6e0"
DEADLINE = 10


def vminfod(path):
    """Every request is answered with the running VM; vmstated says the same."""
    body = f'{{"uuid":"{UUID}","state":"running"}}'.encode()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve():
        while True:
            peer, _ = server.accept()
            peer.recv(65536)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            peer.close()

    threading.Thread(target=serve, daemon=True).start()


class Console:
    """One run of vmadm console; the guest's side is self.guest."""

    def __init__(self, tools, root, stdin=None, stdout=None, tool="vmadm"):
        folder = root / "run/vmstated" / UUID
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "vm.console"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(DEADLINE)
        self.process = subprocess.Popen([str(tools / tool), "--root", str(root), "console", UUID],
                                        stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)
        self.guest, _ = listener.accept()
        self.guest.settimeout(DEADLINE)
        listener.close()

    def end(self):
        self.process.stderr.close()
        return self.process.wait(DEADLINE)


def read_until(fd, want):
    got = b""
    while want not in got:
        if not select.select([fd], [], [], DEADLINE)[0]:
            raise AssertionError(f"{want} did not come, only {got}")
        got += os.read(fd, 65536)
    return got


def receive(sock, want):
    got = b""
    while len(got) < len(want):
        part = sock.recv(65536)
        assert part, f"closed after {got}"
        got += part
    assert got == want, got


def on_terminal(tools, root, leave):
    """leave(console, master) ends it; the terminal must be as before."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    console = Console(tools, root, slave, slave)
    console.guest.sendall(b"login: ")
    read_until(master, b"login: ")
    assert termios.tcgetattr(slave) != before, "terminal is not raw"
    os.write(master, b"root\x03\x04")
    receive(console.guest, b"root\x03\x04")
    leave(console, master)
    code = console.end()
    assert termios.tcgetattr(slave) == before, "terminal was not put back"
    os.close(master)
    os.close(slave)
    return code


def test_leave(tools, root):
    def leave(console, master):
        os.write(master, b"last\x1drest")
        receive(console.guest, b"last")

    assert on_terminal(tools, root, leave) == 0


def test_guest_ends(tools, root):
    def leave(console, master):
        console.guest.sendall(b"bye")
        console.guest.close()
        read_until(master, b"bye")

    assert on_terminal(tools, root, leave) == 0


def test_signals(tools, root):
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        code = on_terminal(tools, root, lambda c, m, n=number: c.process.send_signal(n))
        assert code == -number, code


def test_pipes(tools, root):
    """Much data both ways; the end of stdin does not end the output."""
    console = Console(tools, root, subprocess.PIPE, subprocess.PIPE)
    data = bytes(range(256)) * 4096
    threading.Thread(target=console.guest.sendall, args=(data,), daemon=True).start()
    reader = threading.Thread(target=receive, args=(console.guest, data), daemon=True)
    reader.start()

    def feed():
        console.process.stdin.write(data)
        console.process.stdin.close()

    threading.Thread(target=feed, daemon=True).start()
    assert console.process.stdout.read(len(data)) == data
    reader.join(DEADLINE)
    assert not reader.is_alive(), "the guest has not got everything"
    console.guest.sendall(b"more")
    assert console.process.stdout.read(4) == b"more"
    console.guest.close()
    console.process.stdout.close()
    assert console.end() == 0


def test_vmstatedctl(tools, root):
    """The same bridge, asking vmstated alone."""
    vminfod(root / "run/vmstated.sock")
    (root / "run/vminfod.http").unlink()
    console = Console(tools, root, subprocess.PIPE, subprocess.PIPE, "vmstatedctl")
    console.guest.sendall(b"history")
    assert console.process.stdout.read(7) == b"history"
    console.guest.close()
    console.process.stdout.close()
    console.process.stdin.close()
    assert console.end() == 0


def test_reader_leaves(tools, root):
    console = Console(tools, root, subprocess.DEVNULL, subprocess.PIPE)
    console.process.stdout.close()
    console.guest.sendall(b"x")
    assert console.end() == 0


def main():
    tools = pathlib.Path(sys.argv[1]).resolve()
    tests = [f for name, f in sorted(globals().items()) if name.startswith("test_")]
    print(f"1..{len(tests)}")
    bad = 0
    for number, test in enumerate(tests, 1):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "run").mkdir()
            vminfod(root / "run/vminfod.http")
            try:
                test(tools, root)
                print(f"ok {number} {test.__name__}")
            except Exception as why:  # each failure is one TAP line
                bad += 1
                print(f"not ok {number} {test.__name__}: {why!r}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
