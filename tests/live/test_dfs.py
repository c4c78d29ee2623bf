"""DFS: links lead to the servers that they name, to the next one where one is dead, or are refused in a sentence."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from lab.mounting import Mount, MountFailedError, wait_until
from lab.server import Samba

from .conftest import Mounter


class Servers(NamedTuple):
    """A server with a namespace, and two to which its links lead."""

    root: Samba
    first: Samba
    second: Samba


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Three servers, of which each share tells by a file whose it is."""
    with ExitStack() as stack:
        made = Servers(*(stack.enter_context(Samba()) for _ in Servers._fields))
        for name, server in made._asdict().items():
            server.put(f"on-{name}", name.encode())
            deep = server.directory() / "deep"
            deep.mkdir(mode=0o777)
            deep.chmod(0o777)
            (deep / f"deep-on-{name}").write_text(name)
        (made.root.directory("dfs") / "plain").mkdir()
        (made.root.directory("dfs") / "plain" / "file").write_text("in the namespace itself")
        yield made


def place(server: Samba, path: str = "share") -> str:
    """A place on a server, as the status of a mount tells it."""
    return f"//{server.address}/{path}"


def target(server: Samba, path: str = "share") -> str:
    r"""The same as a DFS link has it."""
    return f"{server.address}\\{path}"


def work_on(mount: Mount) -> None:
    """Every kind of request that carries a name."""
    folder = mount.path / f"work-{os.urandom(3).hex()}"
    folder.mkdir()
    (folder / "file").write_bytes(b"data" * 5000)
    os.rename(folder / "file", folder / "renamed")
    assert (folder / "renamed").read_bytes() == b"data" * 5000
    os.truncate(folder / "renamed", 3)
    os.utime(folder / "renamed", (1, 1))
    assert os.listdir(folder) == ["renamed"]
    (folder / "renamed").unlink()
    os.rename(folder, mount.path / "moved")
    (mount.path / "moved").rmdir()
    assert os.statvfs(mount.path).f_blocks > 0


def test_a_namespace_that_is_mounted_itself(servers: Servers, mounted: Mounter) -> None:
    mount = mounted("nomultichannel", server=servers.root, share="dfs")  # which would ask for interfaces
    assert (mount.path / "plain" / "file").read_text() == "in the namespace itself"
    assert mount.status()["place"] == place(servers.root, "dfs")
    assert "IOCTL" not in mount.status()["requests"]
    mounted.finish()
    assert mounted(server=servers.root, share="dfs/plain").path.joinpath("file").exists()


@pytest.mark.parametrize("options", [(), ("vers=2.0",), ("seal",)], ids=["usual", "2.0.2", "sealed"])
def test_a_link_leads_to_its_target(servers: Servers, mounted: Mounter, options: tuple[str, ...]) -> None:
    servers.root.link("link", target(servers.first))
    mount = mounted(*options, server=servers.root, share="dfs/link")
    assert mount.status()["place"] == place(servers.first)
    assert (mount.path / "on-first").read_text() == "first"
    work_on(mount)
    assert wait_until(lambda: servers.root.sessions() == 0, 10)


def test_so_does_a_directory_below_it(servers: Servers, mounted: Mounter) -> None:
    servers.root.link("link", target(servers.first))
    mount = mounted(server=servers.root, share="dfs/link/deep")
    assert os.listdir(mount.path) == ["deep-on-first"]
    work_on(mount)


def test_and_a_target_below_the_root_of_its_share(servers: Servers, mounted: Mounter) -> None:
    servers.root.link("low", target(servers.second, "share\\deep"))
    mount = mounted(server=servers.root, share="dfs/low")
    assert mount.status()["place"] == place(servers.second, "share/deep")
    assert os.listdir(mount.path) == ["deep-on-second"]
    work_on(mount)


def test_from_namespace_to_namespace(servers: Servers, mounted: Mounter) -> None:
    servers.root.link("on", target(servers.first, "dfs\\further"))
    servers.first.link("further", target(servers.second))
    mount = mounted(server=servers.root, share="dfs/on")
    assert mount.status()["place"] == place(servers.second)
    work_on(mount)


def test_the_next_target_where_the_first_is_dead(servers: Servers, mounted: Mounter) -> None:
    servers.root.link("two", target(servers.first), target(servers.second, "nowhere"), target(servers.second))
    servers.first.stop()
    try:
        mount = mounted(server=servers.root, share="dfs/two")
        assert mount.status()["place"] == place(servers.second)
        work_on(mount)
    finally:
        servers.first.start()


def test_a_target_that_dies_is_replaced_by_the_next(servers: Servers, mounted: Mounter) -> None:
    """Without the namespace's server, which is dead too; the second target lies elsewhere in its share."""
    servers.root.link("two", target(servers.first), target(servers.second, "share\\deep"))
    mount = mounted("actimeo=0", server=servers.root, share="dfs/two")
    assert (mount.path / "on-first").exists()
    stopped = [servers.root, servers.first]
    try:
        for server in stopped:
            server.stop()
        assert os.listdir(mount.path) == ["deep-on-second"]
        assert (mount.path / "deep-on-second").read_text() == "second"
        assert mount.status()["place"] == place(servers.second, "share/deep")
        work_on(mount)
        servers.first.start()
        stopped.remove(servers.first)
        servers.second.stop()
        stopped.append(servers.second)
        assert wait_until((mount.path / "on-first").exists, 10)
        assert mount.status()["reconnects"] == 2
    finally:
        for server in stopped:
            server.start()


def test_a_target_that_falls_silent_is_replaced_within_a_call(servers: Servers, mounted: Mounter) -> None:
    servers.root.link("two", target(servers.first), target(servers.second))
    mount = mounted("actimeo=0", "timeout=8", server=servers.root, share="dfs/two")
    assert (mount.path / "on-first").exists()
    servers.first.network.drop()
    try:
        assert (mount.path / "on-second").read_text() == "second"
        assert mount.status()["place"] == place(servers.second)
    finally:
        servers.first.network.pass_again()


def test_links_that_lead_nowhere_are_refused_in_a_sentence(servers: Servers, mounted: Mounter) -> None:
    root, first = servers.root, servers.first
    root.link("circle", target(first, "dfs\\circle"))
    first.link("circle", target(root, "dfs\\circle"))
    root.link("missing", target(first, "missing"))
    cases = {
        "dfs/circle": ("circle", place(first, "dfs/circle")),
        "dfs/missing": (place(first, "missing"), "no share missing", "STATUS_BAD_NETWORK_NAME"),
        "dfs/nothing": ("no directory nothing",),
        "dfs/missing/deep": (place(first, "missing/deep"), "no share missing"),
    }
    for source, words in cases.items():
        with pytest.raises(MountFailedError) as caught:
            mounted(server=root, share=source)
        assert caught.value.status == 32
        assert len(caught.value.output.strip().splitlines()) == 1
        assert all(word in caught.value.output for word in words), caught.value.output
    mounted.finish()


def test_nodfs_names_the_target_and_does_not_go_there(servers: Servers, mounted: Mounter) -> None:
    servers.root.link("link", target(servers.first))
    with pytest.raises(MountFailedError) as caught:
        mounted("nodfs", server=servers.root, share="dfs/link")
    assert caught.value.status == 32
    assert place(servers.first) in caught.value.output
    assert "nodfs" in caught.value.output
    mounted.finish()
    assert servers.first.sessions() == 0


def test_a_login_that_the_target_refuses_is_its_refusal(servers: Servers, mounted: Mounter) -> None:
    servers.root.link("link", target(servers.first))
    servers.first.set_password("another-Passw0rd")
    try:
        with pytest.raises(MountFailedError) as caught:
            mounted(server=servers.root, share="dfs/link")
        assert f"{servers.first.address} refuses the login" in caught.value.output
    finally:
        servers.first.set_password(servers.first.password)
        mounted.finish()


# -- links that are met below the root of a mount


@pytest.fixture(scope="module")
def namespace(servers: Servers) -> Servers:
    """A namespace with a link of each kind."""
    root, first, second = servers
    root.link("in-first", target(first))
    root.link("in-second-deep", target(second, "share\\deep"))
    root.link("dead-then-second", target(first, "gone"), target(second))
    root.link("plain/below", target(first, "share\\deep"))
    root.link("further", target(first, "dfs"))
    first.link("home", target(root))
    root.link("nowhere", target(second, "missing"))
    (root.directory("dfs") / "plain").chmod(0o777)
    return servers


LEADS = {
    "in-first": "on-first",
    "in-second-deep": "deep-on-second",
    "dead-then-second": "on-second",
    "plain/below": "deep-on-first",
    "further/home": "on-root",
}


@pytest.mark.parametrize("link", LEADS)
def test_a_link_in_a_mounted_namespace_is_a_directory(namespace: Servers, mounted: Mounter, link: str) -> None:
    """Entered without a listing before; all that programs do there works."""
    mount = mounted(server=namespace.root, share="dfs")
    folder = mount.path / link
    assert LEADS[link] in os.listdir(folder)
    assert (folder / LEADS[link]).read_bytes()
    for name in ("work", "other"):
        (folder / name).mkdir()
    (folder / "work" / "file").write_bytes(b"12345" * 100_000)
    os.rename(folder / "work" / "file", folder / "other" / "file")
    assert (folder / "other" / "file").read_bytes() == b"12345" * 100_000
    os.truncate(folder / "other" / "file", 3)
    with (folder / "other" / "file").open("ab") as file:
        file.write(b"45")
        assert os.fstat(file.fileno()).st_size >= 3
    assert (folder / "other" / "file").read_bytes() == b"12345"
    (folder / "other" / "file").unlink()
    for name in ("work", "other"):
        (folder / name).rmdir()
    assert mount.status()["open_handles"] == 0


def test_walking_through_all_of_a_namespace(namespace: Servers, mounted: Mounter) -> None:
    """By listings with attributes, again and again while what they told gets old."""
    mount = mounted("acregmax=0.2,acdirmax=0.2", server=namespace.root, share="dfs")
    for _ in range(3):
        found = {}
        for folder, _, files in os.walk(mount.path):
            for name in files:
                status = os.stat(os.path.join(folder, name))
                found[os.path.relpath(os.path.join(folder, name), mount.path)] = status.st_ino
        assert {f"{link}/{name}" for link, name in LEADS.items()} <= found.keys()
        assert found["plain/file"] == os.stat(mount.path / "plain" / "file").st_ino
        done = subprocess.run(["ls", "-lR", mount.path], capture_output=True, text=True)
        assert "deep-on-second" in done.stdout
    links = mount.status()["links"]
    assert links["in-second-deep"] == place(namespace.second, "share/deep")
    assert links["further\\home"] == place(namespace.root)


def test_a_link_is_much_like_a_mount_point(namespace: Servers, mounted: Mounter) -> None:
    mount = mounted(server=namespace.root, share="dfs")
    link, file = mount.path / "in-first", mount.path / "plain" / "file"
    assert link.is_dir()
    for change in (lambda: os.rmdir(link), lambda: os.rename(link, mount.path / "plain" / "new")):
        with pytest.raises(OSError) as error:
            change()
        assert error.value.errno == errno.EBUSY
    for new in (link / "file", mount.path / "in-second-deep" / "file"):
        with pytest.raises(OSError) as error:
            os.rename(file, new)
        assert error.value.errno == errno.EXDEV
    shutil.move(file, link / "moved")
    shutil.move(link / "moved", file)
    assert file.read_text() == "in the namespace itself"


def test_a_link_that_leads_nowhere_is_remote_and_the_log_says_why(namespace: Servers, mounted: Mounter) -> None:
    mount = mounted(server=namespace.root, share="dfs")
    with pytest.raises(OSError) as error:
        os.listdir(mount.path / "nowhere")
    assert error.value.errno == errno.EREMOTE
    (told,) = mount.status()["last_errors"]
    assert place(namespace.second, "missing") in told["text"]
    assert "nowhere" in os.listdir(mount.path)


def test_with_nodfs_every_link_is(namespace: Servers, mounted: Mounter) -> None:
    mount = mounted("nodfs", server=namespace.root, share="dfs")
    with pytest.raises(OSError) as error:
        (mount.path / "in-first" / "on-first").read_bytes()
    assert error.value.errno == errno.EREMOTE
    (told,) = mount.status()["last_errors"]
    assert place(namespace.first) in told["text"]
    assert "nodfs" in told["text"]
    assert namespace.first.sessions() == 0


def test_each_link_heals_by_itself(namespace: Servers, mounted: Mounter) -> None:
    mount = mounted("actimeo=0", server=namespace.root, share="dfs")
    assert (mount.path / "in-first" / "on-first").exists()
    assert (mount.path / "in-second-deep" / "deep-on-second").exists()
    with (mount.path / "in-second-deep" / "kept").open("wb", buffering=0) as kept:
        kept.write(b"before")
        namespace.first.restart()
        assert (mount.path / "in-first" / "on-first").read_text() == "first"
        kept.write(b" and after")
    assert (namespace.second.directory() / "deep" / "kept").read_bytes() == b"before and after"
    (mount.path / "in-second-deep" / "kept").unlink()


def test_a_share_that_is_a_link_as_a_whole(servers: Servers, mounted: Mounter) -> None:
    """Samba's `msdfs proxy`: the root of the share is already somewhere else."""
    path, leads_to = servers.root.directory("dfs"), target(servers.first)
    proxy = f"[proxy]\npath = {path}\nmsdfs root = yes\nmsdfs proxy = \\{leads_to}"
    with servers.root.settings(proxy):
        mount = mounted(server=servers.root, share="proxy")
        assert mount.status()["place"] == place(servers.first)
        work_on(mount)
        mounted.finish()
        assert os.listdir(mounted(server=servers.root, share="proxy/deep").path) == ["deep-on-first"]
        mounted.finish()
