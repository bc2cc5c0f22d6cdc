"""The client's results, the requests, and a server that is really started and driven."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.serving import client, models, wire
from benchmarks.serving.catalogue import PEERS
from benchmarks.serving.install import install
from benchmarks.serving.peer import Model, Peer, Route
from benchmarks.serving.peers import foldserve
from benchmarks.serving.plan import Case, Plan
from benchmarks.serving.raw import Layout, Raw, layouts
from benchmarks.serving.results import read
from benchmarks.serving.runner import Runner
from benchmarks.serving.running import Failed, Server, free_ports

pytestmark = pytest.mark.slow

OURS = foldserve.PEER


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models")
    models._make("digits", folder)
    return models._read(folder / "digits", "digits")


@pytest.fixture(scope="module")
def raw(digits: Model) -> Iterator[Raw]:
    with Raw(digits) as process:
        yield process


def test_the_line_of_the_script_is_read() -> None:
    text = (
        "Running 2s test\n  32 errors\n\n"
        'RESULT {"requests": 200, "microseconds": 2000000, "p50_us": 1500, "p99_us": 9000, '
        '"connect": 0, "read": 2, "write": 0, "status": 7, "timeout": 0}\n'
    )
    found = client.parse(text)
    assert found == client.Driven(200, 2.0, 1.5, 9.0, {"read": 2, "status": 7})
    assert found.per_second == 100
    with pytest.raises(ValueError, match="unable to connect"):
        client.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_numbers_are_written_with_the_digits_of_a_float32(digits: Model) -> None:
    tensor = digits.sample()
    body = wire.inputs("/predict")(digits, tensor).body
    assert len(body) / tensor.size < 13
    import json

    assert np.array_equal(np.asarray(json.loads(body)["inputs"], np.float32), tensor)
    flat = wire.inputs("/predict", flat=True)(digits, tensor).body
    assert np.array_equal(np.asarray(json.loads(flat)["inputs"], np.float32), tensor.reshape(-1))


def test_a_model_is_told_to_another_process_by_its_environment(
    digits: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in digits.environment().items():
        monkeypatch.setenv(name, value)
    assert Model.served() == digits


def test_every_peer_is_pinned_and_named_once() -> None:
    assert len({peer.key for peer in PEERS}) == len(PEERS)
    for peer in PEERS:
        assert all("==" in requirement for requirement in peer.requirements), peer.key
        assert peer.requirements or peer.key.startswith("foldserve")
        assert peer.said


def test_our_service_answers_right_and_is_driven_in_every_format(
    digits: Model, raw: Raw, tmp_path: Path
) -> None:
    expected = raw.answer()
    with Server(OURS, Path(sys.executable), digits, free_ports(), tmp_path / "ours") as server:
        for route in OURS.routes:
            server.check(route, expected)
        driven = server.drive(client.Python(), OURS.routes[0], 4, 1)
        assert driven.requests > 0
        assert driven.errors == {}
        assert 0 < driven.p50_ms <= driven.p99_ms
        wrong = replace(OURS.routes[0], key="wrong", ask=wire.inputs("/nowhere"))
        missed = client.Python().drive(server.port, wrong.ask(digits, digits.sample()), 2, 0.2)
        assert missed.errors == {"status": missed.requests}
        with pytest.raises(Failed, match="HTTP 404"):
            server.check(wrong, expected)
        with pytest.raises(Failed, match="WRONG"):
            server.check(OURS.routes[0], expected + 1)
        if shutil.which("wrk"):  # the continuous integration has none
            assert server.drive(client.Wrk(), OURS.routes[2], 2, 1).errors == {}
        assert server.memory_bytes() > 10e6
        server.pause()
        server.resume()
        server.check(OURS.routes[0], expected)
        pids = server.processes()
        assert pids
    assert server.processes() == []


def test_a_run_writes_a_row_for_each_figure_and_for_what_failed(
    digits: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.serving.runner.models", lambda _: {"digits": digits})
    monkeypatch.setattr("benchmarks.serving.runner.SWEEP_S", 0.02)
    monkeypatch.setattr("benchmarks.serving.runner.RAW_S", 0.02)
    monkeypatch.setattr("benchmarks.serving.runner.SINGLE_S", 0.02)
    # One that ends at once, and one whose second route answers something else.
    ended = replace(OURS, key="ended", command=("-c", "raise SystemExit('no such library')"))
    odd = Route("raw", True, wire.v2_json, wire.floats)
    half = replace(OURS, routes=(OURS.routes[0], odd))
    said: list[str] = []
    plan = Plan((half, ended), (Case("digits", 2, 1),), 1)
    driver = SimpleNamespace(
        name="short",
        drive=lambda port, request, count, _: client.Python().drive(port, request, count, 0.2),
    )
    runner = Runner(plan, tmp_path / "cache", tmp_path / "rows.jsonl", driver, said.append)
    runner.run()
    found = read(tmp_path / "rows.jsonl")
    assert set(found.figures) == {("foldserve", "digits", "json", 2, 1)}
    (row,) = found.figures.values()
    assert row["raw_per_second"] > 0
    assert row["requests"] > 0
    assert "no such library" in found.servers["ended", "digits"]["failed"]
    assert "cannot be read" in found.servers["foldserve", "digits"]["failed_routes"]["raw"]
    assert found.servers["foldserve", "digits"]["started_s"] > 0


def test_raw_onnxruntime_runs_in_every_layout(raw: Raw) -> None:
    assert all(raw.per_second(layout, 0.01) > 0 for layout in layouts())
    assert raw.single_ms(0.01) > 0
    assert str(Layout(2, 1, 8)) == "2 callers of 1 thread, batch 8"


def test_what_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer("none", "None", ("no-such==0",), (), (), "nothing")
    monkeypatch.setattr("benchmarks.serving.install.venv.create", lambda *_, **__: None)
    found = install(peer, tmp_path)
    assert found.reason.startswith("not installed: ")
    assert install(OURS, tmp_path).python == Path(sys.executable)
