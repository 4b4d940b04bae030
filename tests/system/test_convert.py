# SPDX-License-Identifier: Apache-2.0
"""drover-convert: what it takes, what it tells, and that no input makes it crash or lie."""

import json
import os
import subprocess

import pytest

import drover

EXAMPLES = drover.TOP / "docs/examples"
# As libvirt 9.0 prints what it was given by `virsh define`, with all that it adds itself.
DOMAINS = sorted((drover.TOP / "tests/golden/convert").glob("*.xml"))


def convert(kind, text, *options):
    program = drover.build_dir() / "src/one/drover-convert"
    env = {**os.environ, "ASAN_OPTIONS": "exitcode=99:detect_leaks=1"}
    done = subprocess.run([program, *options, kind], input=text.encode(), capture_output=True,
                          env=env, timeout=60, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def domain(inside):
    return f"<domain type='kvm'><name>a</name><memory>131072</memory>{inside}</domain>"


def disk(inside):
    return domain(f"<devices><disk type='file' device='disk'>{inside}<source file='/a'/>"
                  "<target dev='vda' bus='virtio'/></disk></devices>")


def nic(inside, kind="bridge"):
    return domain(f"<devices><interface type='{kind}'><mac address='52:54:00:00:00:01'/>"
                  f"<model type='virtio'/>{inside}</interface></devices>")


@pytest.mark.parametrize("xml, member, note", [
    ("<domain><name>a</name><memory unit='GiB'>2</memory></domain>", "ram = 2048;", None),
    ("<domain><name>a</name><memory unit='b'>134217728</memory></domain>", "ram = 128;", None),
    ("<domain><name>a</name><memory unit='furlong'>2</memory></domain>", "a {", "memory: "),
    ("<domain><name>a</name><memory unit='GiB'>2</memory><currentMemory unit='M'>512</currentMemory>"
     "</domain>", "balloon = 512;", None),
    (domain("<os><boot dev='network'/><boot dev='hd'/><boot dev='hd'/></os>"), "order=nc", None),
    (domain("<os><boot dev='fd'/></os>"), "a {", "os/boot@dev: 'fd' is not supported (want hd, cdrom"),
    (domain("<os firmware='efi'/>"), "OVMF_CODE.fd", None),
    (domain("<cpu mode='host-model'><feature policy='disable' name='svm'/></cpu>"), '"host,-svm"', None),
    (domain("<clock offset='localtime'/>"), "base=localtime", None),
    (domain("<on_crash>preserve</on_crash>"), "a {", "on_crash: 'preserve' is not supported"),
    (domain("<devices><graphics type='spice'/></devices>"), "vnc_port = -1;", "graphics@type: 'spice'"),
    (domain("<devices><graphics type='vnc' port='5905' passwd='123456789'/></devices>"),
     'vnc_password = "12345678";', "cut to its first 8"),
    (domain("<devices><teleporter/></devices>"), "a {", "devices/teleporter: is an element"),
    (domain("<os warp='9'/>"), "a {", "os@warp: '9' is not known here"),
    (disk("<driver name='qemu' type='vmdk'/>"), "disk vda", "driver@type: 'vmdk' is not supported"),
    (disk("<encryption format='luks'/>"), "disk vda", "devices/disk/encryption: is not supported"),
    (disk("<serial>S1</serial><boot order='1'/>"), 'serial = "S1";', None),
    (nic("<source bridge='br7'/><mtu size='9000'/><link state='down'/>"), "mtu = 9000;", None),
    (nic("<source network='lan'/>", "network"), 'nic_tag = "lan";', "--bridge NETWORK=BRIDGE"),
    (nic("<source dev='eth0'/>", "direct"), 'nic_tag = "eth0";', "interface@type: 'direct' is not"),
    (nic("", "user"), 'nic_tag = "user";', None),
    (nic("<source bridge='b'/><filterref filter='clean-traffic'/>"), "nic net0", "filterref@filter"),
])
def test_libvirt(xml, member, note):
    code, out, told = convert("libvirt", xml)
    assert code == 0 and member in out, (out, told)
    assert note in told if note else not told


def test_result_is_a_definition(cold):
    code, out, _ = convert("libvirt", (EXAMPLES / "web0.xml").read_text(), "--bridge", "lan=br0")
    assert code == 0
    image = cold.root / "web0.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    cold.write_definition("web0", out.replace("/var/lib/libvirt/images/web0.qcow2", str(image)))
    done = subprocess.run([cold.binary("vmstated"), "--root", cold.root, "--check"], env=cold.env,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOMAINS, ids=lambda path: path.stem)
def test_libvirts_own_words(path):
    """What becomes of a domain, and what is told of the rest; REWRITE_GOLDEN=1 writes it anew."""
    code, out, told = convert("libvirt", path.read_text(), "--bridge", "default=virbr0")
    assert code == 0, told
    golden = path.with_suffix(".out")
    if os.environ.get("REWRITE_GOLDEN"):
        golden.write_text(told + out)
    assert told + out == golden.read_text()


def test_libvirts_domains_pass_the_check(cold):
    """Nothing is wrong with them but that files are not on this host."""
    for path in DOMAINS:
        cold.write_definition(path.stem, convert("libvirt", path.read_text())[1])
    done = subprocess.run([cold.binary("vmstated"), "--root", cold.root, "--check"], env=cold.env,
                          capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stdout.splitlines() if "No such file" not in line]
    assert said == [], done.stdout + done.stderr
    assert "/srv/boot/vmlinuz" in done.stdout and done.returncode == 1


@pytest.mark.campaign
def test_a_domain_of_libvirt_boots(suite):
    text = next(path for path in DOMAINS if path.stem == "direct-kernel").read_text()
    _, out, _ = convert("libvirt", text)
    image = suite.root / "direct.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    for theirs, ours in (("/srv/boot/vmlinuz", f"{drover.GUEST}/vmlinuz"),
                         ("/srv/boot/initramfs.gz", f"{drover.GUEST}/initramfs.gz"),
                         ("/srv/vm/direct.qcow2", str(image))):
        assert theirs in out
        out = out.replace(theirs, ours)
    suite.write_definition("direct-kernel", out)
    suite.vmstatedctl("start", "direct-kernel", seconds=60)
    suite.log_wait("direct-kernel", "GUEST-UP", 60)
    assert suite.vm("6f1e4b0a-3b1f-4a55-9d5e-0a5d3c1b0005")["nics"][0]["mac"] == "52:54:00:6b:3c:60"
    suite.vmstatedctl("stop", "-F", "direct-kernel")


def test_smartos_maps_are_told_in_a_definition_and_kept_in_a_payload():
    text = (EXAMPLES / "db0.json").read_text()
    code, out, told = convert("smartos", text)
    assert code == 0 and "role" not in out and "note: tags: not kept in a definition" in told
    code, out, told = convert("smartos", text, "--json", "--bridge", "admin=br0")
    made = json.loads(out)
    assert code == 0 and made["tags"] == {"role": "db"} and made["nics"][0]["nic_tag"] == "br0"
    assert "tags" not in told and "nic_tag" not in told and "state" not in made


@pytest.mark.parametrize("kind, text, reason", [
    ("libvirt", "", "there is no element"),
    ("libvirt", "<!-- for ever", "refused"),
    ("libvirt", "<!DOCTYPE x [<!ENTITY a 'b'>]><domain/>", "document types"),
    ("libvirt", "<network/>", "want <domain>"),
    ("libvirt", domain("<uuid>nonsense</uuid>"), "wrong: uuid"),
    ("libvirt", domain("<vcpu>100000</vcpu>"), "wrong: vcpus"),
    ("libvirt", nic("<source bridge='b'/><vlan><tag id='9999'/></vlan>"), "wrong: nics[0].vlan_id"),
    ("libvirt", "<domain>" + "<os>" * 5000 + "</os>" * 5000 + "</domain>", ""),
    ("smartos", "[]", "JSON object"),
    ("smartos", "{", "object:1"),
    ("smartos", '{"brand": "lx"}', "illumos"),
    ("smartos", '{"brand": "kvm", "ram": "much"}', "wrong: ram"),
    ("smartos", '{"brand": "kvm", "disks": 5, "nics": [7, null]}', "wrong: "),
])
def test_refused(kind, text, reason):
    code, out, told = convert(kind, text)
    assert code in (0, 1) and reason in told
    assert code == 1 or not reason
    assert not out or code == 0


def test_usage():
    assert convert("vmware", "")[0] == 2
    assert convert("libvirt", domain(""), "--bridge", "lan")[0] == 2
    code, out, _ = convert("--help", "")
    assert code == 0 and "smartos" in out


def test_too_large():
    code, out, told = convert("libvirt", " " * (5 << 20))
    assert code == 1 and "more than 4 MiB" in told and not out
