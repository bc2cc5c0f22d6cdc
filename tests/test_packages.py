"""Each package's attributes are what an import says they are, and imports run down the floors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, walk_packages
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [
    found.name
    for root in ("converter", "service", "experiments", "patterns")
    for found in [
        *iter_modules([str(ROOT)]),
        *walk_packages([str(ROOT / root)], f"{root}."),
    ]
    if found.ispkg and found.name.split(".")[0] == root
]


def test_all_packages_are_walked() -> None:
    assert {"converter", "converter.folding.sites", "service", "service.models"} <= {*PACKAGES}


@pytest.mark.parametrize("name", PACKAGES)
def test_no_package_shadows_its_own_module(name: str) -> None:
    """`import a.b.c as c` gives the module c, not a function of that name that a.b exports."""
    package = import_module(name)
    modules = {found.name for found in iter_modules(package.__path__)}
    exported = {n for n in getattr(package, "__all__", ()) if not _is_module(package, n)}
    assert not modules & exported
    for module in modules & {*dir(package)}:
        assert _is_module(package, module), f"{name}.{module} is no module"


def _is_module(package: ModuleType, name: str) -> bool:
    found = getattr(package, name)
    return isinstance(found, ModuleType) and found.__name__ == f"{package.__name__}.{name}"


# Each room may import those of the rows in front of it, and none of its own row.
FLOORS = (
    {"errors"},
    {"system"},
    {"files"},
    {"graph", "certificate"},
    {"evaluation", "folding"},
    {"architectures"},
    {"sources"},
    {"proof"},
    {"pipeline"},
    {"publishing"},
    {"report"},
    {"training"},
    {"statistics"},
    {"finetuning"},
    {"commands"},
    {"cli"},
)


def test_every_room_has_a_floor() -> None:
    there = {found.name for found in iter_modules([str(ROOT / "converter")])} - {"__main__"}
    assert there == set[str]().union(*FLOORS)


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_nothing_is_imported_from_above(floor: int) -> None:
    below = set[str]().union(*FLOORS[:floor])
    for room in FLOORS[floor]:
        for file, other in _imports(room):
            assert other in {*below, room}, f"{file} imports converter.{other}"


def _imports(room: str) -> Iterator[tuple[Path, str]]:
    """The rooms of the converter that the files of one room import, wherever in the file."""
    place = ROOT / "converter" / room
    for file in place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for name in _imported(node):
                package, _, rest = name.partition(".")
                if package == "converter" and rest:
                    yield file, rest.split(".")[0]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.module == "converter":
        return [f"converter.{alias.name}" for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
