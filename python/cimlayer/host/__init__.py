"""The operating system below us, POSIX and Windows side by side."""
