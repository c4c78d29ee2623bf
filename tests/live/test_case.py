"""Upper and lower case: on a server that takes no notice of it, on one that does, and with `nocase`.

The mounts here may believe names for a minute, so what is seen to change has been forgotten and has not run out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.mounting import Mount, wait_until
from lab.server import Samba

from .conftest import Mounter, Work
from .oracle import outcome

# With the POSIX extensions, where a server has them, names are POSIX's, and case counts.
KEEP = "noposix,actimeo=60"


@pytest.fixture(scope="module")
def sensitive() -> Iterator[Samba]:
    """A server for which Name and NAME are two files."""
    with Samba(settings="case sensitive = yes") as server:
        yield server


def _on(server: Samba, mount: Mount) -> Iterator[Work]:
    """A new directory on a mount."""
    name = f"work-{os.urandom(4).hex()}"
    (mount.path / name).mkdir()
    yield Work(mount.path / name, server.directory() / name, name)
    shutil.rmtree(server.directory() / name)


@pytest.fixture(scope="module")
def folding_mount(samba: Samba, every_mount: list[Mount]) -> Iterator[Mount]:
    """A mount of the server that takes no notice of case."""
    made = Mounter(samba, every_mount)
    yield made(KEEP)
    made.finish()


@pytest.fixture
def folding(samba: Samba, folding_mount: Mount) -> Iterator[Work]:
    """A directory on the server that takes no notice of case."""
    yield from _on(samba, folding_mount)


@pytest.fixture
def telling(sensitive: Samba, mounted: Mounter) -> Iterator[Work]:
    """A directory on the server that does."""
    yield from _on(sensitive, mounted(KEEP, server=sensitive))


@pytest.fixture
def nocase(sensitive: Samba, mounted: Mounter) -> Iterator[Work]:
    """The same with the option."""
    yield from _on(sensitive, mounted(KEEP, "nocase", server=sensitive))


def gone(path: Path) -> bool:
    """Whether a name is gone, once the kernel has been told; it is told while the call that changed it returns."""
    return wait_until(lambda: not os.path.lexists(path), 5)


def test_all_spellings_are_one_file(folding: Work) -> None:
    (folding.path / "Name").write_bytes(b"content")
    number = (folding.path / "Name").stat().st_ino
    for spelling in ("NAME", "name", "nAmE", "Name"):
        assert (folding.path / spelling).stat().st_ino == number
        assert (folding.path / spelling).read_bytes() == b"content"
    (folding.path / "NAME").write_bytes(b"more content")
    assert (folding.path / "Name").read_bytes() == b"more content"
    assert (folding.path / "name").stat().st_size == 12
    assert os.listdir(folding.path) == ["Name"]
    with pytest.raises(FileExistsError):
        (folding.path / "NaMe").open("x")
    with pytest.raises(FileExistsError):
        (folding.path / "nAME").mkdir()


def test_all_spellings_are_one_directory(folding: Work) -> None:
    (folding.path / "Folder").mkdir()
    (folding.path / "Folder/file").write_bytes(b"1")
    number = (folding.path / "Folder").stat().st_ino
    assert (folding.path / "FOLDER").stat().st_ino == number
    assert (folding.path / "folder/FILE").read_bytes() == b"1"
    (folding.path / "FOLDER/file").unlink()
    (folding.path / "fOLDER").rmdir()
    for spelling in ("Folder", "FOLDER", "folder"):
        assert gone(folding.path / spelling)


@pytest.mark.parametrize("by", ["Name", "NAME"])
@pytest.mark.parametrize("held", [False, True])
def test_what_is_removed_is_gone_in_all_spellings(folding: Work, by: str, *, held: bool) -> None:
    (folding.path / "Name").write_bytes(b"1")
    for spelling in ("NAME", "name", "Name", "nAME"):
        (folding.path / spelling).stat()
    if held:
        with (folding.path / "name").open("rb") as file:
            (folding.path / by).unlink()
            assert gone(folding.path / "name")
            assert file.read() == b"1"
    else:
        (folding.path / by).unlink()
    for spelling in ("name", "Name", "NAME", "nAME"):
        assert gone(folding.path / spelling)
    assert os.listdir(folding.path) == []


def test_what_is_renamed_is_gone_in_all_spellings(folding: Work) -> None:
    (folding.path / "Old").write_bytes(b"old")
    (folding.path / "Taken").write_bytes(b"taken")
    for spelling in ("OLD", "Old", "TAKEN", "Taken"):
        (folding.path / spelling).stat()
    (folding.path / "old").rename(folding.path / "TAKEN")
    for spelling in ("OLD", "Old", "old"):
        assert gone(folding.path / spelling)
    assert wait_until(lambda: (folding.path / "Taken").read_bytes() == b"old", 5)
    assert (folding.path / "taken").read_bytes() == b"old"
    assert len(os.listdir(folding.behind)) == 1


def test_what_is_made_is_there_in_all_spellings(folding: Work) -> None:
    for spelling in ("NEW", "new", "New"):
        assert outcome((folding.path / spelling).stat) == "ENOENT"
    (folding.path / "new").write_bytes(b"1")
    for spelling in ("NEW", "new", "New"):
        assert (folding.path / spelling).read_bytes() == b"1"
    (folding.path / "new").unlink()
    for spelling in ("NEW", "new", "New"):
        assert gone(folding.path / spelling)
    (folding.path / "NEW").mkdir()
    assert (folding.path / "New").is_dir()


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("known", [False, True])
def test_a_change_of_case_alone(folding: Work, kind: str, *, known: bool) -> None:
    old, new = folding.path / "name", folding.path / "NAME"
    if kind == "file":
        old.write_bytes(b"content")
    else:
        old.mkdir()
    if known:
        assert new.exists()
    old.rename(new)
    assert os.listdir(folding.behind) == os.listdir(folding.path) == ["NAME"]
    subprocess.run(["mv", new, folding.path / "Name"], check=True)
    assert os.listdir(folding.behind) == os.listdir(folding.path) == ["Name"]
    (folding.path / "nAME").rename(folding.path / "other")
    assert gone(new)


def test_a_held_listing_does_not_bring_back_what_went_under_another_spelling(folding: Work) -> None:
    names = [f"File{number:02}" for number in range(40)]
    for name in names:
        (folding.behind / name).write_bytes(b"")
        shutil.chown(folding.behind / name, "daemon")
    for name in names[:30]:
        (folding.path / name).stat()  # which makes it list the directory for the ones to come
    (folding.path / "FILE35").unlink()
    assert not (folding.path / "File35").exists()
    (folding.path / "file36").rename(folding.path / "moved")
    assert not (folding.path / "File36").exists()
    assert (folding.path / "File37").exists()


def test_two_spellings_are_two_files(telling: Work) -> None:
    (telling.path / "Name").write_bytes(b"1")
    assert outcome((telling.path / "NAME").stat) == "ENOENT"
    (telling.path / "NAME").write_bytes(b"22")
    assert (telling.path / "Name").stat().st_ino != (telling.path / "NAME").stat().st_ino
    assert sorted(os.listdir(telling.path)) == ["NAME", "Name"]
    (telling.path / "Name").unlink()
    assert (telling.path / "NAME").read_bytes() == b"22"
    assert os.listdir(telling.behind) == ["NAME"]
    (telling.path / "NAME").rename(telling.path / "name")
    assert os.listdir(telling.behind) == ["name"]


def test_nocase_finds_other_spellings(nocase: Work) -> None:
    (nocase.path / "Name").write_bytes(b"content")
    number = (nocase.path / "Name").stat().st_ino
    assert (nocase.path / "NAME").stat().st_ino == number
    assert (nocase.path / "name").read_bytes() == b"content"
    (nocase.path / "nAME").write_bytes(b"new")
    assert (nocase.behind / "Name").read_bytes() == b"new"
    assert outcome((nocase.path / "other").stat) == "ENOENT"
    (nocase.path / "Folder").mkdir()
    (nocase.path / "FOLDER/file").write_bytes(b"1")
    assert (nocase.path / "folder/FILE").read_bytes() == b"1"
    (nocase.path / "NAME").unlink()
    assert gone(nocase.path / "Name")
    (nocase.path / "folder/FILE").rename(nocase.path / "FOLDER/Moved")
    assert os.listdir(nocase.behind / "Folder") == ["Moved"]
    (nocase.path / "folder/MOVED").unlink()
    (nocase.path / "FOLDER").rmdir()
    assert os.listdir(nocase.path) == os.listdir(nocase.behind) == []


def test_nocase_replaces_what_is_there_in_another_spelling(nocase: Work) -> None:
    (nocase.path / "old").write_bytes(b"old")
    (nocase.path / "Taken").write_bytes(b"taken")
    (nocase.path / "OLD").rename(nocase.path / "TAKEN")
    assert os.listdir(nocase.behind) == ["Taken"]
    assert (nocase.path / "taken").read_bytes() == b"old"
    (nocase.path / "Taken").rename(nocase.path / "TAKEN")
    assert os.listdir(nocase.behind) == ["TAKEN"]


def test_made_up_names_are_asked_for(own_samba: Samba, mounted: Mounter) -> None:
    """A name of eight characters and three stands for a longer one, and no listing has it."""
    with own_samba.settings("mangled names = yes"):
        mount = mounted(KEEP, server=own_samba)
        for number in range(40):
            own_samba.put(f"a long name {number}.text", b"content")
        found = own_samba.client('altname "a long name 35.text"')
        short = found.split()[-1]
        assert "~" in short
        for number in range(30):
            (mount.path / f"a long name {number}.text").stat()
        long = mount.path / "a long name 35.text"
        assert (mount.path / short).stat().st_ino == long.stat().st_ino
        assert (mount.path / short).read_bytes() == b"content"
        assert short not in os.listdir(mount.path)
        (mount.path / short).unlink()
        assert gone(long)
        assert gone(mount.path / short)
