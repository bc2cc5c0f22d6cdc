"""CONTRIBUTING.md shows the code as it is, and names files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from converter.folding import ops

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_example_of_an_op_is_the_file() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert example == (ROOT / "converter/folding/ops/recurrent.py").read_text(encoding="utf-8")


def test_each_file_of_ops_with_a_rule_is_in_the_tables() -> None:
    """A file that nobody puts there would be no error anywhere else."""
    found = {rule.__module__ for table in (ops.BACKWARD, ops.FORWARD) for rule in table.values()}
    folder = ROOT / "converter/folding/ops"
    shared = {"__init__", "linear", "operands"}
    assert {
        f"{ops.__name__}.{path.stem}" for path in folder.glob("*.py") if path.stem not in shared
    } == found


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(folding/[\w/.]+)`", TEXT))))
def test_what_it_names_of_the_fold_is_there(name: str) -> None:
    assert (ROOT / "converter" / name).exists()
