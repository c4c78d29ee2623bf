"""The lab: a private Samba in a network namespace, and mounts of it, for the tests and the tools.

Importable as `lab` with this folder's parent (tools/) on sys.path; `tools/lab/samba.py` is the same from a shell.
Everything a lab makes carries its owner's process id, so that `lab.leftovers.clean` can tell what a crash left.
"""
