"""A private Active Directory domain controller: KDC, directory, DNS, a share and a DFS root, for Kerberos and DFS.

It is one Samba in a network namespace of its own, like `lab.server`'s. A domain controller has its paths compiled in,
so it also gets a mount namespace of its own, where /etc/samba, /var/lib/samba and the like are folders of the lab: the
machine's own are neither seen nor touched. The machine resolves no name of this domain: mounts name the controller in
the source and its address in `ip=`, and programs that ask for tickets find the KDC through `environment`.

With SMB3FS_SAMBA_ROOT=DIR the programs come from a Debian root in DIR, as for `lab.server`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab.commands import CommandError, run
from lab.network import end_processes, processes, signal_processes
from lab.owner import claim, clean
from lab.server import ENTER_ROOT

REALM: Final = "LAB.TEST"
WORKGROUP: Final = "LAB"
HOST: Final = "dc1"
NAME: Final = "dc1.lab.test"
USER: Final = "lab"
PASSWORD: Final = "lab-Passw0rd"
ADMINISTRATOR: Final = "administrator"
START_SECONDS: Final = 60.0

# Each of the controller's own places, and the folder of the lab that stands in for it.
PLACES: Final = {
    "/etc/samba": "etc",
    "/var/lib/samba": "lib",
    "/var/cache/samba": "cache",
    "/var/log/samba": "log",
}
# Run in a mount and a UTS namespace of its own; $1 is the lab's folder, then the command.
# FUSE mounts of the machine are let go: a copy in here would keep their daemons alive after the unmount out there.
INSIDE = """
folder=$1; shift
umount --all --lazy --types fuse.smb3fs || true
hostname HOST
mount -t tmpfs tmpfs /run
mkdir -p /run/samba
for pair in PLACES; do
  mkdir -p "${pair%%=*}"; mount --bind "$folder/dc/${pair#*=}" "${pair%%=*}"
done
mount --bind "$folder/dc/hosts" /etc/hosts
[ ! -L /etc/resolv.conf ] || cp --remove-destination "$folder/dc/resolv.conf" /run/resolv.conf
mount --bind "$folder/dc/resolv.conf" "$(readlink -f /etc/resolv.conf || echo /etc/resolv.conf)"
exec "$@"
"""

SMB_CONF = """
[global]
 netbios name = {host}
 realm = {realm}
 workgroup = {workgroup}
 server role = active directory domain controller
 server services = s3fs, rpc, ldap, cldap, kdc, winbindd, dns
 dns forwarder = {address}
 vfs objects = dfs_samba4 acl_xattr xattr_tdb
 server min protocol = SMB2_02
 load printers = no
 disable spoolss = yes
 log level = 1
{settings}
[sysvol]
 path = /var/lib/samba/sysvol
 read only = no
[netlogon]
 path = /var/lib/samba/sysvol/lab.test/scripts
 read only = no
[share]
 path = {folder}/shares/share
 read only = no
[second]
 path = {folder}/shares/second
 read only = no
[dfs]
 path = {folder}/shares/dfs
 msdfs root = yes
 read only = no
"""
SHARES: Final = ("share", "second", "dfs")

KRB5_CONF = """
[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
[realms]
 {realm} = {{
  kdc = {address}
 }}
[domain_realm]
 .lab.test = {realm}
 lab.test = {realm}
"""


def missing() -> list[str]:
    """What this machine lacks to run a domain controller and to get tickets from it."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    root = os.environ.get("SMB3FS_SAMBA_ROOT", "")
    here = ["kinit", "kdestroy", "smbclient"] + ([] if root else ["samba", "samba-tool", "winbindd"])
    lacks = [name for name in here if not shutil.which(name, path=path)]
    lacks += [name for name in ("samba", "winbindd") if root and not (Path(root) / "usr/sbin" / name).exists()]
    if not root and not Path("/usr/share/samba/setup").is_dir():
        lacks.append("samba-ad-provision")
    return lacks


class Domain:
    """One private domain with one controller; a context manager that leaves nothing behind."""

    realm = REALM
    workgroup = WORKGROUP
    name = NAME
    user = USER
    password = PASSWORD

    def __init__(self, *, settings: str = "", root: str | None = None, links: int = 1) -> None:
        """`settings`: further lines for the global section; `root`: where samba is, instead of SMB3FS_SAMBA_ROOT.

        `links`: how many there are to the controller.
        """
        self._settings = settings
        self._root = root if root is not None else os.environ.get("SMB3FS_SAMBA_ROOT", "")
        clean()
        self.folder, self.network = claim()
        self.network.add_links(links - 1)
        self.state = self.folder / "dc"
        self.credentials = self.folder / "credentials"
        self.krb5_config = self.folder / "krb5.conf"
        self.ccache = self.folder / "ccache"
        self._samba: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where the controller listens."""
        return self.network.server_address

    def source(self, share: str = "share") -> str:
        """A share as mount wants it for Kerberos, by the controller's name; `ip=` has to name the address."""
        return f"//{self.name}/{share}"

    def directory(self, share: str = "share") -> Path:
        """A share's directory, as the machine sees it."""
        return self.folder / "shares" / share

    @property
    def environment(self) -> dict[str, str]:
        """What a program's environment needs to have so that it finds the KDC, and `ccache` for its tickets."""
        return {"KRB5_CONFIG": str(self.krb5_config), "KRB5CCNAME": f"FILE:{self.ccache}"}

    def __enter__(self) -> Self:
        try:
            self._make_folder()
            self.network.up()
            self._provision()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.network.down()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_folder(self) -> None:
        """Lay out the lab's folder."""
        for part in (*PLACES.values(), "lib/private"):
            (self.state / part).mkdir(parents=True)
        for share in SHARES:
            self.directory(share).mkdir(parents=True)
            self.directory(share).chmod(0o777)
        (self.state / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {NAME} {HOST}\n")
        (self.state / "resolv.conf").write_text(f"nameserver {self.address}\n")
        self.krb5_config.write_text(KRB5_CONF.format(realm=REALM, address=self.address))
        self.credentials.touch(mode=0o600)
        self.write_credentials(PASSWORD)

    def write_credentials(self, password: str, *more: str) -> None:
        """Put this password, and further lines, into the credentials file."""
        lines = [f"username={USER}", f"password={password}", f"domain={WORKGROUP}", *more]
        self.credentials.write_text("\n".join(lines) + "\n")

    def _provision(self) -> None:
        """Make the domain, and the user."""
        self._inside(
            *("samba-tool", "domain", "provision", f"--realm={REALM}", f"--domain={WORKGROUP}", "--server-role=dc"),
            *("--dns-backend=SAMBA_INTERNAL", f"--adminpass={PASSWORD}", f"--host-name={HOST}"),
            *(f"--host-ip={self.address}", "--option=vfs objects=dfs_samba4 acl_xattr xattr_tdb"),
        )
        self._configure()
        # Passwords are set again and again by tests, and are never too young or too much like the last one.
        policy = ("--complexity=off", "--history-length=0", "--min-pwd-age=0", "--min-pwd-length=3")
        self._inside("samba-tool", "domain", "passwordsettings", "set", *policy)
        self._inside("samba-tool", "user", "create", USER, PASSWORD)

    def _configure(self) -> None:
        """Write smb.conf."""
        (self.state / "etc" / "smb.conf").write_text(
            SMB_CONF.format(
                host=HOST.upper(),
                realm=REALM,
                workgroup=WORKGROUP,
                address=self.address,
                folder=self.folder,
                settings="".join(f" {line.strip()}\n" for line in self._settings.splitlines()),
            )
        )

    def _command(self, *command: str) -> list[str]:
        """The argv that runs a program where the controller's places are the lab's."""
        places = " ".join(f"{place}={part}" for place, part in PLACES.items())
        script = INSIDE.replace("PLACES", places).replace("HOST", HOST)
        inside = ["sh", "-ec", script, "inside", str(self.folder), *command]
        if self._root:
            inside = ["sh", "-ec", ENTER_ROOT, "enter", os.path.realpath(self._root), str(self.folder), *inside]
        return [*self.network.prefix(), "unshare", "--mount", "--uts", "--propagation", "private", *inside]

    def _inside(self, *command: str) -> str:
        """Run a program there before the controller runs; its output."""
        return run(*self._command(*command), timeout=120).stdout

    def tool(self, *arguments: str) -> str:
        """Run samba-tool beside the running controller; its output."""
        process = self._samba
        if process is None:
            return self._inside("samba-tool", *arguments)
        # `unshare` and `sh` have become samba by then, so its namespaces are the controller's.
        enter = ("nsenter", f"--target={process.pid}", "--mount", "--uts", "--net", f"--root=/proc/{process.pid}/root")
        return run(*enter, "samba-tool", *arguments, timeout=60).stdout

    def start(self) -> None:
        """Start the controller, and return when a user can log in."""
        self._configure()
        with (self.state / "output").open("ab") as output:
            self._samba = subprocess.Popen(
                self._command("samba", "--foreground", "--no-process-group"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        limit = time.monotonic() + START_SECONDS
        while not self._lets_in():
            if self._samba.poll() is not None or time.monotonic() > limit:
                raise CommandError(f"the domain controller did not start:\n{self.log()[-3000:]}")
            time.sleep(0.1)

    def _lets_in(self) -> bool:
        """Whether the administrator, whose password no test changes, can log in; the KDC is up earlier than smbd."""
        account = f"{WORKGROUP}\\{ADMINISTRATOR}%{PASSWORD}"
        done = run(
            *("smbclient", "-s", "/dev/null", f"//{self.address}/share", "-c", "quit"),
            *("-U", account, "--use-kerberos=off"),
            check=False,
        )
        return done.returncode == 0

    def stop(self) -> None:
        """End the controller in an orderly way."""
        signal_processes(self.network.namespace, signal.SIGCONT)
        end_processes(self.network.namespace)
        if self._samba is not None:
            self._samba.wait(timeout=10)
            self._samba = None

    @contextmanager
    def settings(self, text: str) -> Iterator[None]:
        """Within the block, the controller runs with these lines in its global section as well (two restarts)."""
        before = self._settings
        self._settings = f"{before}\n{text}"
        try:
            self.stop()
            self.start()
            yield
        finally:
            self._settings = before
            self.stop()
            self.start()

    @property
    def running(self) -> bool:
        """Whether any process of the controller is there."""
        return bool(processes(self.network.namespace))

    def set_password(self, password: str, user: str = USER) -> None:
        """Give a user this password, from the next login on."""
        self.tool("user", "setpassword", user, f"--newpassword={password}")

    def ticket(self, *, ccache: Path | None = None, lifetime: str = "10h", password: str = PASSWORD) -> Path:
        """Get the user's ticket-granting ticket with kinit into a file, and return that."""
        place = ccache or self.ccache
        environment = ("env", f"KRB5_CONFIG={self.krb5_config}")
        run(*environment, "kinit", "-c", f"FILE:{place}", "-l", lifetime, USER, stdin=f"{password}\n")
        return place

    def keytab(self, name: str = "keytab", user: str = USER) -> Path:
        """Write the user's keys into a keytab in the lab's folder, and return that."""
        place = self.folder / name
        self.tool("domain", "exportkeytab", str(place), f"--principal={user}")
        return place

    def link(self, name: str, *targets: str) -> None:
        r"""Make a DFS link in the share `dfs`; a target is `host\share`, and several are tried in their order."""
        place = self.directory("dfs") / name
        place.unlink(missing_ok=True)
        place.symlink_to("msdfs:" + ",".join(targets))

    def log(self) -> str:
        """What the controller wrote."""
        files = [self.state / "output", *sorted((self.state / "log").glob("log.*"))]
        return "".join(path.read_text(errors="replace") for path in files if path.is_file())
