"""-o fuse=: which driver is taken, and what is said where it is not there."""

from __future__ import annotations

import sys

import pytest

from smb3fs.errors import MountError
from smb3fs.fuse.drivers import driver_named
from smb3fs.fuse.native_driver import NativeDriver
from smb3fs.option_values import FUSE_DRIVERS
from smb3fs.options import MountOptions


def test_the_native_driver_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyfuse3", None)
    assert FUSE_DRIVERS[0] == MountOptions.__dataclass_fields__["fuse"].default == "native"
    first, second = driver_named("native"), driver_named("native")
    assert isinstance(first, NativeDriver)
    assert first is not second


def test_pyfuse3_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "smb3fs.fuse.pyfuse3_driver", raising=False)
    monkeypatch.delattr("smb3fs.fuse.pyfuse3_driver", raising=False)
    monkeypatch.setitem(sys.modules, "pyfuse3", None)
    with pytest.raises(MountError, match=r"fuse=pyfuse3 needs pyfuse3.*smb3fs\[pyfuse3\].*leave the option out"):
        driver_named("pyfuse3")
