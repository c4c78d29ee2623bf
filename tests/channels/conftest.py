"""Passwords for the peer's end of a login."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the peer know the one user."""
    file = tmp_path / "users"
    file.write_text("DOM:alice:s3cret\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(file))
