"""All verbs on one share."""

from smb3fs.share.files import Files
from smb3fs.share.names import Names


class Share(Files, Names):
    """The verbs on one share, as `vfs.backend.ShareVerbs` asks for them."""
