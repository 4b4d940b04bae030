# SPDX-License-Identifier: Apache-2.0
"""What systemd is promised: sockets of its own, readiness, reload, the watchdog, sound units."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

import drover
import pytest

SOCKETS = {"vmstated": "run/vmstated.sock", "vmadmd": "run/vmadmd.http",
           "vminfod": "run/vminfod.http"}


class Activated:
    """A daemon as systemd starts it: its sockets from descriptor 3 on, messages on one of ours."""

    def __init__(self, suite, name, sockets, **env):
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(b"")
        self.log = suite.root / f"{name}.activated"
        fds = [sock.fileno() for sock in sockets]
        # dup2 onto 3, 4, ... by the shell, whose pid the daemon keeps.
        moves = " ".join(f"{3 + i}<&{fd}" for i, fd in enumerate(fds))
        script = f'exec env LISTEN_PID=$$ LISTEN_FDS={len(fds)} "$@" {moves}'
        env = {**suite.env, **env,
               "NOTIFY_SOCKET": "@" + self.notify.getsockname()[1:].decode()}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", script, "bash", str(suite.binary(name)), "-f", "--root",
                 str(suite.root)], env=env, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log)

    def wait(self, word, seconds=drover.READY_S):
        """Read messages until one has the line; all that came by then."""
        deadline, seen = drover.Deadline(seconds), []
        while drover.wait_readable(self.notify, deadline):
            seen += self.notify.recv(4096).decode().split("\n")
            if word in seen:
                return seen
        raise drover.TimedOut(f"no {word} among {seen}:\n{self.log.read_text()}")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.wait("STOPPING=1")
        finally:
            status = self.process.wait(drover.READY_S)
            self.notify.close()
        assert status == 0, self.log.read_text()


def listener(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen(64)
    return sock


@pytest.mark.parametrize("name", drover.DAEMONS)
def test_socket_of_systemd(cold, name):
    """Asked before it runs, answered after; the socket stays, and the next one takes it again."""
    path = cold.root / SOCKETS[name]
    sock = listener(path)
    for _ in range(2):
        early = drover.unix_connect(str(path))
        early.settimeout(drover.READY_S)
        early.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        daemon = Activated(cold, name, [sock])
        daemon.wait("READY=1")
        assert early.recv(64).startswith(b"HTTP/1.1 200")
        early.close()
        daemon.end()
        assert path.is_socket()
    sock.close()


def test_tcp_socket_of_systemd(cold):
    unix, tcp = listener(cold.root / SOCKETS["vminfod"]), socket.create_server(("127.0.0.1", 0))
    daemon = Activated(cold, "vminfod", [unix, tcp])
    daemon.wait("READY=1")
    address = "127.0.0.1:%d" % tcp.getsockname()[1]
    assert (cold.root / "run/vminfod.addr").read_text().strip() == address
    with socket.create_connection(tcp.getsockname(), timeout=drover.READY_S) as peer:
        peer.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.recv(64).startswith(b"HTTP/1.1 200")
    daemon.end()
    unix.close()
    tcp.close()


@pytest.mark.parametrize("name", drover.DAEMONS)
def test_reload_and_watchdog(cold, name):
    daemon = Activated(cold, name, [], WATCHDOG_USEC="200000")
    seen = daemon.wait("READY=1")
    if "WATCHDOG=1" not in seen:
        daemon.wait("WATCHDOG=1")
    daemon.process.send_signal(signal.SIGHUP)
    seen = daemon.wait("RELOADING=1")
    assert any(line.startswith("MONOTONIC_USEC=") for line in seen)
    daemon.wait("READY=1")
    daemon.wait("WATCHDOG=1")
    daemon.end()


def test_guest_outlives_an_activated_vmstated(suite):
    """The sockets of systemd are not handed to QEMU, and a re-execution keeps them."""
    suite.stop("vmstated")
    (suite.root / SOCKETS["vmstated"]).unlink(missing_ok=True)
    sock = listener(suite.root / SOCKETS["vmstated"])
    suite.use_fake_qemu()
    daemon = Activated(suite, "vmstated", [sock])
    daemon.wait("READY=1")
    suite.write_definition("web0", suite.guest())
    uuid = suite.uuid("web0")
    suite.vmstatedctl("start", "web0")
    pid = suite.vm(uuid)["pid"]
    inode = os.fstat(sock.fileno()).st_ino
    held = [os.readlink(path) for path in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    assert f"socket:[{inode}]" not in held
    environ = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    assert b"LISTEN_FDS" not in environ
    suite.vmstatedctl("upgrade")
    assert suite.vm(uuid)["pid"] == pid
    done = suite.vmstatedctl("stop", "-F", "web0", check=None)
    assert done.returncode in (0, 7)  # vminfod may be finding the new feed yet
    daemon.end()
    sock.close()


# --- what is installed ---


def run(*argv, **options):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What `meson install` puts below a DESTDIR, and the prefix in it."""
    if not shutil.which("meson"):
        pytest.skip("needs meson")
    dest = tmp_path_factory.mktemp("dest")
    run("meson", "install", "-C", str(drover.build_dir()), "--no-rebuild", "--destdir", str(dest))
    prefix = next(path.parent for path in dest.glob("**/sbin/") if path.is_dir())
    return dest, prefix


def test_install(installed):
    """Every program, a page for it, units that name the programs where they are."""
    dest, prefix = installed
    for program in [*(f"sbin/{name}" for name in drover.DAEMONS), "bin/vmadm", "bin/vminfo",
                    "bin/vmstatedctl"]:
        assert run(str(prefix / program), "--help")
        assert list(prefix.glob(f"share/man/man8/{pathlib.Path(program).name}.8*"))
    for unit in prefix.glob("lib/systemd/system/*.service"):
        text = unit.read_text()
        assert not re.search(r"@\w+@", text)
        for path in re.findall(r"^Exec\w+=(/\S+)", text, re.M):
            assert path.startswith("/bin/") or (dest / path[1:]).exists(), path
    assert "-F _vmadm vmadm" in (prefix / "share/bash-completion/completions/vmadm").read_text()
    assert not [path for path in dest.glob("**/*") if path.suffix in (".a", ".so", ".py")]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_units_are_sound(installed):
    dest, prefix = installed
    names = [str(path) for path in prefix.glob("lib/systemd/system/*.s*")]
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True,
                          text=True, check=False,
                          env={**os.environ, "SYSTEMD_UNIT_PATH": f"{prefix}/lib/systemd/system:"})
    # The programs are not at their final place here; anything else is a finding.
    findings = [line for line in said.stderr.splitlines()
                if re.search("drover|vmstated|vminfod|vmadmd", line)]
    assert not [line for line in findings if "is not executable" not in line], said.stderr


# Exposure as docs/installation.md states it, in tenths; vmstated runs the administrator's hooks.
@pytest.mark.parametrize("unit, most", [("vmstated", 85), ("vminfod", 32), ("vmadmd", 54),
                                        ("drover-guests", 11)])
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_exposure(installed, unit, most):
    _, prefix = installed
    run("systemd-analyze", "security", "--offline=true", f"--threshold={most}",
        str(prefix / f"lib/systemd/system/{unit}.service"))


def test_guests_keep_their_supervisor_and_their_time(installed):
    """What the units promise of guests; see vmstated(8) and the comments in the units."""
    _, prefix = installed
    units = prefix / "lib/systemd/system"
    vmstated = (units / "vmstated.service").read_text().splitlines()
    for line in ["Type=notify", "KillMode=process", "Delegate=yes", "OOMPolicy=continue",
                 "TasksMax=infinity", "LimitMEMLOCK=infinity", "LimitNOFILE=65536",
                 "WatchdogSec=60", "ExecReload=/bin/kill -HUP $MAINPID"]:
        assert line in vmstated
    # Mounts of their own would hide from the host what a hook or zfs(8) mounts.
    for unit in ("vmstated", "vmadmd"):
        assert not re.search(r"^(Protect(System|Home|Proc|Kernel\w+|ControlGroups|Clock)|Private\w+)=",
                             (units / f"{unit}.service").read_text(), re.M), unit
    # Another user's process, and no capability to signal it: outside of the unit's limits.
    assert "ExecReload=+/bin/kill" in (units / "vminfod.service").read_text()
    guests = (units / "drover-guests.service").read_text()
    assert "TimeoutStopSec=infinity" in guests
    # These would hand a stop or restart of vmstated on to the guests.
    assert not re.search(r"^(Requires|BindsTo|PartOf)=", guests, re.M)
    after = " ".join(re.findall(r"^After=(.*)$", guests, re.M)).split()
    assert {"vmstated.service", "network.target", "local-fs.target", "remote-fs.target",
            "zfs.target"} <= set(after)


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="needs systemd-sysusers")
def test_users_and_directories(installed, tmp_path):
    _, prefix = installed
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}", str(prefix / "lib/sysusers.d/drover.conf"))
    assert re.search(r"^vminfod:", (tmp_path / "etc/passwd").read_text(), re.M)
    assert re.search(r"^vmadm:", (tmp_path / "etc/group").read_text(), re.M)
    if os.geteuid() == 0:
        run("systemd-tmpfiles", "--create", f"--root={tmp_path}",
            str(prefix / "lib/tmpfiles.d/drover.conf"))
        assert (tmp_path / "var/lib/vmstated").is_dir()


@pytest.mark.parametrize("name", drover.DAEMONS)
def test_plain_supervisor(cold, name):
    """contrib/runit: one process, in the foreground, with the options of /etc/default/drover."""
    options = cold.root / "options"
    options.write_text(f'{name.upper()}_OPTIONS="--root {cold.root} --log json"\n')
    script = (drover.TOP / "contrib/runit" / name / "run").read_text()
    run("sh", "-n", "-c", script)
    if name == "vminfod" and subprocess.run(["id", "vminfod"], capture_output=True,
                                            check=False).returncode:
        script = script.replace(" --user vminfod", "")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(b"")
    env = {**cold.env, "DROVER_DEFAULT": str(options),
           "PATH": f"{cold.binary(name).parent}:{os.environ['PATH']}",
           "NOTIFY_SOCKET": "@" + notify.getsockname()[1:].decode()}
    with subprocess.Popen(["sh", "-c", script], env=env, stdout=subprocess.PIPE) as daemon:
        assert drover.wait_readable(notify, drover.Deadline(drover.READY_S))
        assert b"READY=1" in notify.recv(4096)
        daemon.terminate()
        out = daemon.stdout.read()
        assert daemon.wait(drover.READY_S) == 0
    assert b'"name":"%s"' % name.encode() in out.replace(b": ", b":")
    notify.close()
