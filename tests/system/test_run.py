# SPDX-License-Identifier: Apache-2.0
"""What ./run does after building: daemons in the foreground, a first guest, an orderly end."""

import os
import re
import signal
import subprocess

import pytest

import drover


class Foreground:
    """contrib/foreground on a root of its own."""

    def __init__(self, suite):
        self.suite = suite
        self.process = subprocess.Popen(
            ["/usr/bin/python3", str(drover.TOP / "contrib/foreground"), str(suite.build),
             str(suite.root)], env=suite.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, cwd=suite.root)
        self.text = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.read_until(None, 120)
        self.process.stdout.close()

    def read_until(self, pattern, seconds):
        """Read its output until pattern, or to its end for None; the match."""
        deadline = drover.Deadline(seconds)
        while True:
            found = pattern and re.search(pattern, self.text)
            if found:
                return found
            got = b""
            if drover.wait_readable(self.process.stdout, deadline):
                got = os.read(self.process.stdout.fileno(), 65536)
                if not got and pattern is None:
                    self.process.wait()
                    return None
            if not got:
                raise drover.TimedOut(f"no {pattern!r} within {seconds} s:\n{self.text}")
            self.text += got.decode()


@pytest.mark.smoke
@pytest.mark.slow
def test_first_guest_and_orderly_end(cold):
    with Foreground(cold) as run:
        run.read_until("Ctrl-C stops the guests", 120)
        assert re.search(r"KVM +256 +running +first", run.text)
        assert re.search(r"VNC +127\.0\.0\.1:\d+", run.text)
        run.process.send_signal(signal.SIGINT)
        run.read_until(None, 120)
        assert run.process.returncode == 0, run.text
        assert "stopping 1 guest" in run.text
        assert "forcing" not in run.text
    assert cold.guests() == []


@pytest.mark.slow
def test_daemons_come_back_and_the_guest_runs_on(cold):
    with Foreground(cold) as run:
        run.read_until("Ctrl-C stops the guests", 120)
        qemu = [pid for pid in cold.guests() if b"-accel" in cmdline(pid)]
        assert len(qemu) == 1
        for name in drover.DAEMONS:
            pid = [pid for pid in children(run.process.pid)
                   if cmdline(pid).split(b"\0")[0].endswith(b"/" + name.encode())][0]
            os.kill(pid, signal.SIGKILL)
            run.read_until(f"{name} was ended by SIGKILL; starting it again", 10)
            assert qemu == [pid for pid in cold.guests() if b"-accel" in cmdline(pid)]
        run.process.terminate()
        run.read_until(None, 120)
        assert run.process.returncode == 0, run.text


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""
