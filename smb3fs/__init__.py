"""smb3fs: a userspace filesystem that mounts SMB3 shares and keeps them mounted."""
