"""File verbs on the mounted tree, by what they are about; each is a chain of requests."""
