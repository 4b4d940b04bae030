# SPDX-License-Identifier: Apache-2.0
"""What a VM is called cannot steer the terminal of who looks at it."""

import json
import re

EVIL = "web\x1b[2J\x07\x7f\u009b31m"
# What a terminal acts on, but for the end of a line and the tabs of our own tables.
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

COMMANDS = [
    ["list"], ["list", "-p", "-o", "uuid,alias,description,tags.k"], ["list", "--json", "-o", "alias"],
    ["lookup", "-j"], ["lookup", "-j", "-o", "alias"], ["get", "web0"], ["get", "--pending", "web0"],
    ["why", "web0"], ["update", "web0", "hostname=h"], ["update", "--dry-run", "web0", "ram=96"],
    ["start", "--dry-run", "web0"], ["start", "web0"], ["info", "web0"], ["jobs"],
    ["get", EVIL], ["start", EVIL], ["get", "no\x1b[2Jbody"], ["delete", "--dry-run", "web0"],
    ["stop", "-F", "web0"], ["validate", "create", "-f", "p.json"], ["completion", "names"],
    ["list", "no\x1b[2Jkey=1"], ["jobs", "watch", "no\x1b[2Jjob"], ["delete", "web0"],
]


def test_no_command_prints_control_characters(suite):
    payload = {"name": "web0", "alias": EVIL, "ram": 64, "accel": "tcg", "autoboot": False,
               "tags": {"k": EVIL}, "customer_metadata": {EVIL: EVIL}}
    (suite.root / "p.json").write_text(json.dumps({**payload, "vga": EVIL}))
    suite.vmadm("create", stdin=payload)
    shown = set()
    for words in COMMANDS:
        done = suite.vmadm(*words, check=None)
        for text in (done.stdout, done.stderr):
            assert not RAW.search(text), f"{words}: {text!r}"
            shown.update(re.findall(r"\\x1b|\\u001b", text))
    assert shown, "nothing of it was shown at all"
    for tool, words in (("vminfo", ["vms"]), ("vmstatedctl", ["status"])):
        assert not RAW.search(suite.tool(tool, *words).stdout)
