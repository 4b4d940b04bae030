#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The completion scripts in a real bash: what a line is completed to. Names come from a tool put in
the place of the real one. Usage: completion.py BUILD/src/cli. Speaks TAP.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

# tool, words on the line (the last one is being completed), what it may become
CASES = [
    ("vmadm", ["upd"], ["update"]),
    ("vmadm", ["re"], ["reboot", "resize-disk", "resume", "receive", "restore", "reprovision"]),
    ("vmadm", ["--root", "create", "sto"], ["stop"]),
    ("vmadm", ["--timeout=3", "stop", "we"], ["web0", "web1"]),
    ("vmadm", ["stop", ""], ["web0", "web1", "db0"]),
    ("vmadm", ["stop", "--f"], ["--force"]),
    ("vmadm", ["stop", "-t", ""], []),
    ("vmadm", ["boot", "ord"], ["order="]),
    ("vmadm", ["sysrq", "web0", "n"], ["nmi"]),
    ("vmadm", ["list", "w"], []),
    ("vmadm", ["help", "va"], ["validate"]),
    ("vmadm", ["--no"], ["--no-wait"]),
    ("vmstatedctl", ["sh"], ["shutdown-all"]),
    ("vmstatedctl", ["log", "--fo"], ["--follow"]),
    ("vmstatedctl", ["log", "-n", "5", "db"], ["db0"]),
]
SCRIPT = """source "$1"; tool=$2; shift 2
COMP_WORDS=("$tool" "$@"); COMP_CWORD=$#
_${tool##*/}; printf '%s\\n' "${COMPREPLY[@]}"
"""


def main():
    bash, tools = shutil.which("bash"), pathlib.Path(sys.argv[1])
    if not bash:
        print("1..0 # SKIP no bash")
        return 0
    bad = 0
    print(f"1..{len(CASES)}")
    with tempfile.TemporaryDirectory() as folder:
        for number, (tool, words, want) in enumerate(CASES, 1):
            here = pathlib.Path(folder) / tool
            here.write_text("#!/bin/sh\nprintf 'web0\\nweb1\\ndb0\\n'\n")
            here.chmod(0o755)
            script = pathlib.Path(folder) / "script"
            script.write_bytes(subprocess.check_output([tools / tool, "completion", "bash"]))
            done = subprocess.run([bash, "-c", SCRIPT, "bash", script, here, *words],
                                  capture_output=True, text=True, check=False)
            got = done.stdout.split()
            same = got == want and not done.stderr
            bad += not same
            print(f"{'' if same else 'not '}ok {number} {tool} {' '.join(words)}")
            if not same:
                print(f"# want {want}, got {got} {done.stderr}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
