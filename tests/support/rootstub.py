"""The stub of the public root, made of the table in ``cimlayer/__init__.py``.

``python -m support.rootstub`` in ``tests`` writes it.
"""

from __future__ import annotations

import cimlayer
from support import ROOT

PATH = ROOT / "python" / "cimlayer" / "__init__.pyi"


def text() -> str:
    lines = ["# Made by tests/support/rootstub.py of the table in __init__.py."]
    for module, names in cimlayer._MODULES.items():  # type: ignore[attr-defined]
        lines += [f"from {module} import (", *(f"    {name}," for name in names), ")"]
    lines += ["", "__version__: str", "__all__ = [", *(f'    "{name}",' for name in cimlayer.__all__), "]"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), "utf-8")
