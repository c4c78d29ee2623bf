"""A worker as a process: told on its standard input when to stop, telling on its standard output what it does.

process.py MOUNT BEHIND SERVER_LOG NUMBER LOG SEED [gathered]
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faultlib.trying import Behind, LeftAsideError, NotHealedError, Trying
from faultlib.workload import Worker


def tell(*words: object) -> None:
    """One event."""
    print(json.dumps(words), flush=True)


def main() -> None:
    """Work until told to stop, compare, hand over."""
    mount, behind, server_log, number, log, seed, *gathered = sys.argv[1:]
    trying = Trying(int(number), tell, Behind(Path(mount), Path(behind), Path(server_log)))
    worker = Worker(Path(mount), log, seed, trying, gathered=bool(gathered))
    stop = threading.Event()

    def listen() -> None:
        """Wait for the word, or for the end of who would say it."""
        sys.stdin.read(1)
        trying.stopping_since = time.monotonic()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        worker.begin()
        while not stop.is_set():
            worker.step()
        worker.finish(Path(behind))
    except (LeftAsideError, NotHealedError, OSError) as error:
        trying.violation(f"gave up: {error}")
    tell("end", trying.found.as_json())


if __name__ == "__main__":
    main()
