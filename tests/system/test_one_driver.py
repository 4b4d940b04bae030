# SPDX-License-Identifier: Apache-2.0
"""one_vmm_exec against recordings of the stock driver, against a real sshd, and against bad input."""

import base64
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import xml.etree.ElementTree

import drover
import pytest
from one_front import GOLDEN, SSH, Front

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


def names(calls):
    return re.findall(r"^CALL (.*)$", calls, re.M)


@pytest.mark.parametrize("version", ["5.10", "7.x"])
def test_every_recorded_line_is_answered(front, version):
    """Those without a recorded trace do what the same action did in another situation."""
    like = {"deploy-from-poweroff": "deploy", "deploy-from-undeploy": "deploy",
            "detachdisk-volatile": "detachdisk-image", "cancel-poweroff": "cancel-terminate",
            "restore-coldmigrate": "restore-resume", "restore-stopped": "restore-resume",
            "save-coldmigrate": "save-suspend", "save-stop": "save-suspend",
            "shutdown-poweroff": "shutdown-terminate", "shutdown-undeploy": "shutdown-terminate"}
    traced = {name: names(calls) for name, _, _, calls, _ in
              sections(GOLDEN / version / "remote.txt")}
    with front.driver("-t 15 -r 0 kvm") as driver:
        for path in sorted((GOLDEN / version).glob("*.line")):
            name = path.stem
            if name == "driver_cancel":
                driver.send(path.read_bytes())
                assert driver.read_line() == "LOG I 1 Driver command for 1 cancelled"
                continue
            line, message = front.line(version, name, LOCAL_DEPLOYMENT_FILE=front.var
                                       / "vms/0/deployment.0") if "deploy-" in name else \
                front.line(version, name)
            assert driver.do(line)[-1].split()[1] == "SUCCESS", name
            seen = [re.sub("mvds|delete$", "", one) for one in names(front.take_calls(message))]
            want = [re.sub("mvds|delete$", "", one) for one in traced[like.get(name, name)]]
            assert seen == want, name


# What stands between <NIC> and </NIC> for more than one of them.
NICS = ("<NIC_ID>0</NIC_ID><VN_MAD>bridge</VN_MAD></NIC><NIC><NIC_ID>1</NIC_ID></NIC>"
        "<NIC><VN_MAD>bridge</VN_MAD></NIC><NIC><VN_MAD>fw</VN_MAD>")
ALIAS = "</NIC><NIC_ALIAS><ATTACH>YES</ATTACH><VN_MAD>bridge</VN_MAD></NIC_ALIAS><NIC>"


def test_several_network_drivers(front):
    """Each once, in order; the first that fails ends the step and names itself."""
    for place in (front.var / "remotes", front.remote):
        (place / "vnm/fw").symlink_to(place / "vnm/bridge")
    line, message = front.line("7.x", "updatesg", NIC=NICS)
    with front.driver("kvm") as driver:
        assert driver.do(line)[-1] == "UPDATESG SUCCESS 0 0 bridge: - fw: -"
        assert names(front.take_calls(message)) == [
            f"/var/tmp/one/vnm/{one}/update_sg" for one in ("bridge", "fw")]
        front.write("failing", "update_sg")
        assert driver.do(line)[-1].startswith("UPDATESG FAILURE 0 0 bridge: ERROR MESSAGE")
        assert front.called() == ["update_sg"]
        front.write("failing", "clean")
        line, message = front.line("7.x", "cleanup", NIC=NICS)
        front.take_calls(message)
        assert driver.do(line)[-1] == "CLEANUP SUCCESS 1 "
        assert front.called() == ["clean", "delete", "delete", "delete"], "no-fail ends the step"


def test_network_input(front):
    """What a network driver is given: source, fact by fact, is the contract's list."""
    line, _ = front.line("7.x", "updatesg", NIC=NICS)
    with front.driver("kvm") as driver:
        driver.do(line)
    text = re.search(r"@@STDIN\n(.*?)\n", (front.root / "calls").read_text()).group(1)
    vm = xml.etree.ElementTree.fromstring(base64.b64decode(text))
    assert [child.tag for child in vm] == ["ID", "DEPLOY_ID", "TEMPLATE", "USER_TEMPLATE",
                                           "HISTORY_RECORDS"]
    assert len(vm.findall("TEMPLATE/NIC")) == 3, "only those with a driver"
    assert {child.tag for child in vm.find("TEMPLATE")} == {"CONTEXT", "SECURITY_GROUP_RULE", "NIC"}
    assert [child.tag for child in vm.find("HISTORY_RECORDS/HISTORY")] == [
        "HOSTNAME", "HID", "DS_ID", "VM_MAD"]


def test_situations_without_a_recording(front):
    """As the contract describes them: two hosts to clean, a move on one host, aliases, backups."""
    with front.driver("kvm") as driver:
        line, message = front.line("7.x", "cleanup", DEPLOY_ID="one-1", MIGR_HOST="node2",
                                   TM_COMMAND="DELETE local a b")
        assert driver.do(line)[-1] == "CLEANUP SUCCESS 1 "
        calls = front.take_calls(message)
        assert [one.rsplit("/", 1)[1] for one in names(calls)] == [
            "cancel", "clean", "cancel", "clean", "delete"]
        assert re.findall("SSH argv: (.*)", calls) == ["ssh node1 bash -s", "ssh node2 bash -s"]
        line, _ = front.line("7.x", "migrate", MIGR_HOST="node1")
        assert driver.do(line)[-1] == "MIGRATE SUCCESS 0 -"
        assert front.called() == ["premigrate", "migrate", "postmigrate"]
        front.write("calls", "")
        for name, want in (("attachnic", ["pre", "post", "prereconfigure", "context", "reconfigure"]),
                           ("detachnic", ["clean", "prereconfigure", "context", "reconfigure"])):
            line, _ = front.line("5.10", name, NIC=ALIAS)
            assert driver.do(line)[-1].split()[1] == "SUCCESS"
            assert front.called() == want
            front.write("calls", "")
        front.write("failing", "backup")
        line, message = front.line("7.x", "backup", LCM_STATE="70")
        assert driver.do(line)[-1].startswith("BACKUP FAILURE 5 ")
        assert front.called() == ["prebackup", "backup", "postbackup"]
        assert "<BACKUP_RESULT>FAILURE</BACKUP_RESULT></VM>" in (front.root / "calls").read_text()
        front.write("failing", "")
        front.write("calls", "")
        driver.send(line.replace("BACKUP", "BACKUPCANCEL"))
        assert driver.answer("BACKUPCANCEL") == [
            "LOG D -1 backup_cancel: hello",
            "LOG I 5 Successfully execute datastore driver operation: backup_cancel.",
            "BACKUPCANCEL SUCCESS 5 -"]


# --- as the core starts it ---

def test_arguments_split_or_not_and_old_ones(front):
    line, _ = front.line("5.10", "poll")
    with front.driver("-i -t 3 --retries=0 kvm -p -w 30 -s sh -d migrate,save") as driver:
        assert driver.do(line)[-1] == "POLL SUCCESS 0 STATE=a CPU=1.0 MEMORY=1000"
    done = subprocess.run([drover.build_dir() / "src/one/one_vmm_ssh", "-t", "-r", "kvm"],
                          input=b"INIT\n" + line.encode() + b"FINALIZE\n", env=front.env,
                          capture_output=True, timeout=20, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == b"POLL SUCCESS 0 STATE=a CPU=1.0 MEMORY=1000"


@pytest.mark.parametrize("arguments, reason", [
    ("", "no driver directory"), ("-q kvm", "unknown option '-q'"), ("-t 0 kvm", "-t 0"),
    ("-w kvm", "'kvm' is not a number"), ("../kvm", "not the name of a directory"),
    ("-l a=../../x kvm", "not ACTION=SCRIPT"), ("kvm -s", "needs an argument")])
def test_bad_arguments(front, arguments, reason):
    done = subprocess.run([drover.build_dir() / "src/one/one_vmm_exec", arguments], env=front.env,
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 255
    assert reason in done.stderr


def test_scripts_start_clean(front):
    """No blocked or ignored signal, no strange descriptor, whatever the core had."""
    front.replace("vmm/kvm/poll", "grep -E 'SigBlk|SigIgn' /proc/self/status | tr -d '\\n'\n"
                  "echo; ls /proc/$$/fd >$0.fds; tr '\\n' ' ' <$0.fds")  # a pipe would be the shell's as well
    signals = set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        leak = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(leak, True)
        with front.driver("-l poll kvm") as driver:
            got = driver.do(front.line("5.10", "poll")[0])[-1]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(leak)
    blocked, ignored, fds = re.fullmatch(r"POLL SUCCESS 0 SigBlk: (\w+)SigIgn: (\w+) (.*)", got).groups()
    assert int(blocked, 16) == 0
    assert int(ignored, 16) & ~0x180000000 == 0  # 32 and 33 are the C library's own
    assert [fd for fd in fds.split() if int(fd) not in (10, 11)] == ["0", "1", "2"]  # those are the shell's


def test_documented_names_of_the_list(front):
    """snapshot_create, as documented, and snapshotcreate, as the stock driver wants it."""
    for names_given in ("snapshot_create", "snapshotcreate", "SNAPSHOT_CREATE=snapshot_delete"):
        line, message = front.line("7.x", "snapshotcreate")
        with front.driver(f"-l poll , {names_given} kvm") as driver:
            driver.do(line)
        script = names_given.split("=")[-1].replace("snapshotc", "snapshot_c")
        assert names(front.take_calls(message)) == [f"/var/lib/one/remotes/vmm/kvm/{script}"]


def test_rc_files(front):
    """defaultrc and vmm_execrc, which the stock driver's wrapper sources."""
    front.write("etc/defaultrc", "# a comment\nexport PRIORITY=19\nONE_MAD_DEBUG=1 # talk\n")
    front.write("etc/vmm_exec/vmm_execrc", 'export VNMAD_LOCAL_ACTIONS="x-post bridge-clean"\n')
    front.replace("vmm/kvm/poll", "nice")
    with front.driver("kvm") as driver:
        assert driver.do(front.line("5.10", "poll")[0])[-1] == "POLL SUCCESS 0 19"
        driver.send("nonsense\n")
        line, message = front.line("7.x", "shutdown-terminate")
        assert driver.do(line)[-1] == "SHUTDOWN SUCCESS 0 -"
        assert names(front.take_calls(message)) == ["/var/tmp/one/vmm/kvm/shutdown",
                                                    "/var/lib/one/remotes/vnm/bridge/clean"]
    log = (front.var / "one_vmm_exec.log").read_text()
    assert "accepted word=SHUTDOWN id=0 host=node1" in log
    assert "ignored a line" in log


def test_end_of_input_and_finalize(front, gate):
    line, _ = front.line("5.10", "poll")
    driver = front.driver("-l poll kvm")
    driver.send(line)
    gate.arrived()
    driver.process.stdin.close()
    assert driver.process.wait(10) == 255, "end of input ends it at once"
    gate.open()
    driver.process.stdout.close()
    driver = front.driver("-l poll kvm")
    driver.send(line + front.line("5.10", "poll", vm=7)[0] + "FINALIZE\n" + line)
    assert driver.answer("POLL")[-1].startswith("POLL FAILURE 7 Not started: ")
    gate.arrived()
    gate.open()
    assert driver.answer("POLL") == ["POLL SUCCESS 0 STATE=a"]
    assert driver.process.wait(10) == 0
    driver.process.stdin.close()
    driver.process.stdout.close()


# --- the queue ---

class Gate:
    """A script that says that it runs, then waits until it is let go."""

    def __init__(self, front, name="poll"):
        self.front, self.go = front, front.root / "go"
        os.mkfifo(self.go)
        os.mkfifo(front.root / "here")
        self.here = os.open(front.root / "here", os.O_RDWR)
        self.key = os.open(self.go, os.O_RDWR)
        front.replace(f"vmm/kvm/{name}", f"echo $PPID >> {front.root}/here; "
                      f"read x < {self.go}; echo STATE=$x")

    def arrived(self, seconds=10):
        assert drover.wait_readable(self.here, drover.Deadline(seconds)), "the script never ran"
        return os.read(self.here, 4096).decode().split()

    def none_more(self):
        return not drover.wait_readable(self.here, drover.Deadline(0))

    def open(self, letter="a"):
        os.write(self.key, letter.encode() + b"\n")

    def close(self):
        os.close(self.here)
        os.close(self.key)


@pytest.fixture
def gate(front):
    made = Gate(front)
    yield made
    made.close()


def test_one_action_per_host(front, gate):
    """The next of another host overtakes; of the same host it waits; -p lifts that."""
    with front.driver("-t 15 kvm") as driver:
        driver.send(front.line("5.10", "poll", vm=1)[0])
        gate.arrived()
        driver.send(front.line("5.10", "poll", vm=2)[0])
        assert driver.do(front.line("5.10", "snapshotdelete", vm=3, HOST="node2")[0])[-1] \
            == "SNAPSHOTDELETE SUCCESS 3 -"
        assert gate.none_more()
        gate.open("a")
        assert driver.answer("POLL") == ["POLL SUCCESS 1 STATE=a"]
        gate.arrived()
        gate.open("d")
        assert driver.answer("POLL") == ["POLL SUCCESS 2 STATE=d"]
    with front.driver("-t 15 kvm -p") as driver:
        driver.send(front.line("5.10", "poll", vm=1)[0] + front.line("5.10", "poll", vm=2)[0])
        seen = gate.arrived()
        while len(seen) < 2:
            seen += gate.arrived()
        gate.open("")  # one byte, so that two readers cannot share a line
        driver.answer("POLL")
        gate.open("")
        driver.answer("POLL")


def test_threads_bound_all_hosts(front, gate):
    with front.driver("-t 1 kvm -p") as driver:
        driver.send(front.line("5.10", "poll", vm=1)[0])
        gate.arrived()
        driver.send(front.line("5.10", "reboot", vm=2, HOST="node2")[0])
        assert driver.do("POLL 3 !\n") == ["POLL FAILURE 3 bad base64: '!' at byte 1"]
        assert front.called() == []
        gate.open()
        assert driver.answer("POLL")[-1] == "POLL SUCCESS 1 STATE=a"
        assert driver.answer("REBOOT")[-1] == "REBOOT SUCCESS 2 -"


def test_driver_cancel(front, gate):
    """Running and queued: one log line, no answer; the host is free at once, the script lives on."""
    with front.driver("-t 15 kvm") as driver:
        driver.send(front.line("7.x", "resize", vm=9)[0])  # any line: it tells the era
        driver.answer("RESIZE")
        driver.send(front.line("5.10", "poll", vm=1)[0])
        script = gate.arrived()[0]
        driver.send(front.line("5.10", "poll", vm=2)[0])
        driver.send("DRIVER_CANCEL 2\nDRIVER_CANCEL  1 \n")
        assert driver.read_line() == "LOG I 2 Driver command for 2 cancelled"
        assert driver.read_line() == "LOG I 1 Driver command for 1 cancelled"
        assert driver.do(front.line("5.10", "reboot", vm=1)[0])[-1] == "REBOOT SUCCESS 1 -"
        assert os.path.exists(f"/proc/{script}")
        gate.open()
        driver.send("INIT\n")
        assert driver.read_line() == "INIT SUCCESS", "an answer of a cancelled action"


def test_a_thousand_waiting(front):
    """Each answered exactly once; the driver stays small, with and without a place for the queue."""
    front.replace("vmm/kvm/poll", "echo STATE=a")
    for tmp, count in ((front.root, 250), ("/nonexistent", 60)):
        with front.driver("-t 15 -p -l poll kvm", TMPDIR=str(tmp)) as driver:
            text = "".join(front.line("7.x" if i % 2 else "5.10", "poll" if i % 2 == 0 else "resize",
                                      vm=i)[0] for i in range(count))
            sender = threading.Thread(target=driver.send, args=(text,))
            sender.start()
            seen = []
            while len(seen) < count:
                got = driver.read_line()
                if not got.startswith("LOG"):
                    seen.append(int(got.split()[2]))
            sender.join()
            assert sorted(seen) == list(range(count))


# --- scripts that misbehave ---

def test_script_without_end(front):
    """-w ends it: one FAILURE that says what, where and how long; roll-back runs all the same."""
    os.mkfifo(front.root / "gate")
    for name in ("save", "poll", "deploy"):
        front.replace(f"vmm/kvm/{name}", f"read x < {front.root}/gate")
    with front.driver("-w 1 -p -l deploy kvm") as driver:
        driver.send(front.line("5.10", "poll", vm=1)[0] + front.line("7.x", "save-suspend", vm=2)[0]
                    + front.line("7.x", "deploy", vm=3)[0])
        got = {}
        while len(got) < 3:
            line = driver.read_line()
            if " FAILURE " in line:
                got[line.split()[0]] = front.there(line)
    assert got == {
        "POLL": "POLL FAILURE 1 Timeout executing /var/tmp/one/vmm/kvm/poll on node1: not done "
                "after 1 seconds",
        "SAVE": "SAVE FAILURE 2 Timeout executing /var/tmp/one/vmm/kvm/save on node1: not done "
                "after 1 seconds",
        "DEPLOY": "DEPLOY FAILURE 3 Timeout executing /var/lib/one/remotes/vmm/kvm/deploy: not done "
                  "after 1 seconds"}
    assert front.called()[-1] == "clean"


def test_binary_and_endless_output(front):
    front.replace("vmm/kvm/poll", "printf 'STATE=a\\001\\000\\377 CPU=1\\nEOF_OUT\\nEND'")
    front.replace("vmm/kvm/reboot", "yes ERROR: flood | head -n 200000 >&2; yes x | head -c 3000000; "
                  "printf 'boom \\033[1m\\342\\202' >&2; exit 3")
    front.replace("vmm/kvm/save", "printf 'ok'; printf 'EOF_ERR ExitCode: 9 EOF_ERR\\n' >&2")
    with front.driver("kvm") as driver:
        assert driver.do(front.line("5.10", "poll")[0])[-1] == "POLL SUCCESS 0 STATE=a ?? CPU=1 " \
            "EOF_OUT END"
        got = driver.do(front.line("7.x", "reboot")[0])
        assert got[-1] == "REBOOT FAILURE 0 boom  [1m??ExitCode: 3"
        assert "LOG W 0 The script's output was too long; its middle is lost" in got
        assert len(got) < 20000
        assert driver.do(front.line("7.x", "save-suspend")[0])[-1] == "SAVE SUCCESS 0 ok"


@pytest.mark.parametrize("version, word", [("5.10", "reboot"), ("7.x", "poll")])
def test_failures_without_a_word(front, version, word):
    """No marker and no text: still a reason to act on."""
    front.replace("vmm/kvm/reboot", "echo 'WARN: almost' >&2; exit 7")
    front.replace("vmm/kvm/resize", "exit 42")
    front.replace("vmm/kvm/shutdown", "kill -9 $$")
    with front.driver("-l shutdown kvm") as driver:
        assert front.there(driver.do(front.line(version, "reboot")[0])[-1]) == (
            "REBOOT FAILURE 0 /var/tmp/one/vmm/kvm/reboot on node1 failed with exit code 7: "
            + ("WARN: almost" if version == "5.10" else "almost"))
        assert "onehost sync" in driver.do(front.line("7.x", "resize")[0])[-1]
        assert "was ended by signal 9" in driver.do(front.line(version, "shutdown-terminate")[0])[-1]


def test_deploy_without_id_or_file(front):
    front.replace("vmm/kvm/deploy", "exit 0")
    line, _ = front.line("7.x", "deploy")
    with front.driver("kvm") as driver:
        assert "printed no deploy id" in driver.do(line)[-1]
        front.write("var/vms/0/deployment.0", "")
        front.take_calls("")
        assert driver.do(line)[-1].startswith("DEPLOY FAILURE 0 Cannot open deployment file /")
        (front.var / "vms/0/deployment.0").unlink()
        assert "No such file" in driver.do(line)[-1]
        assert front.called() == [], "something was run for a deployment that cannot be"


def test_mandatory_data(front):
    line, _ = front.line("5.10", "attachdisk-image", ATTACH="NO")
    with front.driver("kvm", LIVE_DISK_SNAPSHOTS="") as driver:
        assert driver.do(line) == ["ATTACHDISK FAILURE 0 Cannot perform ATTACHDISK, expecting "
                                   "VM/TEMPLATE/DISK[ATTACH='YES']/TARGET"]
        line, _ = front.line("5.10", "disksnapshotcreate", VM_MAD="qemu")
        assert "qemu-ssh is not in LIVE_DISK_SNAPSHOTS" in driver.do(line)[-1]
        line, _ = front.line("5.10", "attachdisk-image", TM_COMMAND="LN ../x a b")
        assert "'../x' is not the name of a transfer driver" in driver.do(line)[-1]
        line, _ = front.line("5.10", "poll", HOST="-oProxyCommand=x")
        assert "is not a host name" in driver.do(line)[-1]
        assert front.called() == []


# --- bad lines ---

def test_bad_lines(front):
    """One FAILURE each, and the driver goes on."""
    good, message = front.line("5.10", "poll")
    coded = good.split()[2]

    def line(text):
        return f"POLL 5 {base64.b64encode(text.encode()).decode()}\n"

    cases = {
        f"POLL 5 {coded[:-8]}\n": "bad XML in line",
        f"POLL 5 {coded[:-7]}\n": "bad base64: cut short",
        f"POLL 5 {coded} x\n": "more than one word",
        "POLL 5\n": "no message after the id",
        f"FLY 5 {coded}\n": "knows no action FLY",
        line("<VM/>"): "its root is <VM>",
        line('<!DOCTYPE x [<!ENTITY a "b">]>' + message): "document types, entities",
        line(message.replace("<HOST>node1", "<HOST>&xxe;")): "bad XML in line",
        line(message.replace("<HOST>node1</HOST>", "")): "no HOST",
        line("<a>" * 5000): "bad XML in line",
        line(""): "no message after the id",
        line("\0"): "bad XML",
    }
    with front.driver("kvm") as driver:
        for text, reason in cases.items():
            got = driver.do(text)
            assert len(got) == 1 and got[0].split()[1:3] == ["FAILURE", "5"], got
            assert reason in got[0], (got, reason)
        driver.send(b"\n\r\n\x00\xff\xfe\nPOLL\nPOLL x y\nDRIVER_CANCEL x\nLOG I 1 x\npoll  ")
        driver.send(good.split(" ", 1)[1])  # words count in either case
        assert driver.answer("POLL")[-1] == "POLL SUCCESS 0 STATE=a CPU=1.0 MEMORY=1000"
        assert front.called() == ["poll"]


def test_line_cut_by_the_end(front):
    """Half a line at the end of input is no action."""
    with front.driver("kvm") as driver:
        driver.send(front.line("7.x", "reboot")[0][:-100])
        driver.process.stdin.close()
        assert driver.process.wait(10) == 255 and driver.process.stdout.read() == b""
    assert front.called() == []


def test_silent_host(front):
    """ssh that neither connects nor ends: -w ends the wait, for a shell kept and for a command alike."""
    front.script("bin/ssh", "#!/bin/sh\necho ssh >> {root}/calls\nexec tail -f /dev/null\n")
    with front.driver("-w 1 -t 2 -p kvm") as driver:
        driver.send(front.line("7.x", "reboot", vm=1)[0] + front.line("7.x", "resize", vm=2)[0])
        got = [line for word in ("RE", "RE") for line in driver.answer(rf"{word}\w+") if " FAILURE " in line]
        assert sorted(line.split()[0] for line in got) == ["REBOOT", "RESIZE"]
        assert all("Timeout executing" in line and "on node1: not done after 1 seconds" in line for line in got)
        front.script("bin/ssh", SSH)
        assert driver.do(front.line("7.x", "reboot")[0])[-1] == "REBOOT SUCCESS 0 -"


def test_lines_of_any_size(front):
    """20 MB work; more than 64 MB are refused at once, and the rest is skipped."""
    line, message = front.line("7.x", "resize", NAME="x" * (20 << 20))
    with front.driver("kvm") as driver:
        assert driver.do(line)[-1] == "RESIZE SUCCESS 0 -"
        assert len((front.root / "calls").read_text()) > len(message)
        front.write("calls", "")
        driver.send("POLL 6 ")
        for _ in range(65):
            driver.send(b"A" * (1 << 20))
        assert driver.read_line() == "POLL FAILURE 6 the message is longer than 64 MiB"
        driver.send("AAAA\n")
        assert driver.do(front.line("7.x", "reboot")[0])[-1] == "REBOOT SUCCESS 0 -"


def test_nothing_in_a_message_is_expanded(front):
    """Not by the remote shell, and it cannot end the here-document."""
    evil = f"<![CDATA[a\nEOT\ntouch {front.root}/evil\n$(touch {front.root}/evil) `id` 'q\n]]>"
    for version in ("5.10", "7.x"):
        line, message = front.line(version, "save-suspend", START_SCRIPT=evil,
                                   DEPLOY_ID=f"x';touch {front.root}/evil;'$(id)")
        with front.driver("kvm") as driver:
            assert driver.do(line)[-1] == "SAVE SUCCESS 0 -"
        assert "stdin: plain XML, root <VMM_DRIVER_ACTION_DATA>" in front.take_calls(message)
        line, message = front.line(version, "snapshotcreate",
                                   DEPLOY_ID=f"x;touch {front.root}/evil")
        with front.driver("kvm") as driver:
            assert driver.do(line)[-1] == "SNAPSHOTCREATE SUCCESS 0 snap-0"
    assert not (front.root / "evil").exists()


@pytest.mark.root
def test_full_disk(front):
    """A directory of the VM without room: DEPLOY fails with that reason, and is undone."""
    folder = front.var / "datastores/0/0"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", folder], check=True)
    try:
        (folder / "ballast").write_bytes(b"x" * 4096)
        with front.driver("kvm") as driver:
            got = driver.do(front.line("7.x", "deploy")[0])
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
    assert got[-1].startswith("DEPLOY FAILURE 0 ") and "No space left" in got[-1], got
    assert front.called() == ["context", "pre", "clean"]


# --- hosts ---

def test_retries(front):
    """-r holds for commands of their own; a host without scripts gets the remotes first."""
    front.replace("vmm/kvm/poll", f"[ -e {front.root}/second ] && exec echo STATE=a; "
                  f"touch {front.root}/second; exit 1")
    with front.driver("-r 1 kvm") as driver:
        assert driver.do(front.line("5.10", "poll")[0]) == \
            ["LOG I 0 Command failed, trying again", "POLL SUCCESS 0 STATE=a"]


SCP = """#!/bin/sh
echo "SCP $1" >> {root}/calls
shift
for last; do :; done
while [ $# -gt 1 ]; do cp -r "$1" "${{last#*:}}"; shift; done
"""


def test_host_without_scripts(front):
    front.script("bin/scp", SCP)
    front.remove_host_scripts()
    with front.driver("-r 1 kvm") as driver:
        got = driver.do(front.line("5.10", "reboot")[0])
        assert got[0] == "LOG I 0 Remote worker node files not found, copying them"
        assert got[-1] == "REBOOT SUCCESS 0 -"
        front.remove_host_scripts()
        assert driver.do(front.line("5.10", "poll")[0])[-1].startswith("POLL SUCCESS 0 STATE=a")
        front.remove_host_scripts()
        (front.var / "remotes/vmm/kvm/reset").unlink()
        assert "is neither on node1 nor among the remotes" in \
            driver.do(front.line("5.10", "reset")[0])[-1]
        front.remove_host_scripts()
        front.script("bin/scp", "#!/bin/sh\necho 'scp: no space' >&2; exit 1")
        assert "could not be copied there: scp: no space" in \
            driver.do(front.line("5.10", "reboot")[0])[-1]
    assert front.called().count("reboot") == 1


def test_host_that_goes_away(front):
    """ssh dies: before anything came back, and in the middle of a script."""
    front.replace("vmm/kvm/save", "kill -9 0")
    with front.driver("kvm") as driver:
        got = driver.do(front.line("5.10", "save-suspend")[0])
        assert front.there(got[-1]) == "SAVE FAILURE 0 Error connecting to node1"
        got = driver.do(front.line("5.10", "reboot")[0])
        assert got[-1] == "REBOOT SUCCESS 0 -"
        front.replace("vmm/kvm/migrate", "kill -9 0")
        got = driver.do(front.line("7.x", "migrate")[0])
        assert got[-1].startswith("MIGRATE FAILURE 0 Error connecting to node1")
        assert front.called()[-1] == "failmigrate"
        front.replace("vmm/kvm/restore", "kill -9 0")
        got = driver.do(front.line("7.x", "restore-resume")[0])
        assert front.there(got[-1]) == "RESTORE FAILURE 0 Connection to node1 was lost while it " \
            "ran /var/tmp/one/vmm/kvm/restore"
        front.script("bin/ssh", "#!/bin/sh\necho 'ssh: no route' >&2; exit 255")
        for version in ("5.10", "7.x"):
            assert driver.do(front.line(version, "reboot")[0])[-1] == \
                "REBOOT FAILURE 0 Error connecting to node1: ssh: no route"
        assert driver.do(front.line("5.10", "poll")[0])[-1] == \
            "POLL FAILURE 0 Error connecting to node1: ssh: no route"


class Sshd:
    """A real sshd on loopback with keys and configuration of its own; node1, node2 lead to it."""

    CONFIG = """Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host_key
AuthorizedKeysFile {home}/key.pub
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""
    CLIENT = """Host *
HostName 127.0.0.1
Port {port}
IdentityFile {home}/key
IdentitiesOnly yes
StrictHostKeyChecking accept-new
UserKnownHostsFile {home}/known_hosts
LogLevel ERROR
BatchMode yes
"""

    def __init__(self, front):
        self.home = front.root / "ssh"
        self.home.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        for name in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.home / name],
                           check=True)
        for name, text in (("sshd_config", self.CONFIG), ("config", self.CLIENT)):
            (self.home / name).write_text(text.format(port=self.port, home=self.home))
        for name in ("ssh", "scp"):
            front.script(f"bin/{name}", f"#!/bin/sh\nexec /usr/bin/{name} -F {self.home}/config \"$@\"\n")
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", self.home / "sshd_config"],
                                        stderr=subprocess.PIPE, bufsize=0)
        assert drover.wait_readable(self.process.stderr, drover.Deadline(10))
        first = self.process.stderr.readline()
        assert b"listening" in first, first

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stderr.close()


@pytest.fixture
def sshd(front):
    if not os.path.exists("/usr/sbin/sshd"):
        pytest.skip("no sshd here")
    made = Sshd(front)
    yield made
    made.close()


@pytest.mark.root
def test_real_ssh(front, sshd):
    """The recorded steps again, through a real connection; a silent, then an absent host."""
    wanted = {"deploy", "migrate", "attachnic", "snapshotcreate", "exec"}
    with front.driver("-t 15 -r 0 kvm -p") as driver:
        for name, _, _, calls, lines in sections(GOLDEN / "7.x/remote.txt"):
            if name not in wanted:
                continue
            line, message = front.line("7.x", name)
            assert [front.there(text) for text in driver.do(line)] == lines
            assert front.take_calls(message) == normal(re.sub("SSH argv: .*\n", "", calls))
        front.remove_host_scripts()
        assert driver.do(front.line("7.x", "reboot")[0], 30)[-1] == "REBOOT SUCCESS 0 -"
        front.replace("vmm/kvm/save", "kill -9 $(ps -o ppid= $PPID)")
        got = driver.do(front.line("7.x", "save-suspend")[0])[-1]
        assert "Error connecting to node1" in got or "Connection to node1 was lost" in got
        sshd.close()
        assert re.search("Error connecting to node1: ssh: connect to .* refused",
                         driver.do(front.line("7.x", "reboot")[0])[-1])
