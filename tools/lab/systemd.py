"""A systemd of its own, booted in namespaces: process 1 there, with nothing to start but what a test gives it.

It shares this machine's files and network. Its mounts, its processes, /run and the control groups are its own, and gone
when it ends. mount(8) finds the helpers in a /usr/sbin that only it sees.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab.commands import CommandError, run

SYSTEMD: Final = Path("/usr/lib/systemd/systemd")
GENERATOR: Final = Path("/usr/lib/systemd/system-generators/systemd-fstab-generator")
# Where the second hierarchy of control groups is mounted, on machines that have nothing else and on those with both.
CGROUPS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
START_SECONDS: Final = 30.0
# $1: a folder with `units` and `helpers`.
# FUSE mounts of the machine are let go: a copy in here would keep their daemons alive after the unmount out there.
BOOT: Final = """
umount --all --lazy --types fuse.smb3fs || true
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
test ! -d /var/log/journal || mount -t tmpfs tmpfs /var/log/journal
umount -l -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t overlay overlay -o "lowerdir=$1/helpers:/usr/sbin" /usr/sbin
mount --make-rshared /
mkdir -p /run/systemd/system
cp -a "$1/units/." /run/systemd/system/
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_LOG_TARGET=console \\
    SYSTEMD_UNIT_PATH=/run/systemd/system /usr/lib/systemd/systemd --system --unit=lab.target
"""
# What every unit waits for, and stops at; nothing of this machine's own belongs to them here.
STAGES: Final = ("sysinit", "basic", "shutdown", "umount", "network", "network-online", "remote-fs-pre", "remote-fs")
TARGET: Final = """
[Unit]
Description=What a test has asked for
Requires=basic.target
After=basic.target
{}
"""


def missing() -> str:
    """What this machine lacks for it, in words; empty if nothing."""
    if os.geteuid() != 0:
        return "root"
    if not SYSTEMD.exists() or not GENERATOR.exists():
        return "systemd (tools/setup installs it)"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return "overlayfs"
    place = _hierarchy()
    if place is None:
        return "control groups of version 2"
    return "" if os.access(place, os.W_OK) else "control groups that can be written"


def _hierarchy() -> Path | None:
    """Where control groups of version 2 are mounted."""
    return next((place for place in CGROUPS if (place / "cgroup.controllers").exists()), None)


class Systemd:
    """One booted systemd; a context manager that ends it and all that it started."""

    def __init__(self, folder: Path, *, fstab: str = "", units: dict[str, str] | None = None) -> None:
        """`fstab` is put through systemd's generator, `units` are files; `want` names what is started at boot."""
        self.folder = folder
        self._fstab = fstab
        self._units = units or {}
        self._process: subprocess.Popen[bytes] | None = None
        hierarchy = _hierarchy()
        assert hierarchy is not None
        self._group = hierarchy / f"smb3fs-lab-{os.getpid()}"
        self.pid = 0

    def __enter__(self) -> Self:
        try:
            self._lay_out()
            self._boot()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            # With its process 1 every process of the namespace ends, and with them its mounts.
            self._process.kill()
            self._process.wait(timeout=20)
        limit = time.monotonic() + 10
        while self._group.exists() and time.monotonic() < limit:
            for place, _, _ in os.walk(self._group, topdown=False):
                with suppress(OSError):
                    os.rmdir(place)
            time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _lay_out(self) -> None:
        """Write the units and the links to the helpers."""
        units, helpers = self.folder / "units", self.folder / "helpers"
        units.mkdir(parents=True)
        helpers.mkdir()
        run(_program("smb3fs"), "install-helper", "--directory", str(helpers))
        (self.folder / "fstab").write_text(self._fstab)
        environment = ["env", f"SYSTEMD_FSTAB={self.folder / 'fstab'}", "SYSTEMD_LOG_TARGET=console"]
        run(*environment, str(GENERATOR), *[str(units)] * 3)
        for name, text in self._units.items():
            (units / name).write_text(text)
        wanted = [place.name for place in units.glob("remote-fs.target.*/*")]
        (units / "lab.target").write_text(TARGET.format("".join(f"Wants={name}\nAfter={name}\n" for name in wanted)))
        for name in STAGES:
            (units / f"{name}.target").write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")

    def _boot(self) -> None:
        """Start it, and return when it has started what it was to start."""
        self._group.mkdir()
        join = 'echo $$ >"$1/cgroup.procs"; folder=$2; shift 2; exec "$@" sh "$folder"'
        namespaces = ["--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--propagation=private"]
        command = ["unshare", *namespaces, "--kill-child", "sh", "-ec", BOOT]
        with (self.folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                ["sh", "-ec", join, "join", str(self._group), str(self.folder), *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        limit = time.monotonic() + START_SECONDS
        while True:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            with suppress(OSError):
                self.pid = int((children.read_text().split() or ["0"])[0])
            if self.pid and self.run("systemctl", "is-active", "lab.target", check=False).stdout == "active\n":
                return
            if self._process.poll() is not None or time.monotonic() > limit:
                raise CommandError(f"systemd did not boot:\n{self.console()[-3000:]}")
            time.sleep(0.1)

    def console(self) -> str:
        """What it said on its console."""
        return (self.folder / "console").read_text(errors="replace")

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command where its processes run."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "--uts", "--ipc"]
        return run(*enter, *command, check=check, timeout=timeout)

    def property(self, unit: str, name: str) -> str:
        """One of a unit's properties."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def _program(name: str) -> str:
    """A console script of the environment that this runs in."""
    from lab.mounting import program

    return program(name)
