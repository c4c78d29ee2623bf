"""SMB2/SMB3 messages: bytes to values and back, and nothing else ([MS-SMB2] 2.2, [MS-FSCC] 2)."""
