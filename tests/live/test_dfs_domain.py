"""DFS in an Active Directory domain: names of the domain and of its controller, by password and by ticket."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from lab.domain import Domain, missing
from lab.mounting import Mount, MountFailedError, program

from smb3fs.channels.kerberos import missing_package

from .conftest import unmount_all

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"no domain controller here, for want of {', '.join(missing())}"
)

by_ticket = pytest.mark.skipif(missing_package() is not None, reason="no Kerberos here")
Mounted = Callable[..., Mount]


@pytest.fixture(scope="module")
def domain() -> Iterator[Domain]:
    """A domain whose namespace has links by each kind of name."""
    with Domain() as made:
        made.link("by-host", "dc1.lab.test\\share")
        made.link("by-domain", "lab.test\\share")
        made.link("second", "dc2.lab.test\\share", "dc1.lab.test\\second")
        made.link("nowhere", "dc2.lab.test\\share")
        for share in ("share", "second"):
            (made.directory(share) / f"in-{share}").write_text(share)
        yield made


@pytest.fixture
def mounted(domain: Domain, every_mount: list[Mount]) -> Iterator[Mounted]:
    """`mounted("//lab.test/dfs")` mounts from the controller by password, with `sec=krb5` by ticket."""
    mounts: list[Mount] = []

    def mount(source: str, *options: str) -> Mount:
        login = [] if "sec=krb5" in options else [f"credentials={domain.credentials}"]
        environment = [f"{name}={value}" for name, value in domain.environment.items()]
        words = [f"ip={domain.address}", *login, *options]
        command = ["env", *environment, program("mount.smb3fs")]
        made = Mount(source, domain.folder / f"mnt-{os.urandom(4).hex()}", words, command)
        mounts.append(made)
        every_mount.append(made)
        made.mount()
        return made

    yield mount
    unmount_all(mounts)


def works(mount: Mount, domain: Domain, share: str) -> None:
    """Write and read a file, and see it on the controller."""
    assert (mount.path / f"in-{share}").read_text() == share
    name = f"file-{os.urandom(4).hex()}"
    (mount.path / name).write_bytes(b"through a link")
    assert (domain.directory(share) / name).read_bytes() == b"through a link"
    (mount.path / name).unlink()


CASES = [
    ("//dc1.lab.test/dfs/by-host", "//dc1.lab.test/share", "share"),
    ("//lab.test/dfs/by-domain", "//lab.test/share", "share"),
    ("//dc1.lab.test/dfs/second", "//dc1.lab.test/second", "second"),
]


@pytest.mark.parametrize(("source", "place", "share"), CASES)
def test_links_lead_to_their_targets(domain: Domain, mounted: Mounted, source: str, place: str, share: str) -> None:
    mount = mounted(source)
    assert mount.status()["place"] == place
    works(mount, domain, share)


@by_ticket
def test_they_do_so_by_ticket(domain: Domain, mounted: Mounted) -> None:
    domain.ticket()
    works(mounted("//dc1.lab.test/dfs/by-host", "sec=krb5"), domain, "share")
    mount = mounted("//dc1.lab.test/dfs", "sec=krb5")
    assert (mount.path / "second" / "in-second").read_text() == "second"
    assert (mount.path / "by-host" / "in-share").read_text() == "share"
    assert mount.status()["links"] == {"by-host": "//dc1.lab.test/share", "second": "//dc1.lab.test/second"}


def test_links_below_the_root_of_the_mount(domain: Domain, mounted: Mounted) -> None:
    mount = mounted("//dc1.lab.test/dfs")
    assert {"by-host", "by-domain", "second", "nowhere"} == set(os.listdir(mount.path))
    assert (mount.path / "by-host" / "in-share").read_text() == "share"
    assert (mount.path / "second" / "in-second").read_text() == "second"
    with pytest.raises(OSError):
        os.listdir(mount.path / "nowhere")


def test_what_leads_nowhere_is_told_with_its_target(domain: Domain, mounted: Mounted) -> None:
    for source in ("//dc1.lab.test/dfs/nowhere", "//lab.test/dfs/nowhere"):
        with pytest.raises(MountFailedError) as caught:
            mounted(source)
        assert caught.value.status == 32
        assert "//dc2.lab.test/share" in caught.value.output
        assert "does not resolve" in caught.value.output
    with pytest.raises(MountFailedError, match="has no share missing"):
        mounted("//lab.test/missing")
