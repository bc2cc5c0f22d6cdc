"""What the serving document says about figures that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import document, lines
from benchmarks.serving import cells, plan, results, table
from benchmarks.serving.__main__ import main
from benchmarks.serving.catalogue import PEERS
from benchmarks.serving.results import Results


def figure(peer: str, route: str, per_second: float, **more: Any) -> dict[str, Any]:
    row = {
        "peer": peer, "model": "resnet18", "route": route, "connections": 8, "round": 1,
        "binary": route in ("raw", "v2-binary"), "requests": 100, "seconds": 1.0, "p50_ms": 10.0,
        "p99_ms": 20.0, "errors": {}, "per_second": per_second, "raw_per_second": 100.0,
        "raw_single_ms": 9.5, "raw_layout": "two callers", "load": 1.0,
        "cpu_us": 1500.0,
    }  # fmt: skip
    return row | more


def server(peer: str, **more: Any) -> dict[str, Any]:
    row = {"server": peer, "model": "resnet18", "title": peer, "said": "as it is", "version": "1"}
    return row | {"started_s": 1.5, "memory_bytes": 70e6} | more


RUN = {
    "run": {
        "date": "today", "cpu": "some", "cores": 2, "system": "Linux", "python": "3.11",
        "onnxruntime": "1.31", "client": "wrk 4", "load": 0.1,
    }
}  # fmt: skip


def made(*rows: dict[str, Any]) -> Results:
    found = Results()
    for row in (RUN, *rows):
        found.add(row)
    return found


def test_a_cell_is_the_median_of_its_rounds() -> None:
    speeds = [80.0, 95.0, 90.0]
    rows = [
        figure("mosec", "raw", s, round=i, raw_per_second=100 + i) for i, s in enumerate(speeds)
    ]
    cell = cells.cell(rows)
    assert cell is not None
    assert (cell.per_second, cell.low, cell.high) == (90.0, 80.0, 95.0)
    assert cell.ratio == pytest.approx(90 / 102)
    assert cells.cell([]) is None


def test_the_tables_tell_speed_share_and_configuration() -> None:
    text = table.text(
        made(
            server("foldserve"), server("mosec", said="batches"),
            figure("foldserve", "v2-binary", 95.0), figure("mosec", "raw", 86.0),
        )
    )  # fmt: skip
    assert "| **Foldserve** | V2 binary | 95.0 (10.0 / 20.0) | 0.95 | 1,500 |" in text
    assert "| mosec | raw bytes | 86.0 (10.0 / 20.0) | 0.86 | 1,500 |" in text
    assert text.index("| **Foldserve** |") < text.index("| mosec | raw bytes |")
    assert "100 samples/s at best (two callers), 9.50 ms for one sample" in text
    assert "| mosec | 1 | batches | 1.5 | 70 |  |" in text


def test_a_goal_is_told_with_the_best_other_and_by_how_much_it_was_missed() -> None:
    rows = [
        server("foldserve"),
        figure("foldserve", "v2-binary", 95.0),
        figure("mosec", "raw", 86.0),
    ]
    text = table.text(made(*rows))
    assert (
        "| resnet18, binary, 8 clients: share of raw onnxruntime's best | at least 0.92 | "
        "0.95 (Foldserve, v2-binary) | 0.86 (mosec, raw) | yes |"
    ) in text
    text = table.text(made(*rows, figure("foldserve", "v2-binary", 69.0)))
    assert "0.69 (Foldserve, v2-binary) | 0.86 (mosec, raw) | no: 0.75 of it |" in text
    slow = figure("foldserve", "v2-binary", 95.0, connections=1, p50_ms=12.0)
    assert "| at most 1.00 | 2.50 (Foldserve, v2-binary) |  | no: 2.50 times it |" in table.text(
        made(*rows, slow)
    )


def test_a_row_with_errors_says_so_and_counts_for_no_goal() -> None:
    wrong = figure("foldserve", "v2-binary", 99.0, errors={"status": 3})
    text = table.text(made(server("foldserve"), wrong))
    assert "99.0 (10.0 / 20.0) **errors: 3 status**" in text
    assert "at least 0.92" not in text


def test_what_failed_has_a_row_with_the_reason() -> None:
    text = table.text(
        made(
            server("triton", failed="it ended with code 1: no library"),
            server("mosec", failed_routes={"raw": "WRONG: its answer differs"}),
            figure("mosec", "json", 50.0),
        )
    )
    reason = "failed: it ended with code 1: no library"
    assert f"| Triton (pytriton) | V2 JSON | {reason} |  |  |" in text
    assert f"| Triton (pytriton) | V2 binary | {reason} |  |  |" in text
    assert "| mosec | raw bytes | failed: WRONG: its answer differs |" in text
    broken = {key: v for key, v in figure("mosec", "raw", 1).items() if key != "per_second"}
    broken["failed"] = "the client failed"
    text = table.text(made(server("mosec"), broken))
    assert "| mosec | raw bytes | failed: the client failed |" in text
    text = table.text(made(server("mosec"), figure("mosec", "raw", 9.0), broken | {"round": 2}))
    assert "9.00 (10.0 / 20.0) **errors: 1 rounds failed**" in text


def test_rows_are_read_again_and_a_line_cut_off_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [RUN, server("mosec"), figure("mosec", "raw", 80.0), figure("mosec", "raw", 90.0)]
    for row in rows:
        lines.append(path, row)
    path.write_text(path.read_text() + '{"peer": "mosec", "mod')
    lines.append(path, figure("mosec", "json", 40.0))
    found = results.read(path)
    assert found.run["cpu"] == "some"
    assert [row["per_second"] for row in found.figures.values()] == [90.0, 40.0]
    assert results.read(tmp_path / "none").figures == {}


def test_the_document_has_places_for_both_parts(tmp_path: Path) -> None:
    copy = tmp_path / "serving.md"
    copy.write_text(table.DOCUMENT.read_text(encoding="utf-8"), encoding="utf-8")
    table.write(made(server("mosec"), figure("mosec", "raw", 80.0)), copy)
    assert "| mosec | raw bytes | 80.0" in copy.read_text(encoding="utf-8")
    document.write(copy, "python -m benchmarks.serving.profile", "stages", "")
    assert "stages" in copy.read_text(encoding="utf-8")


def test_the_plan_counts_every_route_and_fits_into_25_minutes() -> None:
    whole = plan.Plan(PEERS)
    routes = sum(len(peer.routes) for peer in whole.peers_of("digits"))
    assert f"digits: {routes} routes x 3 s x 3 rounds" in whole.text()
    assert 10 * 60 < sum(whole.seconds().values()) < 25 * 60
    assert sum(plan.quick(whole).seconds().values()) < 6 * 60
    orders = [order for _, order in whole.turns(PEERS)]
    assert orders[0] == list(PEERS)
    assert orders[1] == list(reversed(PEERS))


def test_a_name_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--plan", "--only", "mosec", "--cases", "mlp-c32"])
    assert "mlp: 2 routes x 2 s x 3 rounds" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--only does not know 'mosek'"):
        main(["--plan", "--only", "mosek"])
