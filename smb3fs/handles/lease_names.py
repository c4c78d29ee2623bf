"""The leases of one line by the names of their files."""

from __future__ import annotations

from smb3fs.handles.lease import Lease


class LeaseNames:
    """Finds a lease by the path under which it was granted, in whatever letters the server takes for the same."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Lease]] = {}

    def find(self, path: str, file_id: int | None = None) -> Lease | None:
        """Return the lease on the file at a path, if there is one; another spelling is found by the file's number."""
        spelled = None
        for lease in self._by_name.get(path.casefold(), ()):
            if lease.path == path and (file_id is None or lease.file_id in (0, file_id)):
                return lease
            if file_id and lease.file_id == file_id:
                spelled = lease
        return spelled

    def enter(self, lease: Lease) -> None:
        """Have a lease found by its path, before any other that was."""
        self._by_name.setdefault(lease.path.casefold(), []).insert(0, lease)

    def leave(self, lease: Lease) -> None:
        """Have a lease not found by its path any more."""
        name = lease.path.casefold()
        others = [other for other in self._by_name.get(name, ()) if other is not lease]
        if others:
            self._by_name[name] = others
        else:
            self._by_name.pop(name, None)
