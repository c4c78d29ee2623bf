"""The bench: smb3fs beside other userspace SMB clients, in turn, on the same server (entry point: tools/bench)."""
