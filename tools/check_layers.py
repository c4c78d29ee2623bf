#!/usr/bin/env python3
"""Check that the code is layered as it says it is, and that no module has state. Exits with 1 and one line a fault.

    tools/check_layers.py [PACKAGE]

Layers. `LAYERS` below is the order of the package, lowest first. A module or subpackage imports only from rows above
its own; those in one row are siblings and do not import each other. Inside a subpackage modules may import each other,
but not in a circle. An import counts wherever it stands: at the top, in a function, under TYPE_CHECKING. `KEPT_TO` and
`CORE` say the same of code that is not ours: who may know a library, and that the protocol core does no I/O.

State. What a module holds must be a constant:
- no `global`, no cache hung on a function (`functools.cache`, `lru_cache`);
- a module-level name is assigned a value that cannot change (a literal, a tuple of such, an expression of such, or a
  call from `IMMUTABLE`), or else is annotated `Final`;
- nobody changes it in that module: no item or attribute of a name that needed `Final`, and no attribute of a function
  or class, is stored or deleted, and no method from `MUTATORS` is called on such a name;
- a class has no list, dict or set as an attribute of its own, unless that is `Final`: all instances would share it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# The one table of the layers: lowest first, siblings in one row. docs/architecture.md has it as a picture.
LAYERS: Final[Sequence[Sequence[str]]] = (
    ("errors", "option_values", "buffers"),
    ("trace", "credentials", "option_table"),
    ("login_options",),
    ("options",),
    ("wire",),
    ("crypto", "credits", "identity"),
    ("connection",),
    ("channels",),
    ("handles",),
    ("recovery",),
    ("share",),
    ("line",),
    ("cache",),
    ("vfs",),
    ("fuse",),
    ("status", "snapshot"),
    ("mount",),
    ("cli",),
)
# Who may import what is not ours; a library that is not named here may be used anywhere.
KEPT_TO: Final[Mapping[str, Sequence[str]]] = {
    "cryptography": ("crypto",),
    "spnego": ("channels",),
    "pyfuse3": ("fuse",),
    "netifaces": ("channels",),
    "asyncio": (),
}
# The protocol core, and what it must not know: bytes in, events out, no socket, no clock, no event loop.
CORE: Final = ("wire", "crypto", "credits", "connection")
NOT_IN_CORE: Final = ("trio", "socket", "select", "selectors", "ssl", "subprocess", "time")

IMMUTABLE: Final = frozenset(
    "bool bytes compile float frozenset getLogger int len MappingProxyType max min NewType pack"  # noqa: SIM905
    " ParamSpec range slice str Struct sum tuple TypeVar".split()
)
MUTATORS: Final = frozenset(
    "add append appendleft clear difference_update discard extend extendleft insert pop popitem"  # noqa: SIM905
    " intersection_update popleft remove reverse rotate setdefault sort symmetric_difference_update update".split()
)
CACHES: Final = frozenset({"cache", "lru_cache"})
CONTAINERS: Final = frozenset({"bytearray", "Counter", "defaultdict", "deque", "dict", "list", "OrderedDict", "set"})
DISPLAYS: Final = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)


@dataclass(frozen=True, slots=True)
class Rules:
    """What one package has to obey."""

    layers: Sequence[Sequence[str]] = LAYERS
    kept_to: Mapping[str, Sequence[str]] = field(default_factory=lambda: KEPT_TO)
    core: Sequence[str] = CORE
    not_in_core: Sequence[str] = NOT_IN_CORE


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: its dotted name, how it is shown, and its syntax tree."""

    name: str
    shown: str
    is_package: bool
    tree: ast.Module

    @property
    def unit(self) -> str:
        """The module or subpackage that the table of layers knows it by; "" for the package's own `__init__`."""
        return unit_of(self.name)


def unit_of(name: str) -> str:
    """Return the second part of a dotted name."""
    return name.split(".")[1] if "." in name else ""


def read(package: Path) -> dict[str, Module]:
    """Parse every module of a package."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        shown = str(path.relative_to(package.parent))
        modules[name] = Module(name, shown, is_package, ast.parse(path.read_text(), shown))
    return modules


def imports(module: Module, modules: Mapping[str, Module]) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that a module imports; a submodule rather than the package around it."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                around = module.name.split(".")
                around = around[: len(around) - node.level + module.is_package]
                base = ".".join([*around, base] if base else around)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in modules else base


def check_layers(modules: Mapping[str, Module], rules: Rules) -> Iterator[str]:
    """Yield a line for each import that the layers forbid, and for each circle inside a subpackage."""
    package = min(modules, default="").split(".")[0]
    rank = {unit: number for number, row in enumerate(rules.layers, 1) for unit in row}
    for unit in sorted({module.unit for module in modules.values()} - rank.keys() - {""}):
        yield f"{package}/{unit}: has no place in the table of layers (tools/check_layers.py)"
    inside: dict[str, list[str]] = {}
    for module in modules.values():
        own = rank.get(module.unit, 0)
        for line, target in imports(module, modules):
            unit, top = unit_of(target), target.split(".")[0]
            where = f"{module.shown}:{line}: imports {target}"
            if top != package:
                yield from _check_foreign(where, top, module.unit, rules)
            elif unit == module.unit:
                inside.setdefault(module.name, []).append(target)
            elif unit not in rank or (module.unit and not own):
                continue  # the package itself, or what has no place and was reported above
            elif rank[unit] == own:
                yield f"{where}, sideways: {module.unit} and {unit} are siblings in layer {own}"
            elif rank[unit] > own:
                yield f"{where}, upward: {module.unit or package} is layer {own}, {unit} is layer {rank[unit]}"
    for circle in circles(inside):
        yield "imports in a circle: " + " -> ".join(circle)


def _check_foreign(where: str, top: str, unit: str, rules: Rules) -> Iterator[str]:
    """Yield a line where a module knows a library that it must not know."""
    if top in rules.kept_to and unit not in rules.kept_to[top]:
        yield f"{where}, which is kept to {', '.join(rules.kept_to[top]) or 'nobody'}"
    if unit in rules.core and top in rules.not_in_core:
        yield f"{where}: {unit} belongs to the protocol core, which does no I/O"


def circles(graph: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return circles of a graph, at least one for each set of nodes that reach each other."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            for target in graph.get(node, ()):
                visit(target, [*path, node])
            done.add(node)

    for node in sorted(graph):
        visit(node, [])
    return found


def _called(node: ast.expr) -> str:
    """Return the last part of the name that a call or a decorator names."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_constant(node: ast.expr) -> bool:
    """Whether the value of an expression cannot change."""
    if isinstance(node, ast.Call):
        return _called(node) in IMMUTABLE
    if isinstance(node, (*DISPLAYS, ast.Await, ast.NamedExpr)):
        return False
    if isinstance(node, (ast.Subscript, ast.Lambda)):  # an alias of a type, or a part of something; a function
        return True
    return all(is_constant(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))


def is_final(annotation: ast.expr) -> bool:
    """Whether an annotation is `Final`, `Final[...]`, `ClassVar[Final...]` or `TypeAlias`."""
    return any(
        isinstance(node, (ast.Name, ast.Attribute)) and _called(node) in ("Final", "TypeAlias")
        for node in ast.walk(annotation)
    )


def statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module or class, with those under its `if`, `try`, `with` and loops."""
    for statement in body:
        yield statement
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for child in ast.iter_child_nodes(statement):
                if isinstance(child, ast.stmt):
                    yield from statements([child])
                elif isinstance(child, ast.ExceptHandler):
                    yield from statements(child.body)


def assignments(body: Sequence[ast.stmt]) -> Iterator[tuple[int, list[str], ast.expr, bool]]:
    """Yield line, names, value and whether it is declared Final, of each assignment in a module or class."""
    for node in statements(body):
        if isinstance(node, ast.Assign):
            names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            yield node.lineno, names, node.value, False
        elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
            yield node.lineno, [node.target.id], node.value, is_final(node.annotation)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            yield node.lineno, [node.target.id], ast.List([]), False  # a constant would not be changed


def check_state(module: Module) -> Iterator[str]:
    """Yield a line for each thing at module level that can change."""
    watched: set[str] = set()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    definitions = {node.name for node in module.tree.body if isinstance(node, kinds)}
    for line, names, value, final in assignments(module.tree.body):
        if not is_constant(value):
            watched.update(names)
            if not final:
                yield f"{module.shown}:{line}: {', '.join(names)} is state of the module: make it a constant, or Final"
    for node in ast.walk(module.tree):
        where = f"{module.shown}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Global):
            yield f"{where}: global {', '.join(node.names)}"
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for name in {_called(decorator) for decorator in node.decorator_list} & CACHES:
                yield f"{where}: {node.name} has a {name}, which is state of the module"
        elif isinstance(node, ast.ClassDef):
            for line, names, value, final in assignments(node.body):
                if not final and (isinstance(value, DISPLAYS) or _called(value) in CONTAINERS):
                    yield f"{module.shown}:{line}: {node.name}.{', '.join(names)} is shared by all instances"
        elif (_stored_into(node) in watched | definitions) or (_mutated(node) in watched):
            yield f"{where}: changes {_stored_into(node) or _mutated(node)}, which is a constant of the module"


def _stored_into(node: ast.AST) -> str:
    """Return the name whose item or attribute a node stores or deletes, or ""."""
    if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        return node.value.id if isinstance(node.value, ast.Name) else ""
    return ""


def _mutated(node: ast.AST) -> str:
    """Return the name on which a node calls a method that changes a container, or ""."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        return node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    return ""


def check(package: Path, rules: Rules | None = None) -> list[str]:
    """Return one line for each fault of a package."""
    modules = read(package)
    faults = list(check_layers(modules, rules or Rules()))
    for module in modules.values():
        faults += check_state(module)
    return faults


def main(arguments: Sequence[str]) -> int:
    """Check the package named, or the one beside this folder."""
    package = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1] / "smb3fs"
    faults = check(package)
    print("\n".join(faults) or f"{package.name}: layers and constants are as they should be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
