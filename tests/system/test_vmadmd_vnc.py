# SPDX-License-Identifier: Apache-2.0
"""VNC through vmadmd, with a real viewer: what it shows, who gets in, ports, sudden ends."""

import socket

import pytest
import rfb
from test_vmadmd import act, call, create, message


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def vnc_of(suite, uuid):
    return call(suite, "GET", f"/vm/{uuid}?type=vnc").json()["vnc"]


def view(suite, uuid, password=None):
    vnc = vnc_of(suite, uuid)
    return rfb.Viewer((vnc["host"], vnc["port"]), password)


def refused(port):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5).close()


@pytest.fixture
def screen(suite):
    """A running VM with a screen that does not change: its CPUs stand still."""
    uuid = create(suite, suite.payload("web0", autoboot=True, vga="std"))["uuid"]
    act(suite, uuid, "pause&wait=1")
    return uuid


def test_what_is_seen(suite, screen):
    """A viewer sees what a screendump has, by vmadmd's port; a PNG is made on request."""
    with view(suite, screen) as viewer:
        seen = viewer.picture()
    act(suite, screen, "sysrq&request=screenshot&wait=1")
    dumped = rfb.read_ppm(suite.run_dir(screen) / "vm.ppm")
    assert seen[:2] == dumped[:2] and seen[0] >= 640
    assert seen == dumped
    act(suite, screen, "sysrq&request=screenshot&format=png&wait=1")
    assert (suite.run_dir(screen) / "vm.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "want ppm or png" in message(act(
        suite, screen, "sysrq&request=screenshot&format=gif", 400).json())


def test_password(suite, screen):
    """Given to a VM started without one, changed with a session open, taken away again."""
    with view(suite, screen) as first:
        assert first.kinds == [1]
        port = vnc_of(suite, screen)["port"]
        done = call(suite, "PUT", f"/vm/{screen}", {"vnc_password": "secret"}).json()
        assert done["changes"][0]["live"] is True
        assert vnc_of(suite, screen) == {"host": "127.0.0.1", "port": port, "password": "secret",
                                         "display": port - 5900}
        with view(suite, screen, "secret") as second:
            assert second.kinds == [2]
            for wrong in ["other", "", None]:
                with pytest.raises(rfb.Refused):
                    view(suite, screen, wrong)
            call(suite, "PUT", f"/vm/{screen}", {"vnc_password": "newword"})
            assert first.picture() == second.picture()
        with pytest.raises(rfb.Refused):
            view(suite, screen, "secret")
        view(suite, screen, "newword").__exit__()
        suite.kill9("vmadmd")
        assert first.picture()
        suite.start("vmadmd")
        with pytest.raises(rfb.Refused):
            view(suite, screen, "secret")
        view(suite, screen, "newword").__exit__()
        call(suite, "PUT", f"/vm/{screen}", {"vnc_password": ""})
        view(suite, screen).__exit__()
        assert vnc_of(suite, screen)["port"] == port
        assert first.picture()


def test_ports(suite, screen):
    """Fixed, any, none, another address; a port that is taken is refused and changes nothing."""
    port = free_port()
    before = vnc_of(suite, screen)["port"]
    call(suite, "PUT", f"/vm/{screen}", {"vnc_port": port})
    assert vnc_of(suite, screen)["port"] == port
    refused(before)
    act(suite, screen, "reload_vnc&wait=1")
    assert vnc_of(suite, screen)["port"] == port
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        config = (suite.etc / screen / "config").read_text()
        reply = call(suite, "PUT", f"/vm/{screen}", {"vnc_port": taken}, 409).json()
        assert "vnc_port" in message(reply) and str(taken) in message(reply)
        assert (suite.etc / screen / "config").read_text() == config
        assert vnc_of(suite, screen)["port"] == port
    reply = call(suite, "PUT", f"/vm/{screen}", {"vnc_address": "192.0.2.1"}, 400).json()
    assert "192.0.2.1" in message(reply) and vnc_of(suite, screen)["host"] == "127.0.0.1"
    again = create(suite, suite.payload("web1"))["uuid"]
    reply = call(suite, "PUT", f"/vm/{again}", {"vnc_port": port}, 409).json()
    assert "vnc_port" in message(reply)
    call(suite, "PUT", f"/vm/{screen}", {"vnc_address": "127.0.0.2"})
    assert vnc_of(suite, screen)["host"] == "127.0.0.2"
    refused(port)
    view(suite, screen).__exit__()
    call(suite, "PUT", f"/vm/{screen}", {"vnc_port": -1, "vnc_address": "127.0.0.1"})
    assert vnc_of(suite, screen) == {}
    refused(port)
    call(suite, "PUT", f"/vm/{screen}", {"vnc_port": port})
    view(suite, screen).__exit__()


def test_none_at_the_start(suite):
    """A VM started with vnc_port -1 gets a screen when it is given a port."""
    uuid = create(suite, suite.payload("web0", autoboot=True, vnc_port=-1))["uuid"]
    assert vnc_of(suite, uuid) == {}
    call(suite, "PUT", f"/vm/{uuid}", {"vnc_port": 0})
    with view(suite, uuid) as viewer:
        assert viewer.picture()[0] >= 640


def test_restarts_and_ends(suite, screen):
    """The port outlives vmadmd, however it ends; the listener goes with the VM."""
    vnc = vnc_of(suite, screen)
    with view(suite, screen) as viewer:
        suite.restart("vmadmd")
        assert vnc_of(suite, screen) == vnc
        suite.kill9("vmadmd")
        assert viewer.picture()
        suite.start("vmadmd")
        assert vnc_of(suite, screen) == vnc
        view(suite, screen).__exit__()
        act(suite, screen, "stop&force=1&wait=1")
        assert viewer.ended(5)
    refused(vnc["port"])


def test_stuck_viewer(suite):
    """Viewers that read nothing, or say nothing, cost nobody but themselves."""
    uuid = create(suite, suite.payload("web0", autoboot=True))["uuid"]
    vnc = vnc_of(suite, uuid)
    where = (vnc["host"], vnc["port"])
    stuck = [rfb.Viewer(where) for _ in range(2)]
    silent = [socket.create_connection(where, 5) for _ in range(8)]
    for viewer in stuck:
        for _ in range(50):
            viewer.ask()
    with rfb.Viewer(where) as viewer:
        assert viewer.picture()[0] >= 640
    assert call(suite, "GET", f"/vm/{uuid}?type=status").json()["status"]["running"] is True
    for viewer in stuck:
        viewer.sock.close()
    for sock in silent:
        sock.close()
    view(suite, uuid).__exit__()


def test_refused_update_is_undone(suite):
    """QEMU has the new password and the new port is open when the writing is refused: both go."""
    port = free_port()
    folder = suite.etc / "web0"
    folder.mkdir()
    (folder / "screen.conf").write_text("vnc_password = oldword;\n")
    (folder / "screen.conf").chmod(0o644)
    body = suite.guest(autoboot=False)
    suite.write_definition("web0", f'{body}\n    .include "{folder}/screen.conf"')
    act(suite, "web0", "start&wait=1")
    before = vnc_of(suite, "web0")
    view(suite, "web0", "oldword").__exit__()
    reply = suite.http("vmadmd", "PUT", "/vm/web0", {"vnc_password": "newword", "vnc_port": port})
    assert reply.status >= 400 and "screen.conf" in message(reply.json()), reply
    assert vnc_of(suite, "web0") == before
    refused(port)
    with pytest.raises(rfb.Refused):
        view(suite, "web0", "newword")
    view(suite, "web0", "oldword").__exit__()


FBUF = """name=boxed
memory.size=64M
cpus=1
pci.0.0.0.device=hostbridge
pci.0.5.0.device=fbuf
pci.0.5.0.tcp=127.0.0.1:{port}
pci.0.5.0.password=boxed1
pci.0.31.0.device=lpc
"""


def test_configfile(suite):
    """A bhyve_config file's frame buffer is served at its address, behind its password."""
    port = free_port()
    folder = suite.etc / "boxed"
    folder.mkdir()
    (folder / "bhyve.conf").write_text(FBUF.format(port=port))
    (folder / "bhyve.conf").chmod(0o600)
    suite.write_definition("boxed", f'configfile = "{folder}/bhyve.conf"; accel = tcg; '
                                    'autoboot = false;')
    act(suite, "boxed", "start&wait=1")
    assert vnc_of(suite, "boxed") == {"host": "127.0.0.1", "port": port, "password": "boxed1",
                                      "display": port - 5900}
    with pytest.raises(rfb.Refused):
        view(suite, "boxed")
    with view(suite, "boxed", "boxed1") as viewer:
        assert viewer.picture()[0] >= 640
