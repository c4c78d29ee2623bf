"""The mount options of the tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What MountOptions has for the verbs and for the driver, with the tests' values."""

    uid: int = 1000
    gid: int = 1001
    forces_uid: bool = False
    forces_gid: bool = False
    file_mode: int = 0o755
    dir_mode: int = 0o755
    noperm: bool = False
    server_inodes: bool = True
    symlink: str = "native"
    mfsymlinks: bool = False
    special_files: str = "nfs"
    symlink_root: str = "/mnt"
    name_mapping: str = "mapposix"
    nocase: bool = False
    user_xattr: bool = True
    cache: str = "strict"
    wcache: int = 16 << 20
    closetimeo: float = 1.0
    handle_cache: bool = True
    max_cached_handles: int = 1000
    acregmax: float = 1.0
    acdirmax: float = 2.0
    bsize: int = 1 << 20
    timeout: float = 30.0
    hard: bool = False
    strictsync: bool = True
    nodelete: bool = False
    server_locks: bool = True
    dynperm: bool = False
    fsname: str = "//server/share"
    subtype: str = "smb3fs"
    read_only: bool = False
    allow_other: bool = False
    kernel_flags: tuple[str, ...] = ("nosuid", "nodev")
    rasize: int = 1 << 20
    read_ahead: int = 16 << 20
