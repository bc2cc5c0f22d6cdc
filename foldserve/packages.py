"""Our packages, from where this one lies: `service` and `converter` are common names.

A folder `service` of the user's may come first on the path, by PYTHONPATH or by the current
folder. Once ours is imported, its modules are found by it.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

_HOME = Path(__file__).resolve().parents[1]


def ours(name: str) -> bool:
    """Import a package from beside this one, whatever else has its name; False without one."""
    if name in sys.modules:
        return True
    spec = PathFinder.find_spec(name, [str(_HOME)])
    if spec is None or spec.loader is None:
        return False
    module: Any = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return True


def service() -> None:
    """`ours("service")` in a program that may have a `service` of its own.

    Raises:
        ImportError: the program has imported that one, so ours cannot have its name.
    """
    if not ours("service"):
        raise ImportError("The package `service` of foldserve is missing: install foldserve again.")
    file = getattr(sys.modules["service"], "__file__", None)
    if file is None or Path(file).resolve().parents[1] != _HOME:
        raise ImportError(
            f"This program has a package `service` of its own ({file or 'a folder'}), and that of "
            "foldserve has the same name. Give yours another one, or run foldserve in a process "
            "of its own: foldserve serve."
        )
