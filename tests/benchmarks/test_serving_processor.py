"""What a request takes of the processor: the table, and a service and a floor that are asked."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving import client, floor, models, processor
from benchmarks.serving.peers import foldserve
from benchmarks.serving.processor import Taken
from benchmarks.serving.running import Failed, Server, free_ports


def taken(peer: str, route: str, *us: float) -> Taken:
    return Taken(peer, route, us, tuple(1e6 / each for each in us))


def test_a_goal_is_kept_by_the_median_of_the_rounds() -> None:
    found = [
        taken("foldserve", "v2-binary", 25.0, 30.0, 90.0),
        taken("floor", "v2-binary", 5.0, 7.0, 6.0),
        taken("foldserve", "json", 59.0, 61.0, 62.0),
        taken("floor", "json", 8.0, 8.0, 8.0),
    ]
    lines = processor.text(found, 3, 5).splitlines()
    assert lines[2] == "| v2-binary | 30.0 | 25.0 | 30 | yes | 6.0 | 33,333 | 166,667 |"
    assert lines[3] == "| json | 61.0 | 59.0 | 60 | no | 8.0 | 16,393 | 125,000 |"


@pytest.mark.slow
def test_ours_and_the_floor_are_asked_in_turn(tmp_path: Path) -> None:
    model = models.models(tmp_path / "models", ["digits"])["digits"]
    found = processor.measure(model, 1, 1, client.Python(), tmp_path / "logs")
    assert {(each.peer, each.route) for each in found} == {
        (peer, route) for peer in ("floor", "foldserve") for route in processor.GOALS
    }
    assert all(us > 0 for each in found for us in each.us)


@pytest.mark.slow
def test_the_floor_gives_as_many_bytes_as_the_model_has_numbers(tmp_path: Path) -> None:
    model = models.models(tmp_path / "models", ["digits"])["digits"]
    with Server(floor.PEER, Path(sys.executable), model, free_ports(), tmp_path) as server:
        status, _, body = client.ask(server.port, server.request(foldserve.PEER.routes[0]))
    assert status == 200
    assert np.frombuffer(body, np.float32).tolist() == [0.0] * model.classes


def test_answers_that_are_errors_are_no_measurement(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def drive(self, *_: object) -> client.Driven:
            return client.Driven(10, 1.0, 1.0, 1.0, {"status": 10})

    class Idle(Server):
        def cpu_s(self) -> float:
            return 0.0

    server = Idle(foldserve.PEER, Path(sys.executable), None, 0, tmp_path)  # type: ignore[arg-type]
    server._requests["json"] = None  # type: ignore[assignment]
    route = next(each for each in foldserve.PEER.routes if each.key == "json")
    with pytest.raises(Failed, match="foldserve, json: 10 answers"):
        processor._once(server, route, 1, Broken())
