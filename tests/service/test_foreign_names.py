"""The service stands on what other packages offer, and on nothing that they keep for themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Ray has no setting for the address of a replica's own port.
EXCEPTIONS = {("service/cluster/application.py", "ray.serve._private")}
FILES = sorted((ROOT / "service").rglob("*.py"))


def private(name: str) -> bool:
    return any(p.startswith("_") and not p.startswith("__") for p in name.split("."))


def foreign(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What a file imports from other packages: the name that it has there, and its own for it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            for alias in node.names:
                yield f"{node.module}.{alias.name}", alias.asname or alias.name


def uses(tree: ast.AST) -> Iterator[str]:
    """The private names of other packages that a file uses; `os._exit` is documented."""
    others = {own: name for name, own in foreign(tree) if not name.startswith("service")}
    for name in others.values():
        if private(name):
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr != "_exit":
            inner = node.value
            while isinstance(inner, ast.Attribute):
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in others:
                yield f"{others[inner.id]}.{node.attr}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_private_name_of_another_package(file: Path):
    path = str(file.relative_to(ROOT))
    found = list(uses(ast.parse(file.read_text(encoding="utf-8"))))
    assert [n for n in found if not any(path == p and n.startswith(x) for p, x in EXCEPTIONS)] == []


def test_the_connection_is_none_of_uvicorns():
    for file in (ROOT / "service" / "connections").glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert not [name for name, _ in foreign(tree) if name.startswith("uvicorn.protocols")]


def test_what_is_found():
    text = "import a.b\nfrom c import d\nfrom service import e\nfrom f import _g\n"
    text += "a.b._h()\nd._i\ne._j\nself._k\nd.l.__class__\n"
    assert sorted(uses(ast.parse(text))) == ["a.b._h", "c.d._i", "f._g"]
