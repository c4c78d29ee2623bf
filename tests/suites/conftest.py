"""The suites run on mounts of the live tests' lab, in each configuration that the server offers.

The name of the configuration is part of a test's name, so an expected failure (expected_failures.toml) says for which
one it is expected.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lab.mounting import Mount
from lab.server import Samba
from live.conftest import (  # noqa: F401 (fixtures)
    Mounter,
    Work,
    _hang_guard,
    _terminate_like_interrupt,
    every_mount,
    mark_live,
    mounted,
    own_samba,
    samba,
)

from .configurations import CONFIGURATIONS, Configuration
from .expected import LIST, Expectation, read, unmatched, version_of

HERE = Path(__file__).parent
EXPECTATIONS = pytest.StashKey[list[Expectation]]()


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """The suites run where their path is given, as tools/test does: a plain `pytest` is to be over soon."""
    return None if any("suites" in argument for argument in config.args) else True


def smbd_version() -> tuple[int, ...]:
    """The version of the Samba that the lab runs; nothing where there is none."""
    root = os.environ.get("SMB3FS_SAMBA_ROOT", "")
    command = [*(["chroot", root] if root else []), "smbd", "--version"]
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    with suppress(OSError):
        return version_of(subprocess.run(command, capture_output=True, text=True, env=environment).stdout)
    return ()


@pytest.hookimpl(tryfirst=True)  # before -k and -m thin the tests out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the suites as live tests, and those that are expected to fail; an entry for no test at all is an error."""
    mark_live(HERE, items)
    ours = {item: item.nodeid.partition("tests/suites/")[2] for item in items if HERE in item.path.parents}
    expectations = read(LIST.read_text())
    version = smbd_version() if ours else ()
    for item, name in ours.items():
        fitting = (expectation for expectation in expectations if expectation.matches(name))
        expectation = next((expectation for expectation in fitting if expectation.applies(version)), None)
        if expectation is not None:
            item.stash[EXPECTATIONS] = [expectation]
            item.add_marker(pytest.mark.xfail(strict=True, reason=expectation.reason))
    # Where what has failed is run once more, the other tests of its files are not collected.
    if not any("::" in argument for argument in config.args) and not config.getoption("lf", default=False):
        wrong = unmatched(expectations, ours.values())
        if wrong:
            raise pytest.UsageError(f"{LIST.name} has entries for no test: {', '.join(wrong)}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """An expected failure must also be the one that the list describes."""
    outcome = yield
    report = outcome.get_result()
    for expectation in item.stash.get(EXPECTATIONS, []):
        if call.when == "call" and call.excinfo is not None and report.skipped:
            error = call.excinfo.value
            seen = f"{call.excinfo.typename} {errno.errorcode.get(getattr(error, 'errno', None) or 0, '')}: {error}"
            if expectation.shows not in seen:
                report.outcome = "failed"
                report.longrepr = f"expected to fail with {expectation.shows!r}, and failed otherwise: {seen}"
                del report.wasxfail


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=lambda configuration: configuration.name)
def configuration(request: pytest.FixtureRequest) -> Configuration:
    """How the share is mounted, each way in turn."""
    chosen: Configuration = request.param
    return chosen


@pytest.fixture(scope="module")
def mount(configuration: Configuration, samba: Samba, every_mount: list[Mount]) -> Iterator[Mount]:  # noqa: F811
    """A mount in this configuration for the tests of one module."""
    made = Mounter(samba, every_mount)
    try:
        lacks = configuration.lacks(samba)
        if lacks:
            pytest.skip(lacks)
        yield made(*configuration.options)
    finally:
        made.finish()


@pytest.fixture
def work(mount: Mount, samba: Samba) -> Iterator[Work]:  # noqa: F811
    """A new directory on the module's mount."""
    name = f"work-{os.urandom(4).hex()}"
    behind = samba.directory() / name
    (mount.path / name).mkdir()
    yield Work(mount.path / name, behind, name)
    # What was open when it was unlinked goes with a close that may be on its way.
    while behind.exists():
        shutil.rmtree(behind, ignore_errors=True)
