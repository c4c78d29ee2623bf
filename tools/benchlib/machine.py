"""The machine and the versions of what runs on it, for the report."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final

# Program to Debian package, for what tools/setup does not bring.
PEERS: Final = {"rclone": "rclone", "smbnetfs": "smbnetfs", "smbclient": "smbclient"}
LIBRARIES: Final = ("pyfuse3", "trio", "cryptography", "pyspnego")


def describe() -> dict[str, str]:
    """What makes figures of one machine incomparable with those of another."""
    return {
        "CPU": f"{cpu_model(_text('/proc/cpuinfo'))}, {os.cpu_count()} processors{_virtual()}",
        "memory": f"{memory_kib(_text('/proc/meminfo'), 'MemTotal') / (1 << 20):.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": system_name(_text("/etc/os-release")),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def load() -> str:
    """The load average now."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def busy() -> str:
    """A warning when other work would share the processors with the bench; empty otherwise."""
    now, processors = os.getloadavg()[0], os.cpu_count() or 1
    if now < processors / 4:
        return ""
    return f"the load average is {now:.2f} on {processors} processors: figures will be lower and scatter more"


def cpu_model(cpuinfo: str) -> str:
    """The first processor's name."""
    match = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def memory_kib(meminfo: str, field: str) -> int:
    """One field of /proc/meminfo; 0 when it is not there."""
    match = re.search(rf"^{field}:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(match[1]) if match else 0


def memory_available_mib() -> int:
    """Memory that can be had without swapping."""
    return memory_kib(_text("/proc/meminfo"), "MemAvailable") >> 10


def system_name(os_release: str) -> str:
    """PRETTY_NAME of os-release(5)."""
    match = re.search(r'^PRETTY_NAME="?(.*?)"?$', os_release, re.MULTILINE)
    return match[1] if match else "unknown"


def versions(server: str) -> dict[str, str]:
    """Versions of every program that takes part."""
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    return {
        "smb3fs": f"{metadata.version('smb3fs')}{_commit()} ({libraries})",
        "rclone": _first_line("rclone", "version"),
        "smbnetfs": _matching("SMBNetFS", "smbnetfs", "--version"),
        "smbclient": _first_line("smbclient", "--version"),
        "server": f"smbd, {server}",
    }


def install_missing(programs: Sequence[str]) -> None:
    """Install the peers that are not there."""
    missing = [PEERS[name] for name in programs if name in PEERS and not _has(name)]
    if not missing:
        return
    print(f"==> missing: {' '.join(missing)}; apt-get install", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=True, stdout=sys.stderr, env=environment)
    install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing]
    subprocess.run(install, check=True, stdout=sys.stderr, env=environment)


def _has(program: str) -> bool:
    """Whether a program is on the path."""
    return any(os.access(Path(folder) / program, os.X_OK) for folder in os.environ.get("PATH", "").split(":"))


def _text(path: str) -> str:
    """A small file's text, empty when it is not there."""
    with suppress(OSError):
        return Path(path).read_text()
    return ""


def _virtual() -> str:
    """Whether the processors are a hypervisor's."""
    return " of a virtual machine" if re.search(r"^flags\s*:.*\bhypervisor\b", _text("/proc/cpuinfo"), re.M) else ""


def _output(*command: str) -> str:
    """What a program prints on either stream; empty when there is no such program."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
        return done.stdout + done.stderr
    return ""


def _first_line(*command: str) -> str:
    """The first line of a program's output."""
    return next(iter(_output(*command).splitlines()), "unknown")


def _matching(word: str, *command: str) -> str:
    """The line of a program's output that begins with `word`."""
    return next((line for line in _output(*command).splitlines() if line.startswith(word)), "unknown")


def _commit() -> str:
    """The commit of the working tree, if git knows it."""
    here = str(Path(__file__).resolve().parent)
    commit = _output("git", "-C", here, "rev-parse", "--short", "HEAD").strip()
    return f" at {commit}" if re.fullmatch(r"[0-9a-f]{7,}", commit) else ""
