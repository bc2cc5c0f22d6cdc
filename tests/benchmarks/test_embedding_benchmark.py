"""The benchmark of calls in one process: what it calls, and how it counts."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.embedding import costs, interleaved, main, posted


def test_the_calls_take_turns() -> None:
    called: list[str] = []
    calls = {name: (lambda name=name: called.append(name)) for name in ("raw", "a", "b")}
    took = asyncio.run(interleaved(calls, rounds=3))
    assert {name: len(times) for name, times in took.items()} == {"raw": 3, "a": 3, "b": 3}
    rounds = [called[at : at + 6] for at in range(len(called) - 18, len(called), 6)]
    for each in rounds:
        assert each[::2] == each[1::2], "twice in a row"
        assert sorted(each[::2]) == ["a", "b", "raw"]
    assert len({tuple(each) for each in rounds}) > 1


def test_what_a_call_costs_is_the_median_of_the_differences_within_a_round() -> None:
    found = {c.name: c for c in costs({"raw": [10.0, 100.0, 20.0], "a": [13.0, 104.0, 25.0]})}
    assert found["a"].median_us == 25.0
    assert found["a"].over_us[1] == 4.0
    assert found["raw"].over_us == (0.0, 0.0, 0.0)


def test_it_measures_time() -> None:
    calls = {"raw": lambda: time.sleep(0.002), "later": lambda: asyncio.sleep(0.002)}
    took = asyncio.run(interleaved(calls, rounds=2))
    assert min(took["raw"]) >= 2000
    assert min(took["later"]) >= 1900, "what has to be awaited is"


def test_the_shipped_model_has_a_line_for_each_way(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rounds", "5", "--rows", "1", "3"])
    out = capsys.readouterr().out
    assert re.findall(r"^mnist, (\d+) rows", out, re.MULTILINE) == ["1", "3"]
    ways = re.findall(r"^  (\w.*?) +[\d.]+ +[+-][\d.]+ +\(", out, re.MULTILINE)
    assert ways == ["raw", "predictor", "mounted, bytes", "mounted, JSON"] * 2


def test_a_file_by_itself_is_measured_too(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(__file__).parents[2] / "models" / "mnist" / "1" / "model.onnx"
    main([str(file), "--rounds", "3", "--rows", "2", "--clock", "processor"])
    assert "model.onnx, 2 rows" in capsys.readouterr().out


def test_an_error_is_no_figure() -> None:
    async def refuses(scope: object, receive: object, send: Callable[..., Any]) -> None:
        await send({"type": "http.response.start", "status": 400})
        await send({"type": "http.response.body", "body": b"no"})

    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(posted(refuses, b"", b"application/json"))
