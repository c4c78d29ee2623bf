"""The commands: argument lists, exit codes, the terminal, the daemon's birth."""
