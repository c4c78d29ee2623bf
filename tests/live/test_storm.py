"""Hundreds of processes on two mounts do everything at once and are killed in the middle of it, for minutes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from lab.mounting import Mount, wait_until
from lab.server import Samba

from .conftest import DRIVER, Mounter

PROGRAM = Path(__file__).parents[1] / "vfs" / "storm.py"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
PROCESSES = 200
# SMB3FS_STORM=600 makes it ten minutes.
SECONDS = float(os.environ.get("SMB3FS_STORM", "60"))


def left_open(mount: Mount) -> int:
    """How many handles are open, but for those of directories that are kept under a lease."""
    told = mount.status()
    return int(told["open_handles"]) - int(told["directories"]["directories"])


def unanswered(mount: Mount) -> int:
    """How many requests the server has not answered, but for those that nobody waits for any more."""
    (channel,) = mount.status()["channels"]
    return int(channel["in_flight"]) - int(channel["given_up"])


@pytest.mark.slow
@pytest.mark.skipif("fuse=pyfuse3" in DRIVER, reason="pyfuse3 leaves locks to the kernel")
def test_a_storm_on_two_mounts(mounted: Mounter, samba: Samba) -> None:
    mounts = [mounted(), mounted("noposix")]
    folder = samba.directory() / f"storm-{os.urandom(4).hex()}"
    (mounts[0].path / folder.name).mkdir()
    count: Counter[str] = Counter()
    events: list[str] = []
    running: list[subprocess.Popen[bytes]] = []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        while len(running) < PROCESSES:
            top = random.choice(mounts).path / folder.name
            words = [sys.executable, PROGRAM, top, str(count["started"]), "3600"]
            running.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            count["started"] += 1
        time.sleep(0.2)
        for victim in random.sample(running, 4):
            victim.send_signal(random.choice(SIGNALS))
        for one in [one for one in running if one.poll() is not None]:
            running.remove(one)
            count["ended by a signal"] += one.returncode < 0
            count["ended otherwise"] += one.returncode >= 0
    for one in running:
        one.kill()
    for one in running:
        one.wait(120)
    # What the last of them had under way may end a moment after them, on the other mount too.
    remove = ["rm", "-rf", mounts[0].path / folder.name]
    assert wait_until(lambda: subprocess.run(remove).returncode == 0, 30)
    for mount in mounts:
        # The kernel closes in its own time.
        assert wait_until(lambda mount=mount: left_open(mount) == 0, 60), mount.status()["handles"]
        # Samba 4.17 forgets a CREATE now and then that waited for a lease, and answers it as little as its CANCEL.
        assert wait_until(lambda mount=mount: unanswered(mount) == 0, 60)
        count["given up"] += mount.status()["channels"][0]["given_up"]
        # It keeps names that others have removed until it wants the memory, or this.
        subprocess.run(["mount", "-i", "-o", "remount,rw", mount.path], check=True)
        assert wait_until(lambda mount=mount: mount.status()["inodes"] == 1, 60), mount.status()["inodes"]
        told = mount.status()
        assert not any(told["locks"].values()), told["locks"]
        count.update(told["requests"])
        events += [event["text"] for event in (*told["events"], *told["last_errors"])]
    # The root may be kept open under a lease, until the mount ends.
    assert set(samba.open_files(directories=True)) <= {"."}
    print(f"\n{dict(count)}\n{events}")
    # The calls that waited for a forgotten CREATE end when their time is over, and nothing else fails.
    assert [event for event in events if not event.endswith("no answer within 30 seconds")] == []
    for mount in mounts:
        mount.unmount()
    assert wait_until(lambda: samba.open_files(directories=True) == [], 10)
    assert not folder.exists()
