"""Workers that die, that fall silent, that do not start: none of it hangs the one who asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import workers
from benchmarks.workers import answers

PROGRAM = """
import json, os, sys, time
print(json.dumps({"at": "started"}), flush=True)
for line in sys.stdin:
    number = int(line)
    print(json.dumps({"at": f"doing {number}"}), flush=True)
    if number == 3:
        os.abort()
    if number == 5:
        time.sleep(600)
    print(json.dumps({"done": number * number}), flush=True)
"""


def test_a_task_over_which_a_worker_dies_or_falls_silent_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "SILENCE", 3.0)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = dict(answers([str(program)], 8, 2, block=3))
    assert found.pop(3) == {"died": "doing 3"}
    assert found.pop(5) == {"died": "doing 5"}
    assert found == {number: {"done": number * number} for number in (0, 1, 2, 4, 6, 7)}


def test_a_program_that_does_not_start_is_the_end(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit(1)")
    with pytest.raises(RuntimeError, match="does not start"):
        list(answers([str(program)], 8, 2))
