"""The lines and the unit of docs/systemd.md: what systemd's own generator and parser make of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

GENERATOR = Path("/usr/lib/systemd/system-generators/systemd-fstab-generator")
SYSTEMD = Path("/usr/lib/systemd/systemd")
DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/systemd.md").read_text()
README = (Path(__file__).resolve().parents[2] / "README.md").read_text()

pytestmark = pytest.mark.skipif(
    not GENERATOR.exists() or not SYSTEMD.exists(), reason="systemd is not installed (tools/setup installs it)"
)


def lines(text: str) -> list[str]:
    """The lines for fstab in a document."""
    return re.findall(r"^    (//\S+\s+/\S+\s+smb3fs\s+\S+\s+0 0)$", text, re.MULTILINE)


def documented(place: str) -> str:
    """The line of the document for a mountpoint."""
    (line,) = (line for line in lines(DOCUMENT) if line.split()[1] == place)
    return line


def generated(line: str, folder: Path) -> Path:
    """The units that the generator makes of a line."""
    (folder / "fstab").write_text(line + "\n")
    units = folder / "units"
    units.mkdir()
    environment = {**os.environ, "SYSTEMD_FSTAB": str(folder / "fstab"), "SYSTEMD_LOG_TARGET": "console"}
    done = subprocess.run([GENERATOR, units, units, units], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return units


def read(unit: Path) -> dict[str, str]:
    """The settings of a unit file."""
    return dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)


def loaded(units: Path, name: str) -> dict[str, set[str]]:
    """What systemd itself makes of a unit, with all that follows from it: a manager's dry run prints it."""
    for place in (units, *units.parents):
        if not place.stat().st_mode & 0o005:
            place.chmod(place.stat().st_mode | 0o055)
    command = [str(SYSTEMD), "--test", "--system", f"--unit={name}"]
    if os.geteuid() == 0:  # the dry run refuses to be root
        command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
    environment = {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{units}:/usr/lib/systemd/system", "HOME": "/"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    match = re.search(rf"^\t-> Unit {re.escape(name)}:\n((?:\t\t.*\n)*)", done.stdout + done.stderr, re.MULTILINE)
    if match is None and "cgroup v1" in done.stderr:
        pytest.skip("this systemd wants cgroups of version 2, which this machine does not have")
    assert match is not None, done.stderr[-2000:]
    facts: dict[str, set[str]] = {}
    for key, value in re.findall(r"^\t\t\s*([A-Za-z ]+): (\S+)", match[1], re.MULTILINE):
        facts.setdefault(key, set()).add(value)
    return facts


def test_a_mount_at_boot(tmp_path: Path) -> None:
    units = generated(documented("/mnt/share"), tmp_path)
    mount = read(units / "mnt-share.mount")
    assert (mount["What"], mount["Where"], mount["Type"]) == ("//server/share", "/mnt/share", "smb3fs")
    assert mount["Options"] == "credentials=/etc/smb3fs.cred,uid=alice,_netdev,nofail"
    assert (units / "remote-fs.target.wants/mnt-share.mount").is_symlink()  # wanted, not required: nofail
    facts = loaded(units, "mnt-share.mount")
    assert {"network-online.target", "remote-fs-pre.target", "network.target"} <= facts["After"]
    assert "network-online.target" in facts["Wants"]
    assert "local-fs.target" not in facts.get("Before", set())


def test_an_automount(tmp_path: Path) -> None:
    units = generated(documented("/mnt/auto"), tmp_path)
    mount, automount = read(units / "mnt-auto.mount"), read(units / "mnt-auto.automount")
    assert (mount["What"], mount["Where"], mount["Type"]) == ("//server/share", "/mnt/auto", "smb3fs")
    assert mount["TimeoutSec"] == "45s"
    assert (automount["Where"], automount["TimeoutIdleSec"]) == ("/mnt/auto", "10min")
    assert not list(units.glob("*/mnt-auto.mount"))  # only through the automount
    assert list(units.glob("remote-fs.target.*/mnt-auto.automount"))
    assert "network-online.target" in loaded(units, "mnt-auto.mount")["After"]


def test_what_becomes_of_a_line_without_netdev(tmp_path: Path) -> None:
    """What the document warns of: a local mount, without which the machine does not boot."""
    units = generated("//server/share /mnt/share smb3fs credentials=/etc/smb3fs.cred 0 0", tmp_path)
    assert (units / "local-fs.target.requires/mnt-share.mount").is_symlink()
    assert "network-online.target" not in loaded(units, "mnt-share.mount")["After"]


@pytest.mark.parametrize("line", lines(README))
def test_the_lines_of_the_readme_have_netdev(tmp_path: Path, line: str) -> None:
    assert "_netdev" in line
    units = generated(line, tmp_path)
    assert list(units.glob("remote-fs.target.*/*"))
    assert not list(units.glob("local-fs.target.*/mnt-*"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_service(tmp_path: Path) -> None:
    text = re.search(r"^    \[Unit\]\n(?:    .*\n|\n)*", DOCUMENT, re.MULTILINE)
    assert text is not None
    unit = tmp_path / "smb3fs-share.service"
    unit.write_text("\n".join(line.removeprefix("    ") for line in text[0].splitlines()).replace("/sbin/", "/bin/"))
    # The program need not be installed for this; anything that can be run stands in for it.
    unit.write_text(unit.read_text().replace("/bin/mount.smb3fs", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", unit], capture_output=True, text=True, check=False, timeout=60
    )
    assert "smb3fs-share" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert read(unit)["Type"] == "notify"
