# SPDX-License-Identifier: Apache-2.0
"""Who may do what, asked by processes of real other users."""

import grp
import json
import os
import pwd
import shutil
import subprocess

import pytest

from vmstated_help import small, vm

pytestmark = pytest.mark.root

OWNER, MEMBER, STRANGER = 61001, 61002, 61003
GROUP, PRIVATE = 61010, 61099

# How each of them asks: uid, main group, supplementary groups.
USERS = {
    "owner": (OWNER, PRIVATE, []),
    "member": (MEMBER, PRIVATE, [GROUP]),
    "main group": (MEMBER, GROUP, []),
    "stranger": (STRANGER, PRIVATE, []),
    "wrong group": (STRANGER, PRIVATE, [GROUP + 1]),
}
ALLOWED = ("owner", "member", "main group")


def a_user():
    """Names that exist on every host: an account and a group that are not root's."""
    account = next(one for one in pwd.getpwall() if one.pw_uid not in (0, 65534))
    group = next(one for one in grp.getgrall() if one.gr_gid not in (0, 65534, account.pw_gid))
    return account, group


@pytest.fixture
def shared(cold, tmp_path):
    """A VM with owner and group, on a root others can reach; ask(who, *command) runs the tool."""
    account, group = a_user()
    users = {name: tuple(swap(part, account.pw_uid, group.gr_gid) for part in (uid, gid))
             + ([swap(one, account.pw_uid, group.gr_gid) for one in more],)
             for name, (uid, gid, more) in USERS.items()}
    reachable(tmp_path)
    folder = cold.root / "bin"
    folder.mkdir()
    tool = shutil.copy(cold.binary("vmstatedctl"), folder)
    cold.use_fake_qemu({"console": "HELLO\n"})
    cold.write_definition("web0", small(owner=account.pw_name, group=group.gr_name))
    cold.start("vmstated", "vminfod")

    def ask(who, *command, code=None, stdin=""):
        uid, gid, more = users[who]
        groups = ["--groups", ",".join(map(str, more))] if more else ["--clear-groups"]
        done = subprocess.run(
            ["setpriv", "--reuid", str(uid), "--regid", str(gid), *groups, tool, "--root",
             str(cold.root), *command], input=stdin, capture_output=True, text=True, timeout=30,
            env=cold.env, cwd="/", check=False)
        if code is not None:
            assert done.returncode == code, (who, command, done.stdout, done.stderr)
        return done

    cold.ask, cold.users = ask, users
    return cold


def swap(number, uid, gid):
    return {OWNER: uid, GROUP: gid}.get(number, number)


def reachable(path):
    """Others may pass through the folders above a root, as on a real host."""
    while path.name and path.stat().st_uid == 0 and path != path.parent:
        if str(path) != "/tmp":
            os.chmod(path, path.stat().st_mode | 0o011)
        path = path.parent


@pytest.mark.parametrize("who", USERS)
def test_commands_of_other_users(shared, who):
    may = who in ALLOWED
    code = 0 if may else 4
    shared.ask(who, "start", "web0", code=code)
    if not may:
        shared.vmstatedctl("start", "web0")
    pid = vm(shared, "web0")["pid"]
    shared.ask(who, "restart", "-F", "web0", code=code)
    assert (vm(shared, "web0")["pid"] != pid) == may
    shared.ask(who, "stop", "web0", code=code)
    assert vm(shared, "web0")["state"] == ("stopped" if may else "running")
    if may:
        shared.vmstatedctl("start", "web0")
    shared.ask(who, "kill", "web0", code=code)
    assert vm(shared, "web0")["state"] == ("stopped" if may else "running")
    if not may:
        shared.vmstatedctl("stop", "-F", "web0")
    shared.write_hook(shared.etc / "web0", "start_network", "exit 1")
    shared.vmstatedctl("start", "web0", check=1)
    shared.ask(who, "failreset", "web0", code=code)
    assert vm(shared, "web0")["supervisor_state"] == ("INIT" if may else "FAILED")


@pytest.mark.parametrize("who", ["stranger", "wrong group"])
def test_refusal_is_told_and_logged(shared, who):
    done = shared.ask(who, "start", "web0", code=4)
    assert "web0" in done.stderr and "owner" in done.stderr
    uid = shared.users[who][0]
    assert str(uid) in done.stderr
    assert f"refused uid={uid} POST /vms/" in shared.daemons["vmstated"].output()
    raw = shared.ask(who, "status", "web0", "--json", code=0)
    assert json.loads(raw.stdout)["name"] == "web0"


@pytest.mark.parametrize("who", ["owner", "member", "stranger"])
def test_only_root_reloads(shared, who):
    shared.ask(who, "reload", code=4)
    shared.ask(who, "status", code=0)


def test_owner_of_one_is_a_stranger_to_another(shared):
    shared.write_definition("db0", small())
    shared.ask("owner", "start", "db0", code=4)
    shared.vmstatedctl("start", "db0")
    shared.ask("member", "stop", "db0", code=4)
    shared.vmstatedctl("stop", "-F", "db0")


def test_owner_changed_in_the_definition_counts_at_once(shared):
    shared.write_definition("web0", small())
    shared.ask("owner", "start", "web0", code=4)
