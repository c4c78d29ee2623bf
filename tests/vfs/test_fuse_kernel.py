"""What the kernel is told of the mount, and where it is found to be tuned."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vfs_settings import Options

from smb3fs.fuse.kernel import device_of
from smb3fs.fuse.options import escaped_for_libfuse, mount_options

MOUNTINFO = """\
22 27 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:2 - sysfs sysfs rw
79 27 0:43 / /mnt/share rw,nosuid,nodev,relatime - fuse.smb3fs //server/share rw,user_id=0,group_id=0
80 27 0:44 / /mnt/with\\040blank\\134and\\011more rw,relatime shared:9 master:3 - fuse.smb3fs x rw
81 27 0:45 / /mnt/local rw,relatime - ext4 /dev/vda rw
82 27 0:46 / /mnt/twice rw,relatime - fuse.smb3fs x rw
83 27 0:47 / /mnt/twice rw,relatime - fuse.smb3fs x rw
84 27 0:48 / /mnt/fuseblk rw,relatime - fuseblk /dev/vdb rw
nonsense
"""


@pytest.mark.parametrize(
    ("mountpoint", "device"),
    [
        ("/mnt/share", "0:43"),
        ("/mnt/with blank\\and\tmore", "0:44"),
        ("/mnt/local", None),
        ("/mnt/absent", None),
        ("/mnt/twice", "0:47"),
        ("/mnt/fuseblk", "0:48"),
        ("/sys", None),
    ],
)
def test_the_device_of_a_mount(mountpoint: str, device: str | None) -> None:
    assert device_of(mountpoint, MOUNTINFO) == device


def options(**settings: Any) -> set[str]:
    told = Options(**settings)
    return mount_options(told, escaped_for_libfuse(told.fsname))


def test_mount_options() -> None:
    assert options() == {"fsname=//server/share", "subtype=smb3fs", "nosuid", "nodev", "default_permissions"}
    assert options(noperm=True, read_only=True, allow_other=True, kernel_flags=("noexec",)) == {
        "fsname=//server/share",
        "subtype=smb3fs",
        "noexec",
        "ro",
        "allow_other",
    }


def unescape(word: str) -> bytes:
    """What libfuse makes of an option (fuse_opt.c: a backslash before three octal digits, or before a character)."""
    out, position = bytearray(), 0
    data = word.encode("ascii")
    while position < len(data):
        assert data[position : position + 1] != b","
        if data[position : position + 1] == b"\\":
            digits = data[position + 1 : position + 4]
            if len(digits) == 3 and digits[:1] in (b"0", b"1", b"2", b"3") and digits.isdigit():
                out.append(int(digits, 8))
                position += 4
            else:
                out += data[position + 1 : position + 2]
                position += 2
        else:
            out += data[position : position + 1]
            position += 1
    return bytes(out)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_any_source_reaches_libfuse(source: str) -> None:
    words = [word for word in options(fsname=source) if word.startswith("fsname=")]
    assert unescape(words[0].removeprefix("fsname=")) == os.fsencode(source)


def test_a_missing_file_below_sys_is_no_failure(tmp_path: Path) -> None:
    from smb3fs.fuse.kernel import tune

    tune(str(tmp_path), 1 << 20)  # not a mount
