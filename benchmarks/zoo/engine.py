"""Which converter a row was made with: hashes of sources.

The engine is what decides a fold and its proof, the checker what decides a certificate: so rows are
certified again alone, without being folded and proven again, where only the checker has changed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from converter.certificate.identity import checker_sha256

SOURCE = Path(__file__).parents[2] / "converter"
# What a stage calls. What these import counts as well; training, commands, reports do not.
ROOTS = (
    "pipeline.py",
    "files/onnx_file.py",
    "sources/arch.py",
    "sources/module.py",
    "sources/onnx_.py",
)
CHECKER = "certificate"


def version(source: Path = SOURCE, roots: Sequence[str] = ROOTS) -> str:
    """Twelve digits that change when a file that decides a fold or its proof does."""
    digest = hashlib.sha256()
    for path in deciding(source, roots):
        digest.update(path.relative_to(source).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def checker() -> str:
    """Twelve digits that change when a file that decides a certificate does."""
    return checker_sha256()[:12]


def deciding(source: Path = SOURCE, roots: Sequence[str] = ROOTS) -> list[Path]:
    """`roots` and what they import of `source`, at the top or inside of a function, sorted.

    The `__init__` of `source` itself is left out: it only says where things are. So is the checker.
    """
    waiting, found = [source / root for root in roots], set[Path]()
    while waiting:
        path = waiting.pop()
        if path in found or path.is_relative_to(source / CHECKER):
            continue
        found.add(path)
        for module in _imported(path, source):
            base = source.joinpath(*module)
            # A package runs its __init__ on the way to what lies in it.
            packages = [source.joinpath(*module[:depth]) for depth in range(1, len(module) + 1)]
            files = [package / "__init__.py" for package in packages]
            waiting += [file for file in (base.with_suffix(".py"), *files) if file.is_file()]
    return sorted(found)


def _imported(path: Path, source: Path) -> Iterator[list[str]]:
    """Dotted names under the package `source`, without its own: modules, or names in them."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        for name in names:
            package, *inside = name.split(".")
            if package == source.name and inside:
                yield inside
