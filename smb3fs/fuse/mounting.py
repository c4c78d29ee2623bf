"""Making and removing the mount: mount(2) where that is permitted, fusermount3 for everybody else.

Who may call mount(2): root, and whoever has CAP_SYS_ADMIN in the namespace, as in a container with a user namespace of
its own. The others ask fusermount3 (setuid root, package fuse3), which opens the device, mounts, and sends the open
descriptor back over a socket whose number it finds in _FUSE_COMMFD.
"""

from __future__ import annotations

import array
import ctypes
import errno
import logging
import os
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from smb3fs.errors import MountError
from smb3fs.fuse import kernel
from smb3fs.fuse.options import FuseOptions, mount_options

log = logging.getLogger(__name__)

DEVICE: Final = "/dev/fuse"
KIND: Final = "fuse.smb3fs"
# mount(2), sys/mount.h: the flags by mount(8)'s words.
FLAGS: Final[Mapping[str, int]] = {
    "nosuid": 1 << 1,
    "nodev": 1 << 2,
    "noexec": 1 << 3,
    "sync": 1 << 4,
    "dirsync": 1 << 7,
    "noatime": 1 << 10,
    "nodiratime": 1 << 11,
}
MS_RDONLY: Final = 1 << 0
MNT_DETACH: Final = 1 << 1
# How long fusermount3 may take, in seconds.
PATIENCE: Final = 20.0


def mount(target: str, options: FuseOptions) -> int:
    """Make the mount and return a descriptor of the device, which does not block; or raise MountError."""
    if not os.path.exists(DEVICE):
        raise MountError(f"{DEVICE} is missing: load the kernel module fuse, or give the container this device")
    try:
        return _by_system_call(target, options)
    except PermissionError as error:
        log.debug("mount(2): %s; asking fusermount3", error.strerror)
        return _by_fusermount(target, options)
    except OSError as error:
        raise MountError(f"the kernel refused to mount at {target}: {error.strerror}") from error


def _by_system_call(target: str, options: FuseOptions) -> int:
    """Call mount(2)."""
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        words = [
            f"fd={descriptor}",
            f"rootmode={stat.S_IFDIR:o}",
            f"user_id={os.getuid()}",
            f"group_id={os.getgid()}",
        ]
        if options.allow_other:
            words.append("allow_other")
        if not options.noperm:
            words.append("default_permissions")
        flags = sum(FLAGS[word] for word in options.kernel_flags) | (MS_RDONLY if options.read_only else 0)
        _call(
            "mount",
            os.fsencode(options.fsname),
            os.fsencode(target),
            KIND.encode(),
            ctypes.c_ulong(flags),
            ",".join(words).encode(),
        )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library that sets errno."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _by_fusermount(target: str, options: FuseOptions) -> int:
    """Have fusermount3 mount, and take the descriptor that it sends."""
    program = shutil.which("fusermount3")
    if program is None:
        raise MountError(
            f"this user or container may not mount at {target}: be root, or install fuse3, or give it CAP_SYS_ADMIN"
        )
    try:
        return _asked(program, target, options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(f"fusermount3 did not mount at {target}: {error}") from error


def _asked(program: str, target: str, options: FuseOptions) -> int:
    """Run fusermount3 and return the descriptor, which does not block."""
    # It takes a comma or a backslash behind a backslash for itself, and everything else as it comes.
    words = mount_options(options, re.sub(r"([\\,])", r"\\\1", options.fsname))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        done = subprocess.run(
            [program, "-o", ",".join(sorted(words)), "--", target],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
        theirs.close()
        said = re.sub(r"^\S*fusermount3?: ", "", done.stderr.strip().splitlines()[-1]) if done.stderr.strip() else ""
        if done.returncode != 0:
            raise MountError(f"fusermount3 refused to mount at {target}: {said or f'status {done.returncode}'}")
        try:
            descriptor = _received(ours)
        except BaseException:
            subprocess.run([program, "-u", "-q", "-z", "--", target], timeout=PATIENCE, check=False)
            raise
    os.set_blocking(descriptor, False)
    return descriptor


def _received(ours: socket.socket) -> int:
    """Return the descriptor that has come over a socket."""
    ours.settimeout(PATIENCE)
    room = array.array("i", [0])
    _, extra, _, _ = ours.recvmsg(1, socket.CMSG_LEN(room.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(content) >= room.itemsize:
            return array.array("i", content[: room.itemsize])[0]
    raise MountError("fusermount3 mounted and sent no descriptor of the device; its version may be too old")


def device_number(target: str) -> str | None:
    """Return MAJOR:MINOR of the FUSE mount at a path, without touching it."""
    return kernel.device_of(target, Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))


def unmount(target: str, device: str | None) -> None:
    """Take our mount away from a path, if it is still what is there; files that are open in it stay open.

    The descriptor of the device must be closed by then: an unmount that finds something to write back would wait for
    us otherwise.
    """
    if device is None or device_number(target) != device:
        return
    try:
        _call("umount2", os.fsencode(target), ctypes.c_int(MNT_DETACH))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):  # somebody was faster
            return
        program = shutil.which("fusermount3")
        if program is None:
            log.warning("%s cannot be unmounted: %s", target, error.strerror)
            return
        done = subprocess.run(
            [program, "-u", "-q", "-z", "--", target],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0 and device_number(target) == device:
            log.warning("%s cannot be unmounted: fusermount3 ended with status %d", target, done.returncode)
