"""The checker of the layers is shown to find what it looks for; that smb3fs is as it asks is a step of tools/test."""

from __future__ import annotations

from pathlib import Path

import pytest
from check_layers import LAYERS, Rules, check, main

RULES = Rules(
    layers=(("base",), ("left", "right"), ("package",), ("top",)),
    kept_to={"library": ("left",), "shunned": ()},
    core=("base", "left"),
    not_in_core=("socket",),
)


def faults(tmp_path: Path, **sources: str) -> list[str]:
    """The faults of a package "p" with these modules; "__" in a name stands for the slash."""
    for name, source in {"__init__": "", **sources}.items():
        parts = [name] if name.startswith("__") else name.split("__", 1)
        path = (tmp_path / "p").joinpath(*parts).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return check(tmp_path / "p", RULES)


def test_each_module_has_one_place() -> None:
    units = [unit for row in LAYERS for unit in row]
    assert len(units) == len(set(units))


def test_downward_is_allowed_however_it_is_written(tmp_path: Path) -> None:
    assert not faults(
        tmp_path,
        base="",
        left="import p.base\nfrom p import base\nfrom . import base as b\nfrom .base import x\nfrom p import __doc__",
        package__one="from ..left import x\nfrom p.package import two\nimport trio",
        package__two="",
        package____init__="",
        top="from p.package.one import x\nimport p.right",
        right="",
    )


@pytest.mark.parametrize(
    "source",
    [
        "import p.top",
        "from p import top",
        "from p.top import x",
        "from . import top",
        "from .top import x",
        "def f():\n    from p import top",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.top",
    ],
)
def test_upward_is_not(tmp_path: Path, source: str) -> None:
    (fault,) = faults(tmp_path, base=source, top="")
    assert fault.startswith("p/base.py:")
    assert "imports p.top" in fault
    assert "upward: base is layer 1, top is layer 4" in fault


@pytest.mark.parametrize("source", ["from ..top import x", "from .. import top", "import p.top as t"])
def test_upward_out_of_a_subpackage_is_not(tmp_path: Path, source: str) -> None:
    (fault,) = faults(tmp_path, package____init__="", package__one=source, top="")
    assert fault.startswith("p/package/one.py:1: imports p.top")
    assert "upward: package is layer 3, top is layer 4" in fault


def test_sideways_is_not(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, left="\nimport p.right", right="")
    assert fault == "p/left.py:2: imports p.right, sideways: left and right are siblings in layer 2"


def test_the_package_itself_imports_nothing(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, __init__="from p.base import x", base="")
    assert "upward: p is layer 0" in fault


def test_a_module_without_a_layer_is_found(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, newcomer="import p.top", top="import p.newcomer")
    assert fault.startswith("p/newcomer: has no place")


def test_circles_inside_a_subpackage_are_found(tmp_path: Path) -> None:
    sources = {"one": "from p.package import two", "two": "from .three import x", "three": "import p.package.one"}
    (fault,) = faults(tmp_path, **{f"package__{name}": source for name, source in sources.items()})
    assert fault.startswith("imports in a circle: p.package.")
    assert fault.count("->") == 3


def test_a_subpackage_that_collects_its_modules_may_not_be_imported_by_them(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, package____init__="from p.package.one import x", package__one="from p.package import y")
    assert fault == "imports in a circle: p.package -> p.package.one -> p.package"


def test_libraries_are_kept_to_their_place(tmp_path: Path) -> None:
    assert not faults(tmp_path, left="from library.part import x")
    (one, two) = faults(tmp_path, right="import library.part\nimport shunned")
    assert one == "p/right.py:1: imports library.part, which is kept to left"
    assert two == "p/right.py:2: imports shunned, which is kept to nobody"


def test_the_core_does_no_io(tmp_path: Path) -> None:
    assert not faults(tmp_path, right="import socket")
    (fault,) = faults(tmp_path, left="from socket import AF_INET")
    assert fault == "p/left.py:1: imports socket: left belongs to the protocol core, which does no I/O"


CONSTANT = [
    "X = 1",
    "X = (1, 'a', b'b', None, -2, 2**64 - 1)",
    "X: int = 1 << 3 | 4",
    "X = frozenset({1, 2})",
    "import struct\nX = struct.Struct('<I')",
    "import logging\nlog = logging.getLogger(__name__)\nlog.info('x')",
    "from typing import Final\nX: Final = {1: 2}",
    "import typing\nX: typing.Final[dict[int, int]] = {1: 2}\ndef f():\n    return X[1], X.get(2)",
    "Buffer = bytes | bytearray\nPair = tuple[int, int]",
    "def f():\n    x = []\n    x.append(1)\n    return x",
    "class C:\n    x = 1\n    y: list\n    def __init__(self):\n        self.y = []",
    "def f(self):\n    self.x = {}\n    self.x[1] = 2",
]
STATE = [
    ("X = []", 1, "X is state"),
    ("X = {}", 1, "X is state"),
    ("X: dict[int, int] = {}", 1, "X is state"),
    ("X = (1, [])", 1, "X is state"),
    ("X = 1 if True else [2]", 1, "X is state"),
    ("X, y = 1, set()", 1, "X, y is state"),
    ("X = dict(a=1)", 1, "X is state"),
    ("X = object()", 1, "X is state"),
    ("X = [n for n in range(3)]", 1, "X is state"),
    ("if True:\n    X = []", 2, "X is state"),
    ("try:\n    pass\nexcept ValueError:\n    X = []", 4, "X is state"),
    ("X = 1\nX += 1", 2, "X is state"),
    ("X = 1\ndef f():\n    global X\n    X = 2", 3, "global X"),
    ("import functools\n@functools.lru_cache(maxsize=None)\ndef f(): pass", 3, "f has a lru_cache"),
    ("from functools import cache\nclass C:\n    @cache\n    def f(self): pass", 4, "f has a cache"),
    ("from typing import Final\nX: Final = {}\ndef f():\n    X[1] = 2", 4, "changes X"),
    ("from typing import Final\nX: Final = []\ndef f():\n    X.append(2)", 4, "changes X"),
    ("from typing import Final\nX: Final = {}\ndel X[1]", 3, "changes X"),
    ("from typing import Final\nX: Final = {}\nX[1] += 1", 3, "changes X"),
    ("def f(): pass\nf.calls = 0", 2, "changes f"),
    ("class C: pass\ndef f():\n    C.count = 1", 3, "changes C"),
    ("class C:\n    x = []", 2, "C.x is shared"),
    ("class C:\n    x: dict = dict()", 2, "C.x is shared"),
]


@pytest.mark.parametrize("source", CONSTANT)
def test_constants_are_allowed(tmp_path: Path, source: str) -> None:
    assert not faults(tmp_path, base=source)


@pytest.mark.parametrize(("source", "line", "what"), STATE)
def test_state_is_not(tmp_path: Path, source: str, line: int, what: str) -> None:
    (fault,) = faults(tmp_path, base=source)
    assert fault.startswith(f"p/base.py:{line}: ")
    assert what in fault


def test_the_tool_fails_and_names_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = tmp_path / "smb3fs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "wire.py").write_text("import trio\nfrom smb3fs import share\n")
    (package / "share.py").write_text("")
    assert main([str(package)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "smb3fs/wire.py:1: imports trio: wire belongs to the protocol core, which does no I/O",
        "smb3fs/wire.py:2: imports smb3fs.share, upward: wire is layer 5, share is layer 11",
    ]
