"""Records on disk: the same again, or a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter.errors import UserError
from experiments.records import Folder, thin
from experiments.settings import Settings
from tests.experiments.made import record


def test_a_record_survives(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "runs")
    folder.prepare()
    made = record(Settings(recalibrate=True), recalibrated=0.8, diverged=3)
    assert folder.read(made.settings) is None
    folder.write(made)
    assert folder.read(made.settings) == made
    assert folder.read_all([Settings(lr=0.5), made.settings]) == [made]
    assert [path.name for path in folder.path.iterdir()] == [f"{made.settings.key}.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": "foldserve.run/0"}',
        '{"format": "foldserve.run/1", "settings": 3}',
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    folder = Folder(tmp_path)
    folder.file(Settings()).write_text(content)
    with pytest.raises(UserError, match="not a record of a run") as raised:
        folder.read(Settings())
    assert "remove it" in raised.value.hint


def test_a_record_of_another_run_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(record(Settings()))
    folder.file(Settings()).rename(folder.file(Settings(lr=0.5)))
    with pytest.raises(UserError, match="another run"):
        folder.read(Settings(lr=0.5))


@pytest.mark.parametrize("key", ["losses", "validations", "layers", "settings"])
def test_a_damaged_part_is_refused(tmp_path: Path, key: str) -> None:
    folder = Folder(tmp_path)
    content = record(Settings()).to_json()
    content[key] = [["a", 1]]
    folder.file(Settings()).write_text(json.dumps(content))
    with pytest.raises(UserError, match="not a record of a run"):
        folder.read(Settings())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        Folder(tmp_path / "file" / "runs").prepare()


def test_what_a_record_tells() -> None:
    made = record(Settings(), [0.1, 0.9, 0.95, 0.95, 0.7], train=0.8)
    assert made.accuracy == 0.7
    assert made.best == 0.95
    assert made.best_step == 20
    assert made.steps_to(0.9) == 10
    assert made.steps_to(0.99) is None
    assert made.gap == pytest.approx(0.1)


def test_losses_are_thinned_to_means() -> None:
    assert thin([1.0, 3.0, 5.0, 7.0, 9.0], most=3) == ((2, 2.0), (4, 6.0), (5, 9.0))
    assert thin([1.0, 3.0], most=3) == ((1, 1.0), (2, 3.0))
    assert thin([]) == ()
