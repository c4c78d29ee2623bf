"""What the answers about an open show after a loss: whether it may go on by its name, and what its loss would cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from smb3fs.handles.attributes import FileAttributes
from smb3fs.handles.opens import Durability, Open
from smb3fs.handles.renamed import names_of
from smb3fs.wire.create import CreateOptions, CreateResponse
from smb3fs.wire.lease import LeaseState

# As an int: arithmetic with enum's flags costs microseconds.
WRITE: Final = int(LeaseState.WRITE)


def scouts(handles: Sequence[Open], now: float, *, most: int, within: float) -> tuple[Sequence[Open], Sequence[Open]]:
    """Return those, `most` of them, that are claimed ahead of the others, if there are enough others, and these others.

    What it harms least to lose comes first, within so many seconds.
    """
    kept = [one for one in handles if one.durability == Durability.PERSISTENT and not (one.closed or one.moving_to)]
    kept = [one for one in kept if names_of(one) is None]
    if len(kept) <= most:
        return (), ()
    # What others may have changed, as they may whatever we have no lease to write of, may not be opened anew either.
    kept.sort(
        key=lambda one: (
            -min(within, one.timers.next(now)),
            bool(unprovable(one)),
            not was_ours_alone(one),
            one.writable,
            one.path,
        )
    )
    return kept[:most], kept[most:]


def was_ours_alone(handle: Open) -> bool:
    """Whether nobody else can have had an open's file open when the connection was lost."""
    return handle.lease is not None and bool((handle.lease.kept | handle.lease.state) & WRITE)


def sure_to_be_kept(handle: Open) -> bool:
    """Whether the server has promised to keep an open for good, or nobody else could have had the file open."""
    if handle.closed:
        return False
    alone = handle.lease is not None and bool(handle.lease.kept & WRITE)
    return handle.durability == Durability.PERSISTENT or (bool(handle.durability) and alone)


def unprovable(handle: Open) -> str:
    """Return why it could not be proved that the file behind an open is the same, or nothing."""
    if handle.in_doubt:
        return "nobody knows what became of a change"
    if handle.ledger is not None and handle.ledger.pieces:
        return "others may have had what it had locked"
    if handle.request.create_options & CreateOptions.DELETE_ON_CLOSE:
        return "its file was to be deleted"
    if handle.request.create_options & CreateOptions.DIRECTORY_FILE:
        return "the server has forgotten how far its listing had come"
    if not all(state_of(handle.seen)):
        return "the server has not told what it was like after the last change"
    return ""


def state_of(seen: FileAttributes) -> tuple[int, int, int, int]:
    """Return what shows whether two answers are about the same contents; times are 0 where they are not known."""
    # The size of an empty file is as good as any other.
    return seen.file_id, seen.size + 1, seen.modified, seen.changed


def updated(seen: FileAttributes, told: CreateResponse) -> FileAttributes:
    """Return what is known of a file after an answer to CREATE."""
    now = FileAttributes.from_create(told, seen.file_id, seen.links)
    return seen._replace(
        size=now.size, allocation=now.allocation, accessed=now.accessed, modified=now.modified, changed=now.changed
    )
