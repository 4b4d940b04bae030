# SPDX-License-Identifier: Apache-2.0
"""The metadata service on the second serial port, and the NoCloud seed."""

import base64
import contextlib
import json
import pathlib
import re
import socket
import subprocess
import zlib

import drover
import pytest
from test_vmadmd import call, create

USER_DATA = "#cloud-config\nhostname: shop\n"


def frame(request, command, body=None):
    """A line of protocol 2; body: bytes."""
    text = f"{request} {command}"
    if body is not None:
        text += " " + base64.b64encode(body).decode()
    return f"V2 {len(text)} {zlib.crc32(text.encode()):08x} {text}\n"


def put(key, value, request="7"):
    both = base64.b64encode(key.encode()) + b" " + base64.b64encode(value.encode())
    return frame(request, "PUT", both)


class Guest:
    """The test in the guest's place: its end of the second serial port of a fake QEMU."""

    def __init__(self, cold, name=None):
        self.path = str(cold.root / f"ttyb-{name or 'any'}")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.port = self.sock = None
        self.data = b""
        cold.use_fake_qemu({"ttyb": self.path}, name)

    def boot(self, seconds=20):
        """Take the port's listening socket from QEMU, once it runs."""
        assert drover.wait_readable(self.listener, drover.Deadline(seconds))
        peer = self.listener.accept()[0]
        _, fds, _, _ = socket.recv_fds(peer, 16, 1)
        peer.close()
        self.port = socket.socket(fileno=fds[0])
        return self.meet(seconds)

    def meet(self, seconds=20):
        """vmadmd comes (again)."""
        assert drover.wait_readable(self.port, drover.Deadline(seconds)), "vmadmd did not connect"
        if self.sock:
            self.sock.close()
        self.sock, self.data = self.port.accept()[0], b""
        return self

    def line(self, seconds=20):
        deadline = drover.Deadline(seconds)
        while b"\n" not in self.data:
            assert drover.wait_readable(self.sock, deadline), f"no line; {self.data[-200:]!r}"
            got = self.sock.recv(65536)
            assert got, "the port closed"
            self.data += got
        line, self.data = self.data.split(b"\n", 1)
        return line.decode()

    def ask(self, text):
        self.sock.sendall(text.encode())
        return self.line()

    def value(self, key):
        """GET by protocol 1."""
        answer = self.ask(f"GET {key}\n")
        if answer != "SUCCESS":
            return answer
        lines = []
        while (line := self.line()) != ".":
            lines.append(line)
        return "\n".join(lines)

    def frame(self, text):
        """Send a frame; (code, body) of a whole and right answer."""
        version, length, crc, rest = self.ask(text).split(" ", 3)
        assert (version, int(length), crc) == ("V2", len(rest), f"{zlib.crc32(rest.encode()):08x}")
        _, code, *body = rest.split(" ")
        return code, base64.b64decode(body[0]).decode() if body else ""

    def close(self):
        for sock in (self.sock, self.port, self.listener):
            if sock:
                sock.close()


@pytest.fixture
def guest(cold):
    made = Guest(cold)
    yield made
    made.close()


def start(cold, **members):
    cold.start()
    uuid = create(cold, cold.payload("web0", **members))["uuid"]
    call(cold, "POST", f"/vm/{uuid}?action=start&wait=1")
    return uuid


def test_guest_reads(cold, guest):
    """Both protocols; what lives where."""
    start(cold, hostname="shop", customer_metadata={"user-script": "echo\n.hidden", "n": 3},
          internal_metadata={"root_pw": "secret", "ops:a": "b", "other": "unseen"},
          internal_metadata_namespaces=["ops"])
    guest.boot()
    assert guest.ask("\n") == "invalid command"
    assert guest.value("user-script") == "echo\n..hidden"
    assert guest.value("root_pw") == "secret" and guest.value("ops:a") == "b"
    assert guest.value("other") == "NOTFOUND"
    assert guest.value("sdc:hostname") == "shop" and guest.value("sdc:state") == "running"
    assert guest.value("sdc:ram") == "128" and guest.value("sdc:vnc_password") == "NOTFOUND"
    assert guest.ask("NEGOTIATE V2\n") == "V2_OK"
    assert guest.frame(frame("1", "GET", b"n")) == ("SUCCESS", "3")
    assert guest.frame(frame("2", "KEYS")) == ("SUCCESS", "user-script\nn\nroot_pw\nops:a")
    assert guest.frame(frame("3", "GET", b"nothing")) == ("NOTFOUND", "")
    assert guest.ask("V2 5 00000000 1 GET\n") == "invalid command"


def test_guest_writes(cold, guest):
    """PUT and DELETE are changes like any other, with the guest as their cause."""
    uuid = start(cold, internal_metadata_namespaces=["ops"])
    guest.boot()
    with cold.events(query="?cause=1") as events:
        assert guest.frame(put("state", "ready: \u00fc")) == ("SUCCESS", "OK")
        event = events.wait(lambda ev: ev["type"] == "modify" and ev["zonename"] == uuid and
                            "customer_metadata" in json.dumps(ev["changes"]))
        assert event["cause"]["by"] == "guest", event["cause"]
        assert cold.vm(uuid)["customer_metadata"] == {"state": "ready: \u00fc"}
        assert guest.value("state") == "ready: \u00fc"
        assert guest.frame(put("new_pw", "x")) == ("SUCCESS", "OK")
        assert guest.frame(put("ops:a", "x"))[0] == "FAILURE"
        assert guest.frame(put("sdc:uuid", "x")) == (
            "FAILURE", 'Cannot update the "sdc" Namespace.')
        assert guest.frame(frame("8", "DELETE", b"state")) == ("SUCCESS", "OK")
        events.wait(lambda ev: ev["type"] == "modify" and any(
            c["action"] == "removed" and "state" in c["prettyPath"] for c in ev["changes"]))
    vm = cold.vm(uuid)
    assert vm["customer_metadata"] == {} and vm["internal_metadata"] == {"new_pw": "x"}
    call(cold, "PUT", f"/vm/{uuid}", {"set_customer_metadata": {"from": "outside"}})
    assert guest.value("from") == "outside"


def test_daemon_and_guest_come_again(cold, guest):
    uuid = start(cold, customer_metadata={"k": "v"})
    guest.boot()
    assert guest.value("k") == "v"
    guest.sock.sendall(b"GET half of a li")
    cold.kill9("vmadmd")
    cold.start("vmadmd")
    guest.meet()
    assert guest.value("k") == "v"
    call(cold, "POST", f"/vm/{uuid}?action=stop&force=1&wait=1")
    guest.port.close()
    call(cold, "POST", f"/vm/{uuid}?action=start&wait=1")
    guest.boot()
    assert guest.value("k") == "v"


def test_hostile_guest(cold, guest):
    """Endless lines, bad frames and floods are the guest's own loss; others are served at once."""
    uuid = start(cold, customer_metadata={"big": "x" * 100000})
    guest.boot()
    piece = b"A" * 65536
    for _ in range(64):
        guest.sock.sendall(piece)
    guest.sock.sendall(b"\n")
    assert guest.line() == "invalid command"
    assert guest.value("big") == "x" * 100000
    # Answers are not taken: requests wait in the guest's own port.
    guest.sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            guest.sock.sendall(b"GET big\n" * 1000)
    assert call(cold, "GET", "/ping").json() == {"ping": "pong"}
    status = pathlib.Path(f"/proc/{cold.daemons['vmadmd'].pid}/status").read_text()
    rss = int(re.search(r"VmRSS:\s+(\d+)", status).group(1))
    assert rss < 400000, f"{rss} kB"  # with a sanitizer's shadow
    # Changes come no faster than fifty in ten seconds.
    guest.sock.close()
    guest.sock = None
    call(cold, "POST", f"/vm/{uuid}?action=stop&force=1&wait=1")
    guest.port.close()
    call(cold, "POST", f"/vm/{uuid}?action=start&wait=1")
    guest.boot()
    guest.sock.sendall("".join(put("k", str(n)) for n in range(60)).encode())
    for _ in range(50):
        assert " SUCCESS " in guest.line()
    assert not drover.wait_readable(guest.sock, drover.Deadline(1))
    assert call(cold, "GET", "/ping").json() == {"ping": "pong"}
    assert cold.vm(uuid)["customer_metadata"]["k"] == "49"


# --- the real guest ---


def seed_files(path):
    """{name: content} of the volume, read by another program."""
    names = subprocess.run(["isoinfo", "-R", "-f", "-i", path], capture_output=True, text=True,
                           check=True).stdout.split()
    return {name[1:]: subprocess.run(["isoinfo", "-R", "-x", name, "-i", path], text=True,
                                     capture_output=True, check=True).stdout for name in names}


def test_guest_reads_both(suite):
    """A real guest asks on ttyS1, sets a key, and finds user-data on the seed."""
    made = create(suite, suite.payload(
        "web0", "drover.modules", hostname="shop", nics=[{"nic_tag": "user", "model": "virtio"}],
        customer_metadata={"k": "hello", "user-data": USER_DATA},
        internal_metadata={"cloudinit_datasource": "nocloud"}))
    uuid = made["uuid"]
    with suite.events() as events:
        call(suite, "POST", f"/vm/{uuid}?action=start&wait=1")
        events.wait_vm(uuid, lambda vm: vm.get("ready"), 60)
    with suite.console(uuid) as console:
        def run(line, want):
            console.send(line + "\n")
            console.wait(want, 30)

        # What is typed comes back as an echo: the text waited for is not in the line as typed.
        run("busybox stty -F /dev/ttyS1 raw -echo; exec 7<>/dev/ttyS1; echo rea''dy", "ready")
        run("echo 'GET k' >&7; read -r a <&7; read -r b <&7; read -r c <&7; echo got:$a:$b:$c",
            "got:SUCCESS:hello:.")
        run(f"printf '{put('fromguest', 'yes').strip()}\\n' >&7; read -r a <&7; echo got:$a",
            "got:V2 14 ")
        run("busybox mkdir /s; busybox mount -t iso9660 -r /dev/sr0 /s; busybox ls /s; "
            "busybox cat /s/user-data; echo all-se''en", "all-seen")
        said = console.data.decode()
    assert all(name in said for name in ["meta-data", "network-config", "user-data", "vendor-data"])
    assert "hostname: shop" in said
    assert suite.vm(uuid)["customer_metadata"]["fromguest"] == "yes"
    files = seed_files(suite.data_dir(uuid) / "seed.iso")
    assert files["user-data"] == USER_DATA
    assert json.loads(files["meta-data"]) == {"instance-id": uuid, "local-hostname": "shop"}
    nic = suite.vm(uuid)["nics"][0]
    assert json.loads(files["network-config"])["ethernets"]["net0"]["match"] == {
        "macaddress": nic["mac"]}


def test_seed_follows_metadata(cold):
    """Made anew at a start after its inputs changed, left alone otherwise, gone when not wanted."""
    cold.use_fake_qemu()
    uuid = start(cold, customer_metadata={"cloud-init:user-data": "first"},
                 nics=[{"nic_tag": "user", "model": "virtio", "ips": ["10.0.0.5/24"],
                        "gateways": ["10.0.0.1"]}], resolvers=["10.0.0.2"])
    seed = cold.data_dir(uuid) / "seed.iso"

    def again():
        call(cold, "POST", f"/vm/{uuid}?action=stop&force=1&wait=1")
        call(cold, "POST", f"/vm/{uuid}?action=start&wait=1")

    files = seed_files(seed)
    net0 = json.loads(files["network-config"])["ethernets"]["net0"]
    assert (net0["addresses"], net0["gateway4"], net0["nameservers"]) == (
        ["10.0.0.5/24"], "10.0.0.1", {"addresses": ["10.0.0.2"]})
    before = seed.stat().st_ino
    again()
    assert seed.stat().st_ino == before and files["user-data"] == "first"
    call(cold, "PUT", f"/vm/{uuid}", {"set_customer_metadata": {"cloud-init:user-data": "second"}})
    assert seed_files(seed)["user-data"] == "first"
    again()
    assert seed_files(seed)["user-data"] == "second"
    call(cold, "PUT", f"/vm/{uuid}", {"remove_customer_metadata": ["cloud-init:user-data"]})
    again()
    assert not seed.exists()
