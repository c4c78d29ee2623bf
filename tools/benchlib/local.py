"""The directory of the share itself, as the server has it: what the same work costs without a network filesystem."""

from __future__ import annotations

from pathlib import Path

from benchlib.clients import MountedClient


class LocalDisk(MountedClient):
    """No client at all."""

    name = "local-disk"

    @property
    def settings(self) -> str:
        """What it stands for."""
        return "the share's own directory, in memory"

    @property
    def mountpoint(self) -> Path:
        """The directory itself."""
        return self.server.directory()

    def start(self) -> None:
        """It is there already."""

    def stop(self) -> None:
        """It stays."""

    def kill(self) -> None:
        """There is no process."""

    def pids(self) -> list[int]:
        """Nobody."""
        return []
