# SPDX-License-Identifier: Apache-2.0
"""Live migration over TLS: both sides show a certificate of one CA, or nothing happens."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading

import drover
import pytest
from test_live_migrate import gone, machine, other, settled  # noqa: F401 (other is a fixture)


class Authority:
    """A CA, and certificates of it."""

    def __init__(self, folder, name="ca"):
        self.folder, self.name = folder, name
        folder.mkdir(exist_ok=True)
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                      "-out", f"{name}.pem")

    def _openssl(self, *words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=self.folder)

    def issue(self, suite, names="IP:127.0.0.1,DNS:localhost", dates=()):
        """A key and a certificate into this root's place for them, and our CA beside them."""
        place = suite.root / "etc/vmadmd/tls"
        place.mkdir(parents=True, exist_ok=True)
        extensions = self.folder / "extensions"
        extensions.write_text(f"subjectAltName={names}\n")
        self._openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-subj", "/CN=host", "-keyout", "host.key", "-out", "host.csr")
        if dates:
            (self.folder / "index").write_text("")
            (self.folder / "serial").write_text("01\n")
            (self.folder / "ca.conf").write_text(
                "[ca]\ndefault_ca=it\n[it]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n"
                "default_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n")
            self._openssl("ca", "-batch", "-config", "ca.conf", "-cert", f"{self.name}.pem",
                          "-keyfile", f"{self.name}.key", "-in", "host.csr", "-out", "host.pem",
                          "-startdate", dates[0], "-enddate", dates[1], "-extfile", "extensions")
        else:
            self._openssl("x509", "-req", "-in", "host.csr", "-CA", f"{self.name}.pem", "-CAkey",
                          f"{self.name}.key", "-CAcreateserial", "-days", "1", "-extfile",
                          "extensions", "-out", "host.pem")
        shutil.copy(self.folder / f"{self.name}.pem", place / "ca.pem")
        shutil.copy(self.folder / "host.pem", place / "cert.pem")
        shutil.copy(self.folder / "host.key", place / "key.pem")
        (place / "key.pem").chmod(0o600)


@pytest.fixture
def authority(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    return Authority(tmp_path / "ca")


def listening(suite):
    """It listens on a port of its own; the port."""
    daemon = suite.restart("vmadmd", arguments=("--tls", "127.0.0.1:0"))
    return int(re.search(r"TLS for VMs .* port=(\d+)", daemon.output()).group(1))


def logged(suite, text):
    deadline = drover.Deadline(10)
    while text not in suite.daemons["vmadmd"].output():
        assert not deadline.over(), suite.daemons["vmadmd"].output()
        signal.sigtimedwait([signal.SIGUSR2], 0.05)


def test_there(suite, other, authority, tmp_path):
    """Control, memory and a disk arrive; what a certificate must be, each refusal by name."""
    authority.issue(suite)
    authority.issue(other)
    port = listening(other)
    uuid = machine(suite)
    disk = next(suite.data_dir(uuid).glob("*.qcow2"))
    subprocess.run(["qemu-io", "-c", "write -P 0xab 0 16M", disk], check=True, capture_output=True)
    suite.vmadm("start", uuid)

    def refused(*words):
        said = suite.vmadm("migrate", uuid, f"tls://127.0.0.1:{port}", check=None).stderr
        assert all(word in said for word in words), said
        assert suite.vm(uuid)["run_state"] == "running"

    Authority(tmp_path / "second", "second").issue(suite)
    refused("the certificate of 127.0.0.1: it is not of our CA")
    shutil.copy(authority.folder / "ca.pem", suite.root / "etc/vmadmd/tls/ca.pem")
    refused("the peer refuses our certificate")
    logged(other, "the peer shows no certificate of our CA")
    authority.issue(suite, dates=("20200101000000Z", "20210101000000Z"))
    refused("the peer refuses our certificate")
    logged(other, "the certificate of the peer: it has expired")
    (suite.root / "etc/vmadmd/tls/key.pem").chmod(0o644)
    refused("key.pem", "others may read it (chmod 600)")
    (suite.root / "etc/vmadmd/tls/key.pem").unlink()
    refused("key.pem", "No such file")
    authority.issue(suite)
    authority.issue(other, names="DNS:elsewhere.example")
    refused("the certificate of 127.0.0.1: it is for another host name")
    authority.issue(other)
    suite.vmadm("migrate", uuid, f"tls://127.0.0.1:{port}")
    gone(suite, uuid)
    assert other.vm(uuid)["run_state"] == "running"
    other.vmadm("stop", "-F", uuid)
    disk = next(other.data_dir(uuid).glob("*.qcow2"))
    said = subprocess.run(["qemu-io", "-r", "-c", "read -P 0xab 0 16M", disk], check=True,
                          capture_output=True, text=True).stdout
    assert "verification failed" not in said
    settled(suite, other, uuid)


def dial(suite, port, with_certificate=True):
    place = suite.root / "etc/vmadmd/tls"
    context = ssl.create_default_context(cafile=place / "ca.pem")
    if with_certificate:
        context.load_cert_chain(place / "cert.pem", place / "key.pem")
    wire = socket.create_connection(("127.0.0.1", port), timeout=10)
    return context.wrap_socket(wire, server_hostname="127.0.0.1")


def asked(stream, text):
    stream.sendall(text)
    data = b""
    while part := stream.recv(4096):
        data += part
    return data


def test_what_a_stranger_gets(suite, authority):
    """Without a certificate nothing; with one, nothing but the sending of VMs."""
    authority.issue(suite)
    port = listening(suite)
    with pytest.raises(ssl.SSLError), dial(suite, port, with_certificate=False) as stream:
        asked(stream, b"DROVER-PEER-1 ping\n")
    logged(suite, "the peer shows no certificate of our CA")
    with dial(suite, port) as stream:
        assert asked(stream, b"DROVER-PEER-1 ping\n") == b"ok\n"
    uuid = "6c3b2f10-0d55-4c1c-8a9e-000000000001"
    for line in (b"GET / HTTP/1.1\r\n\n", b"DROVER-PEER-1 nbd ../../x\n", b"x" * 300 + b"\n"):
        with dial(suite, port) as stream:
            assert asked(stream, line) == b""
    with dial(suite, port) as stream:
        assert asked(stream, f"DROVER-PEER-1 nbd {uuid}\n".encode()) == b"that is not here\n"
    head = b"Host: localhost\r\nConnection: close\r\n"
    for request in (b"GET /vms HTTP/1.1\r\n" + head + b"\r\n",
                    b"POST /vms HTTP/1.1\r\n" + head + b"Content-Length: 2\r\n\r\n{}",
                    b"POST /arrivals HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"):
        with dial(suite, port) as stream:
            assert asked(stream, b"DROVER-PEER-1 http\n" + request) == b"ok\n"
    with dial(suite, port) as stream:
        said = asked(stream, b"DROVER-PEER-1 http\nPOST /arrivals HTTP/1.1\r\n" + head +
                     b"Content-Length: 2\r\n\r\n{}")
        assert said.startswith(b"ok\nHTTP/1.1 400") and b"version: want 1" in said
    # The second request of a connection is nobody's.
    with dial(suite, port) as stream:
        one = b"POST /arrivals HTTP/1.1\r\n" + head + b"Content-Length: 2\r\n\r\n{}"
        said = asked(stream, b"DROVER-PEER-1 http\n" + one + b"GET /ping HTTP/1.1\r\n" + head +
                     b"\r\n")
        assert said.count(b"HTTP/1.1") == 1


def test_more_than_buffers_hold(suite, authority):
    """Whole, either way, however slowly the other side reads."""
    authority.issue(suite)
    port = listening(suite)
    uuid = "6c3b2f10-0d55-4c1c-8a9e-000000000001"
    suite.run_dir(uuid).mkdir(parents=True)
    data = os.urandom(1 << 20) * 24
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(suite.run_dir(uuid), os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/vm.nbd")
        os.close(folder)
        listener.listen()
        with dial(suite, port) as stream:
            stream.sendall(f"DROVER-PEER-1 nbd {uuid}\n".encode())
            near = listener.accept()[0]
            assert stream.recv(3) == b"ok\n"
            for sender, reader in ((near, stream), (stream, near)):
                thread = threading.Thread(target=sender.sendall, args=(data,), daemon=True)
                thread.start()
                got = bytearray()
                while len(got) < len(data) and (part := reader.recv(16384)):
                    got += part
                assert got == data
                thread.join()
            near.close()
            assert stream.recv(1) == b""


def test_what_is_not_there(suite, tmp_path):
    """Told at the start."""
    suite.stop("vmadmd")
    status, said = suite.refused("vmadmd", "--tls", "127.0.0.1:0")
    assert status == 1 and "--tls 127.0.0.1:0" in said and "key.pem" in said
    status, said = suite.refused("vmadmd", "--tls", "127.0.0.1")
    assert status == 2 and "want HOST:PORT" in said
    suite.start("vmadmd")
    uuid = machine(suite)
    for place in ("tls://nowhere", "tls://[::1]", "tls://a b:1", "tls://host:port", "tls://:1"):
        assert "want HOST:PORT" in suite.vmadm("migrate", uuid, place, check=None).stderr
