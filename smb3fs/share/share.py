"""All verbs on one share."""

from smb3fs.share.metadata import Metadata
from smb3fs.share.names import Names
from smb3fs.share.posix import Posix
from smb3fs.share.regaining import Regaining
from smb3fs.share.reopening import Reopening
from smb3fs.share.serverside import ServerSide
from smb3fs.share.snapshots import Snapshots
from smb3fs.share.space import Space
from smb3fs.share.streams import Streams
from smb3fs.share.unheard import Unheard


class Share(Posix, Names, Space, Metadata, Streams, Snapshots, Reopening, ServerSide, Unheard, Regaining):
    """The verbs on one share, as `vfs.backend.ShareVerbs` asks for them."""
