"""Real mounts on a real Samba; see tools/lab."""
