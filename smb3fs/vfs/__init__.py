"""The filesystem's verbs on plain types: inodes, names, open files, deadlines, and the one wall before the kernel."""
