"""The log goes to syslog without ever waiting for it."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smb3fs.cli import logs
from smb3fs.cli.logs import SyslogHandler


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[SyslogHandler]:
    made = SyslogHandler(str(tmp_path / "log"))
    yield made
    made.close()


def daemon(tmp_path: Path) -> socket.socket:
    """Something that listens where syslog does."""
    (tmp_path / "log").unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "log"))
    made.settimeout(5)
    return made


def record(text: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("smb3fs", level, "", 0, "%s", (text,), None)


def test_records_are_datagrams_of_rfc_3164(handler: SyslogHandler, tmp_path: Path) -> None:
    with daemon(tmp_path) as syslog:
        for level, priority in ((logging.ERROR, 27), (logging.WARNING, 28), (logging.INFO, 30), (logging.DEBUG, 31)):
            handler.handle(record("hé\udcff", level))
            assert syslog.recv(1000) == f"<{priority}>smb3fs[{os.getpid()}]: hé\\udcff".encode()
        handler.handle(record("one\ntwo"))
        assert [syslog.recv(1000).rpartition(b" ")[2] for _ in range(2)] == [b"one", b"two"]


def test_a_log_daemon_that_is_away_or_restarts(handler: SyslogHandler, tmp_path: Path) -> None:
    handler.handle(record("lost"))
    for text in ("first", "second"):
        with daemon(tmp_path) as syslog:
            handler.handle(record(text))
            assert syslog.recv(1000).endswith(text.encode())
        handler.handle(record("lost too"))


def test_a_log_daemon_that_does_not_read_is_not_waited_for(handler: SyslogHandler, tmp_path: Path) -> None:
    with daemon(tmp_path) as syslog:
        for number in range(5000):  # a socket's queue holds some hundreds
            handler.handle(record(str(number)))
        assert syslog.recv(1000).endswith(b": 0")
    assert len(os.listdir("/proc/self/fd")) < 500


def test_the_terminal_shows_what_was_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, package = logging.getLogger(), logging.getLogger("smb3fs")
    before, level = list(root.handlers), package.level
    monkeypatch.setattr(root, "handlers", [])
    try:
        logs.log_to_terminal("mount.smb3fs", logging.INFO)
        logging.getLogger("smb3fs.share").info("it %s", "works")
        logging.getLogger("smb3fs.share").debug("not asked for")
        assert capsys.readouterr().err == "mount.smb3fs: it works\n"
        logs.log_to_terminal("mount.smb3fs", logging.CRITICAL)
        logging.getLogger("smb3fs.share").info("quiet now")
        assert capsys.readouterr().err == ""
        assert len(root.handlers) == 1
        logs.log_to_syslog(logging.INFO)
        assert isinstance(root.handlers[0], SyslogHandler)
        root.handlers[0].close()
    finally:
        package.setLevel(level)
    monkeypatch.undo()
    assert root.handlers == before
    assert sys.stderr is not None
