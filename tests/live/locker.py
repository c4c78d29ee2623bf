"""A process that locks a file when it is told to, so that a test can be several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# The other side: reads one JSON list a line, writes one JSON value a line.
PROGRAM = """
import fcntl, json, os, signal, struct, sys

path = sys.argv[1]

class Interrupted(Exception):
    pass

def interrupted(number, frame):
    raise Interrupted

signal.signal(signal.SIGUSR1, interrupted)
descriptor = os.open(path, os.O_RDWR)

def do(what, *args):
    global descriptor
    if what == "lock":
        how = fcntl.LOCK_UN if args[0] & fcntl.LOCK_UN else args[0]
        fcntl.lockf(descriptor, how, args[2], args[1])
    elif what == "flock":
        fcntl.flock(descriptor, args[0])
    elif what == "asked":
        told = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack("hhqqi4x", args[0], 0, args[1], args[2], 0))
        kind, _, start, length, pid = struct.unpack("hhqqi4x", told)
        return [kind, start, length, pid] if kind != fcntl.F_UNLCK else [kind, 0, 0, 0]
    elif what == "write":
        return os.pwrite(descriptor, args[1].encode(), args[0])
    elif what == "close":
        os.close(descriptor)
    elif what == "reopen":
        os.close(descriptor)
        descriptor = os.open(path, os.O_RDWR)
    return 0

for line in sys.stdin:
    try:
        answer = do(*json.loads(line))
    except OSError as error:
        answer = error.errno
    except Interrupted:
        answer = 4
    print(json.dumps(answer), flush=True)
"""


class Locker:
    """One such process."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, what: str, *args: Any) -> None:
        """Tell it what to do."""
        assert self.process.stdin is not None
        print(json.dumps([what, *args]), file=self.process.stdin, flush=True)

    def result(self) -> Any:
        """Wait for what came of it: a value, 0 or an errno."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, what: str, *args: Any) -> Any:
        """Do something and return what came of it."""
        self.begin(what, *args)
        return self.result()

    def end(self) -> None:
        """End it, whatever it waits for."""
        self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
