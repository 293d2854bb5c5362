"""Targets in Python. Each module has ``seeds``, and ``run``, which raises if an input breaks what is promised."""
