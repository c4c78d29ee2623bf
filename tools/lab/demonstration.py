"""What tools/quickstart shows: a share is mounted, programs work on it, the figures are printed, all is taken down."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.mounting import LeftBehindError, Mount, MountFailedError, program
from lab.owner import clean
from lab.server import Samba

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTES = 256
SMALL_FILES = 1000


def say(text: str) -> None:
    """Announce a step."""
    print(f"\n==> {text}", flush=True)


def show(text: str) -> None:
    """Print a result below its step."""
    print("\n".join(f"    {line}" for line in text.rstrip().splitlines()), flush=True)


@contextmanager
def timed(what: str, size: int = 0) -> Iterator[None]:
    """Print how long the block took, and the rate when it moved `size` bytes."""
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    show(f"{what}: {seconds:.2f} s" + (f", {size / seconds / 1e6:.0f} MB/s" if size else ""))


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def large_file(folder: Path, scratch: Path) -> None:
    """Copy a large file there, compare checksums on the way back."""
    size = MEBIBYTES << 20
    say(f"copying a file of {MEBIBYTES} MiB to the share and reading it back")
    source = scratch / "large"
    with source.open("wb") as file:
        for _ in range(MEBIBYTES // 16):
            file.write(os.urandom(16 << 20))
    with timed("cp to the share, until close() has brought it to the server", size):
        subprocess.run(["cp", source, folder / "large"], check=True)
    # The file is opened anew: what the kernel had cached of it is dropped then.
    with timed("read back and hashed", size):
        back = digest(folder / "large")
    if back != digest(source):
        raise SystemExit("the checksums differ: this must not happen, please report it")
    show(f"sha256 {back}: the same on both sides")


def small_files(folder: Path) -> None:
    """Make, list and remove many small files."""
    say(f"{SMALL_FILES} files of 4 KiB")
    (folder / "small").mkdir()
    with timed("create, write, close each"):
        for number in range(SMALL_FILES):
            (folder / f"small/file-{number:04}").write_bytes(bytes(4096))
    with timed(f"ls -l of {SMALL_FILES} files"):
        listing = subprocess.run(["ls", "-l", folder / "small"], capture_output=True, text=True, check=True).stdout
    show("\n".join([*listing.splitlines()[1:4], "..."]))
    with timed("rm -r"):
        subprocess.run(["rm", "-r", folder / "small"], check=True)


def repository(folder: Path) -> None:
    """Clone this project onto the share, where it is a git repository and git is installed."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        say("no git here: this project's folder is copied in place of a clone")
        with timed("cp -r"):
            subprocess.run(["cp", "-r", ROOT / "smb3fs", ROOT / "tests", folder], check=True)
        return
    say("git clone of this project onto the share, git fsck, a commit")
    git = ["git", "-c", "safe.directory=*", "-c", "user.name=Quickstart", "-c", "user.email=quickstart@example.org"]
    clone = folder / "clone"
    with timed("git clone"):
        subprocess.run([*git, "clone", "--quiet", "--no-hardlinks", ROOT, clone], check=True)
    with timed("git fsck"):
        subprocess.run([*git, "fsck", "--no-progress"], cwd=clone, check=True)
    with timed("git commit"):
        (clone / "note.txt").write_text("written on an SMB share\n")
        subprocess.run([*git, "add", "note.txt"], cwd=clone, check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", "A commit on an SMB share"], cwd=clone, check=True)
    log = subprocess.run([*git, "log", "--oneline", "-3"], cwd=clone, capture_output=True, text=True, check=True)
    show(log.stdout)


def at_work(mount: Mount) -> None:
    """Do all of it in a folder of our own on the share, and remove that."""
    folder = Path(tempfile.mkdtemp(prefix="smb3fs-quickstart-", dir=mount.path))
    with tempfile.TemporaryDirectory(prefix="smb3fs-quickstart-", dir="/var/tmp") as scratch:
        try:
            large_file(folder, Path(scratch))
            small_files(folder)
            repository(folder)
        finally:
            subprocess.run(["rm", "-rf", folder], check=True)


def serve(stack: ExitStack) -> Samba:
    """Bring up the private server."""
    if os.geteuid() != 0:
        raise SystemExit(
            "quickstart: a private Samba server needs root: run `sudo tools/quickstart`, "
            "or name a share: tools/quickstart //SERVER/SHARE -o username=NAME"
        )
    say("starting a private Samba server in a network namespace of its own")
    samba = stack.enter_context(Samba())
    show(f"{samba.version()} serves {samba.source()} from {samba.directory()}")
    return samba


def demonstrate(arguments: argparse.Namespace) -> None:
    """The whole course."""
    with ExitStack() as stack:
        samba = None if arguments.share else serve(stack)
        if samba:
            options = [f"credentials={samba.credentials}", *([arguments.options] if arguments.options else [])]
            mount = Mount(samba.source(), samba.folder / "mnt", options)
        else:
            point = Path(tempfile.mkdtemp(prefix="smb3fs-quickstart-", dir="/var/tmp"))
            mount = Mount(arguments.share, point, [arguments.options] if arguments.options else [])
            stack.callback(remove_if_unused, mount)
        say("mounting")
        show(f"{program('mount.smb3fs')} {mount.source} {mount.path} -o {','.join(mount.shown_options())}")
        with timed("mounted"):
            mount.mount()
        if not arguments.keep:
            stack.callback(take_down, mount, samba)
        at_work(mount)
        say("smb3fs status")
        show(subprocess.run([program("smb3fs"), "status", mount.path], capture_output=True, text=True).stdout)
        if arguments.keep:
            say(f"left mounted at {mount.path}")
            if samba:
                samba.keep()
                show("end the mount and the server with: tools/quickstart --end")
            else:
                show(f"end the mount with: umount {mount.path} && rmdir {mount.path}")


def remove_if_unused(mount: Mount) -> None:
    """Remove the mount point of a mount that failed."""
    if mount.path.exists() and not mount.mounted:
        mount.path.rmdir()


def take_down(mount: Mount, samba: Samba | None) -> None:
    """Unmount, and show what the server still knows of us."""
    say("unmounting")
    with timed("unmounted, the daemon has ended"):
        mount.unmount()
    if samba:
        show(f"the server sees {samba.sessions()} sessions and {len(samba.open_files())} open files")


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="tools/quickstart", description="mount a share and show it at work")
    parser.add_argument("share", nargs="?", help="//SERVER/SHARE to mount instead of a private Samba server's")
    parser.add_argument("-o", dest="options", default="", help="mount options, as for mount.smb3fs")
    parser.add_argument("--keep", action="store_true", help="leave it mounted, and say how to end it")
    parser.add_argument("--end", action="store_true", help="end what --keep left, and remove what crashes left")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.end:
        for name in clean(kept=True):
            print(f"removed {name}")
        return 0
    try:
        demonstrate(arguments)
    except MountFailedError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 32
    except (LeftBehindError, subprocess.CalledProcessError) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quickstart: interrupted; everything has been taken down", file=sys.stderr)
        return 130
    say("done" if arguments.keep else "done; nothing is left of it but .venv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
