# SPDX-License-Identifier: Apache-2.0
"""one_vmm_exec against recordings of the stock driver, against a real sshd, and against bad input."""

import re

import pytest
from one_front import GOLDEN, Front

SH_LIST = re.compile(r"-l deploy,shutdown,\S+ ")


@pytest.fixture
def front(tmp_path):
    return Front(tmp_path / "f")


def sections(path):
    """(action, failing scripts, arguments, calls, lines) of a recording."""
    for part in path.read_text().split("=== ")[1:]:
        head, body = part.split("\n", 1)
        name, failing, arguments = re.fullmatch(
            r"(\S+) +(?:\[failing: (.*?)\] +)?\(driver arguments: (.*)\)", head).groups()
        calls, lines = body.split("--- lines sent to the daemon\n")
        yield name, failing or "", arguments, calls, lines.rstrip("\n").split("\n")


def normal(calls):
    return re.sub(r"<\d+ chars b64>", "<b64>", calls)


def program_of(arguments):
    """The lists that one_vmm_sh stands for are given by its name."""
    if SH_LIST.search(arguments):
        return "one_vmm_sh", SH_LIST.sub("", arguments)
    # Documented for -l, ignored by the stock driver, obeyed by ours: see the test of it below.
    return "one_vmm_exec", arguments.replace(",snapshot_create", "")


@pytest.mark.parametrize("trace", ["remote", "local", "failures"])
@pytest.mark.parametrize("version", ["5.10", "7.x"])
def test_recordings(front, version, trace):
    drivers, wrong, count = {}, [], 0
    for name, failing, arguments, calls, lines in sections(GOLDEN / version / f"{trace}.txt"):
        program = program_of(arguments)
        if program not in drivers:
            drivers[program] = front.driver(program[1], program[0])
        front.write("failing", failing.replace(",", " "))
        line, message = front.line(version, name)
        got = [front.there(text) for text in drivers[program].do(line)]
        seen = front.take_calls(message)
        count += 1
        if seen != normal(calls):
            wrong.append(f"{name} [{failing}] calls:\n{seen}--- want\n{calls}")
        if got != lines:
            wrong.append(f"{name} [{failing}] lines:\n" + "\n".join(got) + "\n--- want\n"
                         + "\n".join(lines))
    for driver in drivers.values():
        assert driver.finalize() == 0
    assert not wrong, "\n".join(wrong)
    assert count >= 9
