"""Suites: what Linux programs may expect of a filesystem, tried on real mounts of a real server."""
