"""Drivers: what connects the filesystem's verbs to the kernel, and the only code that knows how."""
