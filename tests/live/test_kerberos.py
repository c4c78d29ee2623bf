"""Kerberos against a domain controller: tickets of every origin, what is said where there are none, and expiry."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from lab.commands import run
from lab.domain import Domain, missing
from lab.mounting import Mount, MountFailedError, program

from smb3fs.channels.kerberos import missing_package

from .conftest import unmount_all, until

LACKS = [*missing(), *filter(None, [missing_package()])]
pytestmark = pytest.mark.skipif(bool(LACKS), reason=f"no domain controller or no Kerberos here: {', '.join(LACKS)}")

SERVICE = "cifs/dc1.lab.test"

Mounted = Callable[..., Mount]


@pytest.fixture(scope="module")
def domain() -> Iterator[Domain]:
    with Domain(links=2) as made:
        yield made


@pytest.fixture
def ccache(domain: Domain) -> Iterator[Path]:
    """A cache that is this test's alone, and empty."""
    place = domain.folder / f"ccache-{os.urandom(4).hex()}"
    yield place
    place.unlink(missing_ok=True)


@pytest.fixture
def mounted(domain: Domain, ccache: Path, every_mount: list[Mount]) -> Iterator[Mounted]:
    """`mounted("sec=krb5")` mounts by name with the test's own cache."""
    mounts: list[Mount] = []

    def mount(*options: str, source: str = "", environment: Mapping[str, str] | None = None) -> Mount:
        settings = {**domain.environment, "KRB5CCNAME": f"FILE:{ccache}", **(environment or {})}
        command = ["env", *(f"{name}={value}" for name, value in settings.items()), program("mount.smb3fs")]
        words = [f"ip={domain.address}", "timeout=8", *options]
        made = Mount(source or domain.source(), domain.folder / f"mnt-{os.urandom(4).hex()}", words, command)
        mounts.append(made)
        every_mount.append(made)
        made.mount()
        return made

    yield mount
    unmount_all(mounts)


def works(mount: Mount, domain: Domain) -> None:
    """Write and read a file, and see it on the server."""
    name = f"file-{os.urandom(4).hex()}"
    (mount.path / name).write_bytes(b"by ticket")
    assert (domain.directory() / name).read_bytes() == b"by ticket"
    assert (mount.path / name).read_bytes() == b"by ticket"


def services(ccache: Path) -> list[str]:
    """The services for which the cache has tickets."""
    listed = run("klist", "-c", f"FILE:{ccache}", check=False).stdout
    return [word.partition("@")[0] for word in listed.split() if "/" in word and "@" in word]


def short_ticket(domain: Domain, ccache: Path, seconds: int) -> None:
    """Put a ticket for the server into a cache that expires soon.

    Not by a ticket-granting ticket that does so: the KDC takes one of less than two minutes for one to change a
    password with.
    """
    import krb5

    brief = domain.folder / f"brief-{os.urandom(4).hex()}"
    configuration = f"KRB5_CONFIG={domain.krb5_config}"
    words = ("kinit", "-c", f"FILE:{brief}", "-l", f"{seconds}s", "-S", SERVICE, domain.user)
    run("env", configuration, *words, stdin=f"{domain.password}\n")
    context = krb5.init_context()
    target = krb5.cc_resolve(context, f"FILE:{ccache}".encode())
    for ticket in krb5.cc_resolve(context, f"FILE:{brief}".encode()):
        krb5.cc_store_cred(context, target, ticket)
    brief.unlink()


@pytest.mark.parametrize(
    ("options", "signing", "encryption"),
    [
        ([], "AES_GMAC", None),
        (["vers=2.1"], "HMAC_SHA256", None),
        # The one cipher whose keys are made from all of a Kerberos session key, which is longer than NTLM's.
        (["seal", "cipher=aes-256-gcm"], None, "AES_256_GCM"),
    ],
    ids=str,
)
def test_a_login_by_ticket(
    domain: Domain,
    ccache: Path,
    mounted: Mounted,
    options: Sequence[str],
    signing: str | None,
    encryption: str | None,
) -> None:
    domain.ticket(ccache=ccache)
    mount = mounted("sec=krb5", *options)
    works(mount, domain)
    status = mount.status()
    assert (status["signing"], status["encryption"]) == (signing, encryption)
    assert SERVICE in services(ccache)


def test_ntlm_by_name_leaves_tickets_alone(domain: Domain, ccache: Path, mounted: Mounted) -> None:
    domain.ticket(ccache=ccache)
    works(mounted("sec=ntlmssp", f"credentials={domain.credentials}"), domain)
    assert SERVICE not in services(ccache)


def refused(mounted: Mounted, *options: str, **more: object) -> str:
    """Fail to mount, and return the sentence."""
    with pytest.raises(MountFailedError) as caught:
        mounted(*options, **more)
    assert caught.value.status == 32
    (line,) = caught.value.output.strip().splitlines()
    return line


def test_what_is_said_where_there_is_no_ticket(domain: Domain, ccache: Path, mounted: Mounted) -> None:
    line = refused(mounted, "sec=krb5")
    assert all(word in line for word in (str(ccache), "kinit", "cruid=", "KRB5_FCC_NOFILE"))
    ccache.write_bytes(b"")
    line = refused(mounted, "sec=krb5")
    assert "kinit" in line
    assert str(ccache) in line


def test_the_other_ways_of_having_none(domain: Domain, ccache: Path, mounted: Mounted, tmp_path: Path) -> None:
    domain.ticket(ccache=ccache)
    line = refused(mounted, "sec=krb5", source=f"//{domain.address}/share")
    assert all(word in line for word in ("DNS name", "ip=", f"cifs/{domain.address}", "S_PRINCIPAL_UNKNOWN"))
    line = refused(mounted, "sec=krb5", "username=somebody")
    assert all(word in line for word in ("username=", "KG_CCACHE_NOMATCH"))
    line = refused(mounted, "sec=krb5", f"keytab={tmp_path}/absent")
    assert all(word in line for word in ("keytab", "absent", "No such file"))
    line = refused(mounted, "sec=krb5", f"keytab={domain.keytab()}", "username=somebody")
    assert all(word in line for word in ("username=", "klist -k", "KRB5_KT_NOTFOUND"))
    line = refused(mounted, "sec=krb5", "username=nobody-here,password=x")
    assert all(word in line for word in ("username=", "C_PRINCIPAL_UNKNOWN"))
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text(f"username={domain.user}\npassword=not-it\n")
    line = refused(mounted, "sec=krb5", f"credentials={wrong}")
    assert all(word in line for word in ("password", "credentials file", "PREAUTH_FAILED"))
    assert "not-it" not in line


def test_kerberos_by_name_is_never_replaced(domain: Domain, mounted: Mounted, tmp_path: Path) -> None:
    """The credentials would do for NTLM, and there is no KDC to ask."""
    configuration = tmp_path / "krb5.conf"
    # 127.0.0.88 answers nothing there; the refusal comes at once.
    configuration.write_text(domain.krb5_config.read_text().replace(domain.address, "127.0.0.88"))
    line = refused(
        mounted, "sec=krb5", f"credentials={domain.credentials}", environment={"KRB5_CONFIG": str(configuration)}
    )
    assert "KDC" in line
    assert "no login by Kerberos" in line


def test_tickets_by_password(domain: Domain, mounted: Mounted) -> None:
    works(mounted("sec=krb5", f"credentials={domain.credentials}"), domain)


def test_tickets_by_keytab(domain: Domain, ccache: Path, mounted: Mounted) -> None:
    keytab = domain.keytab()
    works(mounted("sec=krb5i", f"keytab={keytab}"), domain)
    works(mounted("sec=krb5", f"keytab={keytab}", f"username={domain.user}"), domain)
    assert not ccache.exists()
    works(mounted("sec=krb5", environment={"KRB5_CLIENT_KTNAME": str(keytab)}), domain)
    assert SERVICE in services(ccache)


def test_tickets_of_somebody_else(domain: Domain, ccache: Path, mounted: Mounted, tmp_path: Path) -> None:
    """Whose cache it is says krb5.conf; that of the user who mounts is empty."""
    configuration = tmp_path / "krb5.conf"
    place = f"[libdefaults]\n default_ccache_name = FILE:{tmp_path}/of-%{{uid}}"
    configuration.write_text(domain.krb5_config.read_text().replace("[libdefaults]", place))
    domain.ticket(ccache=tmp_path / "of-4242")
    environment = {"KRB5_CONFIG": str(configuration)}
    works(mounted("sec=krb5", "cruid=4242", environment=environment), domain)
    works(mounted("sec=krb5", environment={**environment, "SUDO_UID": "4242"}), domain)
    keytab = domain.keytab()
    environment["KRB5_CLIENT_KTNAME"] = str(keytab)
    line = refused(mounted, "sec=krb5", "cruid=4343", environment=environment)  # and not the key of who mounts
    assert "of-4343" in line


def told(mount: Mount, text: str) -> bool:
    """Whether the mount's history has an event or an error that says so."""
    status = mount.status()
    return any(text in entry["text"] for entry in [*status["events"], *status["last_errors"]])


@pytest.mark.parametrize("options", [[], ["seal"]], ids=["signed", "sealed"])
def test_several_connections_each_by_a_ticket(
    domain: Domain, ccache: Path, mounted: Mounted, options: Sequence[str]
) -> None:
    domain.ticket(ccache=ccache)
    mount = mounted("sec=krb5", "multichannel", *options)
    until(lambda: len(mount.status()["channels"]) == 2, 60)
    works(mount, domain)
    link = domain.network.links[0]
    domain.network.break_path(link, "drop")
    try:
        # Whatever goes by this link is answered by the other one.
        while len(mount.status()["channels"]) == 2:
            works(mount, domain)
        works(mount, domain)
    finally:
        domain.network.mend_path(link)
    until(lambda: len(mount.status()["channels"]) == 2, 60)
    works(mount, domain)
    assert mount.status()["reconnects"] == 0


@pytest.mark.parametrize(
    "options",
    [["nomultichannel"], ["nomultichannel", "seal"], [], ["seal"]],
    ids=lambda words: "+".join(words) or "signed",
)
def test_an_expired_session_is_renewed_and_what_is_open_stays(
    domain: Domain, ccache: Path, mounted: Mounted, options: Sequence[str]
) -> None:
    domain.ticket(ccache=ccache)
    short_ticket(domain, ccache, 9)
    mount = mounted("sec=krb5", *options)
    count = 1 if "nomultichannel" in options else 2
    until(lambda: len(mount.status()["channels"]) == count, 60)
    name = f"open-{os.urandom(4).hex()}"
    lines = 0
    with (mount.path / name).open("w") as file:
        limit = time.monotonic() + 60
        while not told(mount, "had expired and was renewed"):
            assert time.monotonic() < limit
            file.write("another line\n")
            file.flush()
            lines += 1
            os.listdir(mount.path)
            time.sleep(0.2)
        file.write("the last line\n")
    assert (domain.directory() / name).read_text() == "another line\n" * lines + "the last line\n"
    assert mount.status()["reconnects"] == 0
    works(mount, domain)
    assert len(mount.status()["channels"]) == count


def test_a_session_that_cannot_be_renewed_waits_for_a_ticket(domain: Domain, ccache: Path, mounted: Mounted) -> None:
    domain.ticket(ccache=ccache)
    short_ticket(domain, ccache, 9)
    mount = mounted("sec=krb5", "timeout=3", "noac")
    name = f"open-{os.urandom(4).hex()}"
    with (mount.path / name).open("wb", buffering=0) as file:
        file.write(b"before")
        ccache.unlink()

        def fails() -> bool:
            try:
                os.stat(mount.path / name)
            except OSError as error:
                if error.errno != errno.ETIMEDOUT:
                    raise
                return True
            return False

        until(fails, 60)
        assert told(mount, "there is no ticket cache")
        domain.ticket(ccache=ccache)
        until(lambda: not fails(), 30)
        file.write(b" and after")
    assert (domain.directory() / name).read_bytes() == b"before and after"
    assert mount.status()["reconnects"] == 0
