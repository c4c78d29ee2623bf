"""systemd itself mounts a real share: at boot, at the first access, as a service."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.mounting import program, wait_until
from lab.server import Samba
from lab.systemd import Systemd, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"a systemd of our own needs {missing()}")
DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/systemd.md").read_text()


def documented(server: Samba, place: Path, name: str) -> str:
    """A line of docs/systemd.md, for a real share."""
    found = re.search(rf"^    (//\S+\s+/mnt/{name}\s+smb3fs\s+\S+\s+0 0)$", DOCUMENT, re.MULTILINE)
    assert found is not None
    line = found[1].replace("//server/share", server.source()).replace(f"/mnt/{name}", str(place))
    line = line.replace("/etc/smb3fs.cred", str(server.credentials)).replace("alice", "daemon")
    return line.replace("idle-timeout=10min", "idle-timeout=2s") + "\n"


def service(server: Samba, place: Path) -> str:
    """The service of docs/systemd.md, for a real share."""
    found = re.search(r"^    \[Unit\]\n(?:    .*\n|\n)*", DOCUMENT, re.MULTILINE)
    assert found is not None
    text = "\n".join(line.removeprefix("    ") for line in found[0].splitlines())
    text = text.replace("//server/share", server.source()).replace("/mnt/share", str(place))
    text = text.replace("/etc/smb3fs.cred", str(server.credentials)).replace("RestartSec=10s", "RestartSec=1s")
    return text.replace("/sbin/mount.smb3fs", program("mount.smb3fs"))


@pytest.fixture(scope="module")
def places(own_samba: Samba) -> dict[str, Path]:
    """Mountpoints."""
    found = {name: own_samba.folder / f"systemd-{name}" for name in ("share", "auto", "service")}
    for place in found.values():
        place.mkdir()
    return found


@pytest.fixture(scope="module")
def systemd(own_samba: Samba, places: dict[str, Path]) -> Iterator[Systemd]:
    """A machine whose fstab has the documented lines, and the service."""
    own_samba.put("file", b"content\n")
    fstab = "".join(documented(own_samba, places[name], name) for name in ("share", "auto"))
    units = {"smb3fs-share.service": service(own_samba, places["service"])}
    with Systemd(own_samba.folder / "systemd", fstab=fstab, units=units) as machine:
        yield machine


def kind(machine: Systemd, place: Path) -> str:
    """What is mounted on a place, without a step there, which would count as an access."""
    lines = Path(f"/proc/{machine.pid}/mountinfo").read_text().splitlines()
    return " ".join(line.partition(" - ")[2].split()[0] for line in lines if line.split()[4] == str(place))


def test_what_is_mounted_at_boot(systemd: Systemd, places: dict[str, Path]) -> None:
    assert kind(systemd, places["share"]) == "fuse.smb3fs"
    unit = systemd.run("systemd-escape", "--path", "--suffix=mount", str(places["share"])).stdout.strip()
    assert systemd.property(unit, "ActiveState") == "active"
    assert systemd.run("cat", str(places["share"] / "file")).stdout == "content\n"
    systemd.run("systemctl", "stop", unit)
    assert kind(systemd, places["share"]) == ""
    assert systemd.property(unit, "Result") == "success"


def test_the_first_access_mounts_and_idleness_unmounts(
    systemd: Systemd, places: dict[str, Path], own_samba: Samba
) -> None:
    place = places["auto"]
    for _ in range(2):
        assert kind(systemd, place) == "autofs"
        assert systemd.run("cat", str(place / "file")).stdout == "content\n"
        assert kind(systemd, place) == "autofs fuse.smb3fs"
        assert wait_until(lambda: kind(systemd, place) == "autofs", 20)
    assert wait_until(lambda: own_samba.sessions() == 0, 10)


def test_an_access_while_the_server_is_away_fails_and_the_next_one_mounts(
    systemd: Systemd, places: dict[str, Path], own_samba: Samba
) -> None:
    place = places["auto"]
    own_samba.stop()
    try:
        began = time.monotonic()
        done = systemd.run("cat", str(place / "file"), check=False)
        assert done.returncode != 0
        assert time.monotonic() - began < 45
        assert kind(systemd, place) == "autofs"
    finally:
        own_samba.start()
    assert systemd.run("cat", str(place / "file")).stdout == "content\n"


def test_a_service_of_type_notify(systemd: Systemd, places: dict[str, Path], own_samba: Samba) -> None:
    place, unit = places["service"], "smb3fs-share.service"
    systemd.run("systemctl", "start", unit)
    assert kind(systemd, place) == "fuse.smb3fs"  # started means mounted
    assert systemd.property(unit, "StatusText") == f"{own_samba.source()} is mounted at {place}"
    assert systemd.run("cat", str(place / "file")).stdout == "content\n"
    systemd.run("systemctl", "kill", "--signal=KILL", unit)
    assert wait_until(lambda: systemd.property(unit, "NRestarts") == "1", 30)
    assert wait_until(lambda: kind(systemd, place) == "fuse.smb3fs", 30)
    assert systemd.run("cat", str(place / "file")).stdout == "content\n"
    systemd.run("systemctl", "stop", unit)
    assert kind(systemd, place) == ""
    assert systemd.property(unit, "Result") == "success"


def test_a_service_that_cannot_start_says_why(systemd: Systemd, own_samba: Samba) -> None:
    own_samba.stop()
    try:
        done = systemd.run("systemctl", "start", "smb3fs-share.service", check=False)
        assert done.returncode != 0
        assert "nothing listens on port 445" in systemd.property("smb3fs-share.service", "StatusText")
        systemd.run("systemctl", "stop", "smb3fs-share.service")
    finally:
        own_samba.start()
