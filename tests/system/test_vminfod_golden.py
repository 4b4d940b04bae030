# SPDX-License-Identifier: Apache-2.0
"""
The records a listener gets of a creation, a stop and a deletion, as golden files: one line per
change, a blank line between records, what differs from run to run replaced by its kind. Members
that only we have are left out: they come from another daemon, a moment before or after.
REWRITE_GOLDEN=1 writes them anew. Source: smartos facts 7.4, 4.3.
"""

import json
import os
import re

import drover
import pytest

UUID = "698fed0c-b754-4073-e230-9f37c6b4d79f"
OURS = ("supervisor_state", "run_state", "accel_in_use", "ready", "last_exit", "disks", "unknown")
GOLDEN = drover.TOP / "tests/golden/vminfod"
KINDS = [(re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "TIME"),
         (re.compile(r"(?<=pid )\d+"), "PID"),
         (re.compile(r"(?<=transition_expire )\d{13}"), "MS")]


def lines_of(record):
    """A record as text; the changes of one record have no order that matters."""
    if record["type"] != "modify":
        return [record["type"]]
    found = []
    for change in record["changes"]:
        if change["path"][0] in OURS:
            continue
        old, new = (json.dumps(change[key]) if key in change else "-"
                    for key in ("oldValue", "newValue"))
        line = f"{change['prettyPath']} {old} -> {change['prettyPath']} {new}"
        for pattern, kind in KINDS:
            line = pattern.sub(kind, line)
        path, rest = line.split(" ", 1)
        found.append(f"  {path} {change['action']}: {rest.replace(f'-> {path} ', '-> ')}")
    return ["modify", *sorted(found)] if found else []


def record_until(events, last):
    texts = []
    while True:
        record = events.wait(lambda ev: ev["type"] != "ready" and
                             UUID in (ev.get("zonename"), ev.get("uuid")))
        texts += ["\n".join(lines)] if (lines := lines_of(record)) else []
        if last(record):
            return texts


def check(name, texts):
    path = GOLDEN / f"{name}.events"
    text = "\n\n".join(texts) + "\n"
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def became(record, state):
    return record["type"] == "modify" and record["vm"]["state"] == state


@pytest.mark.parametrize("autoboot", [True, False])
def test_sequences(cold, autoboot):
    cold.use_fake_qemu()
    cold.start()
    kind = "autoboot" if autoboot else "stopped"
    with cold.events() as events:
        cold.vmadm("create", stdin={"uuid": UUID, "alias": "foo", "ram": 256, "quota": 10,
                                    "autoboot": autoboot,
                                    "disks": [{"size": 64, "model": "virtio"}]})
        check(f"create-{kind}", record_until(
            events, lambda r: became(r, "running" if autoboot else "stopped")))
        if autoboot:
            cold.vmadm("stop", UUID)
            check("stop", record_until(
                events, lambda r: became(r, "stopped") and r["vm"]["autoboot"] is False))
        cold.vmadm("delete", UUID)
        check(f"delete-{kind}", record_until(events, lambda r: r["type"] == "delete"))
