"""The clients that are mounted: how each is started with its own defaults, and stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from lab.mounting import LeftBehindError, Mount
from lab.server import Samba

from benchlib import kernel
from benchlib.delay import Delay

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 15.0


class ClientError(Exception):
    """A client that does not start or does not go."""


class Client(ABC):
    """One program that reaches the share."""

    name: ClassVar[str]

    def __init__(self, server: Samba, folder: Path) -> None:
        """`folder` is the client's own, for its configuration, caches and log."""
        self.server = server
        self.folder = folder
        folder.mkdir(parents=True)

    @property
    @abstractmethod
    def settings(self) -> str:
        """How it is run, for the report."""


class MountedClient(Client):
    """A client that makes a mount."""

    # What it goes through, if not to the server itself.
    way: ClassVar[Delay | None] = None

    @abstractmethod
    def start(self) -> None:
        """Make a fresh mount by a fresh process."""

    @abstractmethod
    def stop(self) -> None:
        """Unmount, and see the process end."""

    @abstractmethod
    def kill(self) -> None:
        """End the process at once, so that whatever hangs on the mount comes loose."""

    @abstractmethod
    def pids(self) -> list[int]:
        """The processes that do its work."""

    @property
    def mountpoint(self) -> Path:
        """Where it is mounted."""
        return self.folder / "mnt"

    @property
    def root(self) -> Path:
        """Where the share's root shows."""
        return self.mountpoint

    def round_trips(self) -> int | None:
        """Exchanges with the server so far, of a client that counts them."""
        return None


class Smb3fs(MountedClient):
    """This project's client."""

    name = "smb3fs"
    options = ""

    def __init__(self, server: Samba, folder: Path) -> None:
        super().__init__(server, folder)
        options = [f"credentials={server.credentials}", *filter(None, self.options.split(","))]
        if self.way is not None:
            options += [f"ip={self.way.address}", f"port={self.way.port}"]
        self._mount = Mount(server.source(), self.mountpoint, options)

    @property
    def settings(self) -> str:
        """The command without the names."""
        return ",".join(filter(None, ("mount.smb3fs -o credentials=FILE", self.options)))

    def start(self) -> None:
        """Run mount.smb3fs, which returns when the mount answers."""
        self._mount.mount()

    def stop(self) -> None:
        """Run umount, and see the daemon end."""
        try:
            self._mount.unmount()
        except LeftBehindError as error:
            raise ClientError(str(error)) from error

    def kill(self) -> None:
        """End the daemon."""
        self._mount.kill()

    def pids(self) -> list[int]:
        """The daemon."""
        return self._mount.daemons()

    def status(self) -> dict[str, Any]:
        """What `smb3fs status` says."""
        return self._mount.status()

    def round_trips(self) -> int:
        """As `smb3fs status` counts them."""
        return int(self.status()["round_trips"])


class ForegroundClient(MountedClient):
    """A client whose process stays with us."""

    def __init__(self, server: Samba, folder: Path) -> None:
        super().__init__(server, folder)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """What to run; it must stay in the foreground."""

    def environment(self) -> dict[str, str]:
        """What it needs beside the environment of the bench."""
        return {}

    def start(self) -> None:
        """Start the program and wait for the mount."""
        self.mountpoint.mkdir(exist_ok=True)
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment()},
                start_new_session=True,  # Ctrl-C is for the bench, which unmounts in order
            )
        limit = time.monotonic() + START_SECONDS
        while kernel.mount_at(self.mountpoint) is None:
            if self._process.poll() is not None or time.monotonic() > limit:
                raise ClientError(f"{self.name} did not mount: {self.log()}")
            time.sleep(0.01)

    def log(self) -> str:
        """The end of what it said."""
        return (self.folder / "log").read_text(errors="replace").strip()[-500:]

    def stop(self) -> None:
        """Run umount until nothing is busy any more, and see the process end."""
        limit = time.monotonic() + STOP_SECONDS
        while kernel.mount_at(self.mountpoint) is not None:
            done = subprocess.run(["umount", str(self.mountpoint)], capture_output=True, text=True)
            if done.returncode and time.monotonic() > limit:
                subprocess.run(["umount", "--lazy", str(self.mountpoint)])
                self.kill()
                raise ClientError(f"{self.name} cannot be unmounted: {done.stderr.strip()}")
            if done.returncode:
                time.sleep(0.1)
        if self._process is not None:
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End the process and its children."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_SECONDS)

    def pids(self) -> list[int]:
        """The process and its children."""
        return kernel.family(self._process.pid) if self._process is not None else []


class RcloneOff(ForegroundClient):
    """`rclone mount` as it comes: no file cache."""

    name = "rclone-off"
    mode = "off"
    more: tuple[str, ...] = ()

    @property
    def settings(self) -> str:
        """The command without the names and the files of its own."""
        return " ".join(("rclone mount", "--vfs-cache-mode", self.mode, *self.more))

    def _place(self) -> str:
        """Where the server is, in the words of its configuration."""
        way = self.way
        return f"host = {self.server.address}\n" if way is None else f"host = {way.address}\nport = {way.port}\n"

    def command(self) -> list[str]:
        """rclone with a configuration of its own and an empty cache."""
        configuration = self.folder / "rclone.conf"
        if not configuration.exists():
            secret = subprocess.run(
                ["rclone", "obscure", "-"], input=self.server.password, capture_output=True, text=True, check=True
            )
            configuration.touch(mode=0o600)
            configuration.write_text(
                f"[bench]\ntype = smb\n{self._place()}user = {self.server.user}\npass = {secret.stdout.strip()}\n"
            )
        cache = self.folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        files = ["--config", str(configuration), "--cache-dir", str(cache)]
        return ["rclone", "mount", "bench:share", str(self.mountpoint), *files, *self.settings.split()[2:]]


class RcloneWrites(RcloneOff):
    """`rclone mount` with a cache on disk for files that are written, uploaded without delay."""

    name = "rclone-writes"
    mode = "writes"
    # Its default waits 5 s after a close before it begins to upload.
    more = ("--vfs-write-back", "0s")


class Smbnetfs(ForegroundClient):
    """libsmbclient behind FUSE."""

    name = "smbnetfs"

    @property
    def settings(self) -> str:
        """The command without the names."""
        return "smbnetfs -f -o big_writes (without it the kernel hands it 4 KiB a write)"

    def environment(self) -> dict[str, str]:
        """A home of its own."""
        return {"HOME": str(self.folder)}

    def command(self) -> list[str]:
        """smbnetfs, which finds its configuration below HOME."""
        home = self.folder / ".smb"
        if not home.exists():
            home.mkdir(mode=0o700)
            (home / "smb.conf").write_text("[global]\n")
            for name, text in (
                ("smbnetfs.auth", f'auth "{self.server.user}" "{self.server.password}"\n'),
                ("smbnetfs.conf", 'smb_query_browsers "false"\nuse_libsecret "false"\ninclude "smbnetfs.auth"\n'),
            ):
                (home / name).touch(mode=0o600)
                (home / name).write_text(text)
        return ["smbnetfs", "-f", str(self.mountpoint), "-o", "big_writes"]

    @property
    def root(self) -> Path:
        """The server and the share are folders of the mount."""
        return self.mountpoint / self.server.address / "share"


MOUNTED: Final[tuple[type[MountedClient], ...]] = (Smb3fs, RcloneOff, RcloneWrites, Smbnetfs)
