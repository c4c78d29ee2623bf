"""Many processes do everything at once and are killed in the middle of it; afterwards nothing is left over."""

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
import trio
from fake_share import FakeShare
from memory_mount import Mounted, empty_dentry_cache, mounted

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is missing, or not for this user"
)
PROGRAM = Path(__file__).with_name("storm.py")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class SlowShare(FakeShare):
    """A share whose answers take their time, and overtake each other."""

    async def exchange(self, call: str) -> None:
        await trio.sleep(random.choice((0.0, 0.001, 0.004)))
        await super().exchange(call)


@pytest.mark.parametrize(
    ("processes", "seconds", "holds"),
    [(12, 3.0, False), (12, 3.0, True), pytest.param(100, 60.0, True, marks=pytest.mark.slow)],
    ids=["short", "holding", "full"],
)
def test_a_storm(tmp_path: Path, processes: int, seconds: float, holds: bool, caplog: pytest.LogCaptureFixture) -> None:
    share = SlowShare()
    share.holds = holds
    m = Mounted("native", tmp_path, share, acregmax=0.05, acdirmax=0.05, timeout=60.0)
    count: Counter[str] = Counter()
    try:
        began = time.monotonic()
        running: list[subprocess.Popen[bytes]] = []
        while time.monotonic() - began < seconds:
            while len(running) < processes:
                words = [sys.executable, PROGRAM, m.path, str(count["started"]), "3600"]
                running.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                count["started"] += 1
            time.sleep(0.1)
            for victim in random.sample(running, max(1, processes // 40)):
                victim.send_signal(random.choice(SIGNALS))
            for one in [one for one in running if one.poll() is not None]:
                running.remove(one)
                count["ended by a signal"] += 1
        for one in running:
            one.kill()
        for one in running:
            one.wait(60)
        subprocess.run(["rm", "-rf", *m.path.iterdir()], check=True)
        # The kernel keeps names that others, or we at a last close, have removed until it wants the memory, or this.
        if os.geteuid() == 0:
            empty_dentry_cache(m.path)
        workers = m.driver.workers  # type: ignore[attr-defined]
        deadline = time.monotonic() + 40  # the kernel closes and forgets in its own time
        state = m.vfs.state
        while m.share.opens or len(state.inodes) > 1 or len(state.files) or state.locks.by_inode or workers.running:
            assert time.monotonic() < deadline, (
                f"left over: {len(m.share.opens)} opens of the server, {[*state.inodes]}, "
                f"{len(state.files)} files, {state.locks.counts()}, {[*workers.running]}"
            )
            time.sleep(0.05)
        assert not any(locks.held for locks in m.share.locks.values())
        assert not m.share.waiting
        assert not state.locks._waiting
        assert not state.aside
        assert not share.held
        ahead = [one.listing for one in m.vfs._ahead._watched.values()]  # listed for lookups to come
        assert all(directory in ahead for directory in m.vfs.state.directories)
        assert not workers._parked
        assert workers._busy == 0
        for call, times in sorted(Counter(m.share.calls).items()):
            count[f"{call} on the share"] = times
        print(f"\n{dict(count)}")
    finally:
        m.end()
    assert not mounted(m.path)
