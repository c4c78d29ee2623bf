"""A private smbd: its own namespace, directories, user and configuration; nothing of the machine's Samba is touched.

The server's user `lab` needs an account of the machine behind it. No machine is made to have one: a user-name map sends
`lab` to `daemon`, which every Debian has (`nobody` would not do: Samba takes that one for its guest).

With SMB3FS_SAMBA_ROOT=DIR the programs come from a Debian root in DIR (any Samba version) through chroot. What has to
be mounted for that is mounted in a mount namespace of each command's own, and is gone with it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lab.commands import CommandError, run
from lab.network import end_processes, processes, signal_processes
from lab.owner import claim, clean, keep

USER: Final = "lab"
PASSWORD: Final = "lab-Passw0rd"
UNIX_ACCOUNT: Final = "daemon"
# How long a process that has ended may wait to be asked after.
REAPED_SECONDS: Final = 5.0
START_SECONDS: Final = 20.0
STATUS_SECONDS: Final = 20.0

GLOBAL = """
[global]
 netbios name = LAB
 workgroup = LAB
 server role = standalone server
 server min protocol = SMB2_02
 interfaces = {address}/30
 bind interfaces only = yes
 smb ports = 445
 disable netbios = yes
 dns proxy = no
 username map = {state}/users.map
 passdb backend = tdbsam:{state}/passdb.tdb
 private dir = {databases}/private
 lock directory = {databases}/lock
 state directory = {databases}/state
 cache directory = {databases}/cache
 pid directory = {state}/pid
 ncalrpc dir = {state}/ncalrpc
 winbindd socket directory = {state}/winbindd
 log file = {state}/log.smbd
 max log size = 0
 log level = 1
 load printers = no
 printing = bsd
 printcap name = /dev/null
 disable spoolss = yes
"""

SHARE = """
[{name}]
 path = {path}
 read only = no
"""

# Without these Samba grants no handle that outlives its connection: it would have to tell the machine's own programs.
APART = ("kernel oplocks = no", "kernel share modes = no", "posix locking = no")
# What each share has beside its directory; what a handle is worth after a loss differs in the last three.
SHARES: Final[Mapping[str, Sequence[str]]] = {
    "share": (),
    "readonly": ("read only = yes",),
    "encrypted": ("smb encrypt = required",),
    "dfs": ("msdfs root = yes",),
    "neither": ("durable handles = no",),
    "durable": APART,
}
# With a server that has persistent handles. It grants no leases but for reading on such a share, unless told otherwise.
PERSISTENT: Final = "persistent"
PERSISTENT_LINES: Final = (*APART, "continuous availability = yes", "smb3 ca:max lease mask = RWH")
PERSISTENT_SINCE: Final = (4, 25)

# What the programs of another root need around them; $1 is the root, $2 the lab's folder, then the command.
# The machine's own mounts are let go, but for what shares and databases lie on: a copy of them in here would keep
# alive what is unmounted out there.
ENTER_ROOT = """
root=$1 folder=$2; shift 2
mount --bind "$root" "$root"
for place in var/tmp run tmp; do mount -t tmpfs tmpfs "$root/$place"; done
mkdir -p "$root$folder" "$root/tmp/machine"; mount --bind "$folder" "$root$folder"
for place in shares databases; do mount --rbind "$folder/$place" "$root$folder/$place"; done
mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"
cd "$root"; pivot_root . tmp/machine
exec chroot . sh -ec 'umount -l /tmp/machine; exec "$@"' sh "$@"
"""


class Samba:
    """One private Samba server; a context manager that leaves nothing behind."""

    user = USER
    password = PASSWORD

    def __init__(
        self, *, settings: str = "", root: str | None = None, speeds: Sequence[int] = (), in_memory: bool = False
    ) -> None:
        """`settings`: further lines for the global section; `root`: where smbd is, instead of SMB3FS_SAMBA_ROOT.

        `speeds`: one for each link to the server, which it says that the link has, in bits a second; without any
        there is one link, and the server says of it what it finds. `in_memory`: its databases lie on a tmpfs, where
        to sync them takes no time; they are still there when all of its processes were killed.
        """
        self._settings = settings
        self._root = root if root is not None else os.environ.get("SMB3FS_SAMBA_ROOT", "")
        clean()
        self.folder, self.network = claim()
        self.network.add_links(max(0, len(speeds) - 1))
        self._speeds = speeds
        self._in_memory = in_memory
        self.state = self.folder / "samba"
        self.databases = self.folder / "databases"
        self.credentials = self.folder / "credentials"
        self._smbd: subprocess.Popen[bytes] | None = None
        self._kept = False
        self.shares = dict(SHARES)
        if self.has_persistent_handles():
            self.shares[PERSISTENT] = PERSISTENT_LINES

    @property
    def address(self) -> str:
        """Where the server listens, on port 445."""
        return self.network.server_address

    def source(self, share: str = "share") -> str:
        """A share as mount wants it: //ADDRESS/share."""
        return f"//{self.address}/{share}"

    def directory(self, share: str = "share") -> Path:
        """A share's directory, as the server's own machine sees it."""
        return self.folder / "shares" / share

    def __enter__(self) -> Self:
        try:
            self._make_folder()
            self.network.up()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._kept:
            return
        self.stop()
        self.network.down()
        if self._in_memory and os.path.ismount(self.databases):
            run("umount", "--lazy", str(self.databases), check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self) -> None:
        """Let the server outlive this process; `lab.owner.clean(kept=True)` ends it."""
        keep(self.folder)
        self._kept = True

    def _make_folder(self) -> None:
        """Lay out the lab's folder."""
        self.databases.mkdir()
        if self._in_memory:
            run("mount", "-t", "tmpfs", "-o", "mode=755", "smb3fs-lab", str(self.databases))
        for part in ("private", "lock", "state", "cache"):
            (self.databases / part).mkdir()
        for part in ("pid", "ncalrpc", "winbindd"):
            (self.state / part).mkdir(parents=True)
        for share in self.shares:
            self.directory(share).mkdir(parents=True)
            shutil.chown(self.directory(share), UNIX_ACCOUNT)
        (self.state / "users.map").write_text(f"!{UNIX_ACCOUNT} = {USER}\n")
        self.credentials.touch(mode=0o600)
        self.credentials.write_text(f"username={USER}\npassword={PASSWORD}\n")

    def _configure(self) -> None:
        """Write smb.conf."""
        text = GLOBAL.format(address=self.address, state=self.state, databases=self.databases)
        text += self._interfaces()
        text += " persistent handles = yes\n" if PERSISTENT in self.shares else ""
        text += "".join(f" {line.strip()}\n" for line in self._settings.splitlines())
        for name, lines in self.shares.items():
            text += SHARE.format(name=name, path=self.directory(name)) + "".join(f" {line}\n" for line in lines)
        (self.state / "smb.conf").write_text(text)

    def _interfaces(self) -> str:
        """The line by which the server listens on several links, and announces them."""
        addresses = [self.address, *(link.server_address for link in self.network.links)][: len(self._speeds)]
        told = [f'"{at};speed={speed},capability=RSS"' for at, speed in zip(addresses, self._speeds, strict=True)]
        return f" interfaces = {' '.join(told)}\n" if told else ""

    def _command(self, program: str, *arguments: str) -> list[str]:
        """The argv that runs one of Samba's programs on this server's configuration."""
        command = [program, *arguments, "-s", str(self.state / "smb.conf")]
        if program == "smbpasswd":
            command = [program, "-c", str(self.state / "smb.conf"), *arguments]
        if self._root:
            enter = ["sh", "-ec", ENTER_ROOT, "enter", os.path.realpath(self._root), str(self.folder)]
            command = ["unshare", "--mount", "--propagation", "private", *enter, *command]
        return [*self.network.prefix(), *command]

    def start(self) -> None:
        """Start smbd, and return when it accepts connections."""
        self._configure()
        if not (self.state / "passdb.tdb").exists():
            self.set_password(PASSWORD)
        with (self.state / "output").open("ab") as output:
            self._smbd = subprocess.Popen(
                self._command("smbd", "--foreground", "--no-process-group"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        limit = time.monotonic() + START_SECONDS
        while not self._accepts():
            if self._smbd.poll() is not None or time.monotonic() > limit:
                raise CommandError(f"smbd did not start:\n{self.log()[-3000:]}")
            time.sleep(0.02)

    def grant(self, privilege: str) -> None:
        """Give the user a privilege of Windows' kind, from the next login on."""
        run(*self._command("net", "sam", "rights", "grant", f"LAB\\{UNIX_ACCOUNT}", privilege))

    def set_password(self, password: str) -> None:
        """Give the user this password, from the next login on."""
        run(*self._command("smbpasswd", "-s", "-a", UNIX_ACCOUNT), stdin=f"{password}\n{password}\n")

    def _accepts(self) -> bool:
        """Whether a connection is taken."""
        with suppress(OSError), socket.create_connection((self.address, 445), timeout=1):
            return True
        return False

    def stop(self) -> None:
        """End the server in an orderly way: it closes its connections."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End every process of the server with SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        ended = processes(self.network.namespace)
        signal_processes(self.network.namespace, signal.SIGCONT)
        signal_processes(self.network.namespace, number)
        end_processes(self.network.namespace)
        if self._smbd is not None:
            self._smbd.wait(timeout=10)
            self._smbd = None
        # One that nobody has waited for yet counts as alive, and what it had open as in use: Samba 4.25 gives none of
        # it back. Not every init asks after its orphans at once.
        limit = time.monotonic() + REAPED_SECONDS
        while any(Path(f"/proc/{pid}").exists() for pid in ended) and time.monotonic() < limit:
            time.sleep(0.02)

    def restart(self) -> None:
        """Stop and start again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop every process of the server in its tracks: its kernel still acknowledges, nobody answers."""
        signal_processes(self.network.namespace, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        signal_processes(self.network.namespace, signal.SIGCONT)

    @contextmanager
    def settings(self, text: str) -> Iterator[None]:
        """Within the block, the server runs with these lines in its global section as well (two restarts)."""
        before = self._settings
        self._settings = f"{before}\n{text}"
        self.restart()
        try:
            yield
        finally:
            self._settings = before
            self.restart()

    @property
    def running(self) -> bool:
        """Whether any process of the server is there."""
        return bool(processes(self.network.namespace))

    def beside(self, *command: str) -> str:
        """Run a command where the server's processes see the filesystem; its output."""
        process = processes(self.network.namespace)[0]
        return run("nsenter", f"--target={process}", "--mount", *command).stdout

    def put(self, relative: str, data: bytes, share: str = "share") -> Path:
        """Write a file on the server behind the clients' backs, owned as if a client had."""
        path = self.directory(share) / relative
        path.write_bytes(data)
        shutil.chown(path, UNIX_ACCOUNT)
        return path

    def link(self, name: str, *targets: str) -> None:
        r"""Make a DFS link in the share `dfs`; a target is `host\share`, and several are tried in their order."""
        place = self.directory("dfs") / name
        place.unlink(missing_ok=True)
        place.symlink_to("msdfs:" + ",".join(targets))

    def status(self) -> dict[str, Any]:
        """smbstatus: `sessions`, `tcons` and `open_files`, each a mapping.

        It cannot read a table whose last writer was killed in the middle until a server process has mended it, and
        panics on an open whose lease's record is gone (4.25). Neither lasts, so it is asked again for a while.
        """
        deadline = time.monotonic() + STATUS_SECONDS
        while True:
            try:
                found: dict[str, Any] = json.loads(run(*self._command("smbstatus", "--json")).stdout)
            except CommandError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return found

    def open_files(self, *, directories: bool = False) -> list[str]:
        """What clients hold open, one path for each open; directories, which they keep under leases, if asked for."""
        files: dict[str, Any] = self.status().get("open_files", {})
        return [
            str(entry["filename"])
            for entry in files.values()
            for _ in entry["opens"]
            if directories or not Path(entry["service_path"], entry["filename"]).is_dir()
        ]

    def open_inodes(self) -> dict[int, str]:
        """The inodes of files that clients hold open, each with a name that the file had."""
        files: dict[str, Any] = self.status().get("open_files", {})
        return {
            int(entry["fileid"]["inode"]): str(entry["filename"])
            for entry in files.values()
            if not Path(entry["service_path"], entry["filename"]).is_dir()
        }

    def sessions(self) -> int:
        """How many sessions clients have."""
        return len(self.status().get("sessions", {}))

    def version(self) -> str:
        """Which Samba this is."""
        program = ["chroot", self._root] if self._root else []
        return run(*program, "smbd", "--version").stdout.strip()

    def has_persistent_handles(self) -> bool:
        """Whether the server has the share `persistent`, and what it takes."""
        told = re.search(r"(\d+)\.(\d+)", self.version())
        return told is not None and (int(told[1]), int(told[2])) >= PERSISTENT_SINCE

    def session_processes(self) -> list[int]:
        """Ids of the processes that serve clients, one for each client: those with a connection.

        Not asked of smbstatus, which cannot read what a process was writing when it was killed.
        """
        told = self.network.inside("ss", "-tnpH", "state", "established", "sport", "=", ":445")
        return sorted({int(pid) for pid in re.findall(r'"smbd[^"]*",pid=(\d+)', told)})

    def client(self, command: str, share: str = "share") -> str:
        """Let smbclient do something as another client; its output."""
        account = ("-A", str(self.credentials))
        return run("smbclient", *account, "-s", "/dev/null", self.source(share), "-c", command).stdout

    def panics(self) -> int:
        """How many of the server's processes have crashed by themselves."""
        return self.log().count("PANIC (pid ")

    def log(self) -> str:
        """What smbd wrote."""
        files = (self.state / "output", self.state / "log.smbd")
        return "".join(path.read_text(errors="replace") for path in files if path.exists())
