"""The report as a page: whole, self-contained, escaped, the same every time."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pytest
from playwright.sync_api import sync_playwright
from rich.console import Console

from converter.certificate import NotCertified
from converter.cli import main
from converter.pipeline import fold
from converter.proof import Proof
from converter.report.certificate import describe_certificate
from converter.report.explain import Explainer
from converter.report.facts import describe_fold
from converter.report.page import drawing, page
from converter.report.page.plot import plot
from converter.report.terminal import show_fold
from patterns.graphs import Graph
from tests.converter.previews import mixed
from tests.converter.published import loaded
from tests.service.browsing import CONTRAST

HOSTILE = "</title><script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7*7 }}&amp;"
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """What a browser would see: elements, their attributes, and text outside style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.sources: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"style", "script"}:
            self.sources[self.open[-1]] = self.sources.get(self.open[-1], "") + data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(g: Graph, proof: Proof | None = None) -> dict[str, Any]:
    result = fold(loaded(g))
    explainer = Explainer(result.original, result.plan)
    if proof is not None:
        result = replace(result, proof=proof)
    return {
        **describe_fold(result),
        "explanations": [explainer.explain(decision) for decision in result.plan.decisions],
        "provenance": {
            "file": "net.onnx",
            "sha256": "abc",
            "bytes": 3,
            "command": "python -m converter fold net.onnx",
            "date": "2026-01-02T03:04:05+00:00",
            "versions": {"onnx": "1"},
        },
    }


def graph(name: str = "bn5") -> Graph:
    g = Graph("float32")
    y = mixed(g, g.input("x", "N", 4, 6, 6))
    y = g.bn(g.op("Sigmoid", y, node=f"{name}.act"), 4, name)
    g.output(g.rename(g.op("Tanh", y, node=f"{name}.tanh"), "y"), shape=["N", 4, 6, 6])
    return g


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return report(graph("last"))


def test_it_tells_everything(made: dict[str, Any]) -> None:
    found = Page(page(made))
    assert f"{made['proof']['conclusion']} 2 of 5 batch-norms folded." in found.text
    for decision in made["plan"]["decisions"]:
        assert decision["name"] in found.text
    for size in ("nodes", "multiply_adds", "parameters", "bytes"):
        assert f"{made['before'][size]:,}" in found.text
        assert f"{made['after'][size]:,}" in found.text
    assert "Sigmoid, in the way" in found.text
    assert "W[o] *= a[o]" in found.text
    assert "Conv conv2 also does the work of batch-norm bn2" in found.text
    assert f"{made['proof']['measurements'][0]['error_folded']:.1e}" in found.text
    assert "2026-01-02T03:04:05+00:00" in found.text


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        (6, 0, "-6 (-100 %)"),
        (27, 21, "-6 (-22 %)"),
        (597_321, 584_669, "-12,652 (-2.1 %)"),
        (1, 30, "+29 (+2,900 %)"),
        (0, 2, "+2"),
        (3, 3, "as before"),
    ],
)
def test_changes_are_whole_percents_or_tenths(
    made: dict[str, Any], was: int, now: int, told: str
) -> None:
    report = made | {
        "before": made["before"] | {"nodes": was},
        "after": made["after"] | {"nodes": now},
    }
    assert told in Page(page(report)).texts


def test_it_needs_nothing_else(made: dict[str, Any]) -> None:
    text = page(made)
    found = Page(text)
    assert not {"link", "img", "iframe", "object", "base"} & {tag for tag, _ in found.elements}
    for tag, attributes in found.elements:
        assert not {"src", "href", "style", "action"} & set(attributes), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in found.sources["style"]


def test_no_script_but_its_own_may_run(made: dict[str, Any]) -> None:
    found = Page(page(made))
    assert len(found.all("script")) == len(found.all("style")) == 1
    (policy,) = (m["content"] for m in found.all("meta") if "http-equiv" in m)
    assert policy is not None
    assert "default-src 'none'" in policy
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(found.sources[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_names_of_a_hostile_model_are_text() -> None:
    hostile = report(graph(HOSTILE))
    hostile["provenance"]["file"] = HOSTILE
    hostile["source"]["kind"] = HOSTILE
    hostile["source"]["warnings"] = [HOSTILE]
    found = Page(page(hostile))
    assert HOSTILE in found.text
    assert "{{ 7*7 }}" in found.text
    assert len(found.all("script")) == 1
    assert found.all("img") == []
    assert found.open == []


def test_the_table_is_readable_without_scripts(made: dict[str, Any]) -> None:
    found = Page(page(made))
    (form,) = found.all("form")
    assert "hidden" in form
    rows = [row for row in found.all("tr") if row.get("class") in {"folded", "kept"}]
    assert len(rows) == 5
    assert not any("hidden" in row for row in rows)


def test_the_same_report_gives_the_same_page(made: dict[str, Any]) -> None:
    assert page(made) == page(report(graph("last")) | {"fold_seconds": 0.0})


def test_a_proof_that_failed(made: dict[str, Any]) -> None:
    failed = Page(page(report(graph(), Proof(failure="there is no float64 oracle"))))
    told = "Not proven: there is no float64 oracle 2 of 5 batch-norms folded. Nothing was written."
    assert told in failed.text
    broken = {
        **made["proof"],
        "passed": False,
        "verdict": "differs",
        "conclusion": "Not proven: folded differs.",
    }
    broken["measurements"] = [
        {**m, "error_folded": None, "passed": False, "verdict": "differs", "problem": "NaN"}
        for m in broken["measurements"]
    ]
    found = Page(page({**made, "proof": broken}))
    assert (
        "Not proven: folded differs. 2 of 5 batch-norms folded. Nothing was written" in found.text
    )
    assert "not finite" in found.text


REFUSED = NotCertified(
    "'y', a Conv, has no equal in the original: a weight is 1.00000012 where 1 was expected in "
    "channel 7.", "y", "Conv", 7, 1.0, 1.00000012,
)  # fmt: skip


def refused(made: dict[str, Any], found: NotCertified = REFUSED) -> dict[str, Any]:
    proof = made["proof"] | {"conclusion": "Proven by the measurement alone: folded equals x."}
    return {**made, "proof": proof, "certificate": describe_certificate(found, measured=True)}


def test_the_certificate_stands_beside_the_measurement(made: dict[str, Any]) -> None:
    found = Page(page(made)).text
    certificate = made["certificate"]
    assert certificate["certified"]
    assert made["proof"]["conclusion"].endswith("for every input and as measured.")
    assert found.count(certificate["sentence"]) == 2, "at the top, and under Proof"
    assert "For every input certified Certified for every input: 5 of 5 batch-norms" in found
    figures = certificate["figures"]
    assert (
        f"largest move {figures['largest_move']:.2f} roundings of its type; 3 are allowed" in found
    )
    assert "tried with N = 2 and with N = 3" in found
    assert "As measured Largest errors against" in found
    assert "not certified" not in found


def test_what_is_not_certified_is_said_with_its_place(made: dict[str, Any]) -> None:
    found = Page(page(refused(made))).text
    assert "Proven by the measurement alone: folded equals x. 2 of 5" in found
    assert f"not certified Not certified: {REFUSED.reason}" in found
    assert "first value not found y (Conv) channel 7 expected 1 found 1.00000012" in found
    assert "This does not mean that the two differ" in found
    assert "largest move" not in found
    vague = Page(page(refused(made, NotCertified("the check failed: MemoryError.")))).text
    assert "Not certified: the check failed: MemoryError." in vague
    assert "first value not found" not in vague
    hostile = refused(made, NotCertified(f"{HOSTILE}.", HOSTILE, HOSTILE, 0, None, math.nan))
    text = Page(page(hostile))
    assert HOSTILE in text.text
    assert len(text.all("script")) == 1


def test_the_page_says_what_the_terminal_says(made: dict[str, Any]) -> None:
    result = fold(loaded(graph("last")))
    told = describe_fold(result)
    shown = Page(page({**made, **told})).text
    console = Console(width=1000, record=True, file=io.StringIO())
    show_fold(console, result)
    lines = console.export_text().splitlines()
    claim, verdict = told["certificate"]["sentence"], told["proof"]["conclusion"]
    assert any(line.startswith(f"{claim[:-1]}; ") for line in lines), "with the time, on a terminal"
    assert verdict in lines
    assert claim in shown
    assert verdict in shown


def test_rounding_that_a_certificate_excuses_is_not_shown_as_a_difference(
    made: dict[str, Any],
) -> None:
    def with_one(**changes: Any) -> Page:
        first, *others = made["proof"]["measurements"]
        proof = made["proof"] | {"measurements": [first | changes, *others]}
        return Page(page({**made, "proof": proof}))

    beyond = {"passed": False, "verdict": "differs", "error_folded": 1e-3}
    excused, refused = with_one(**beyond, excused=True), with_one(**beyond, excused=False)
    assert "1.0e-03" in excused.text
    assert "rounding" in excused.text.split("As measured")[1]
    assert [g.get("class") for g in excused.all("g")].count("bad") == 0
    assert " differs " in refused.text
    assert [g.get("class") for g in refused.all("g")].count("bad") == 1


def test_a_report_of_before_has_no_certificate(made: dict[str, Any]) -> None:
    found = Page(page({key: value for key, value in made.items() if key != "certificate"})).text
    assert "For every input" not in found
    assert "Largest errors against" in found


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("certified", [True, False])
def test_it_can_be_read_on_any_screen(
    made: dict[str, Any], tmp_path: Path, width: int, *, certified: bool
) -> None:
    """Nothing is wider than the window, and text stands out from its ground."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        assert not os.environ.get("ALL_TOOLS_REQUIRED"), "no Chromium"
        pytest.skip("no Chromium (Debian: apt install chromium)")
    long = replace(REFUSED, reason=f"'{'a_long_name/' * 20}', {REFUSED.reason}", value="v" * 300)
    path = tmp_path / "report.html"
    path.write_text(page(made if certified else refused(made, long)), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            screen = {"width": width, "height": 800}
            opened = browser.new_page(viewport=screen, color_scheme=scheme)
            opened.goto(path.as_uri())
            assert opened.evaluate("document.documentElement.scrollWidth") <= width
            assert opened.evaluate(CONTRAST) == []
        browser.close()


def test_a_plan_without_a_proof_and_without_batchnorms(made: dict[str, Any]) -> None:
    plan = {key: value for key, value in made.items() if key != "proof"}
    assert "2 of 5 batch-norms would be folded" in Page(page(plan)).text
    g = Graph("float32")
    g.output(g.rename(g.op("Relu", g.input("x", "N", 3)), "y"), shape=["N", 3])
    assert "0 of 0 batch-norms folded" in Page(page(report(g))).text


def measured(original: float | None, folded: float | None, allowed: float | None) -> dict[str, Any]:
    return {
        "output": "y",
        "inputs": "batch 1",
        "error_original": original,
        "error_folded": folded,
        "allowed": allowed,
        "passed": True,
    }


def test_the_plot_has_a_log_axis() -> None:
    drawn = plot([measured(1e-7, 1e-6, 1e-5), measured(0.0, None, 1e-3)])
    assert drawn is not None
    one, other = drawn["lines"]
    assert one["folded"] - one["original"] == pytest.approx(one["allowed"] - one["folded"])
    assert other["original"] == drawn["zero"]
    assert drawn["zero"] < one["original"]
    assert other["folded"] is None
    assert other["allowed"] <= drawn["width"]
    assert [tick["text"] for tick in drawn["ticks"]] == [f"1e-0{n}" for n in (7, 6, 5, 4, 3)]


def test_what_cannot_be_plotted() -> None:
    assert plot([]) is None
    assert plot([measured(0.0, 0.0, 0.0)]) is None
    assert plot([measured(None, None, None)]) is None
    drawn = plot([measured(1e-7, 1e-7, 1e-6)] * 50)
    assert drawn is not None
    assert (len(drawn["lines"]), drawn["left_out"]) == (40, 10)


def test_boxes_do_not_overlap(made: dict[str, Any]) -> None:
    (told,) = (e for e in made["explanations"] if e["name"] == "last")
    picture = drawing.draw(told["neighbourhood"])
    boxes = [(box["x"], box["y"]) for box in picture["boxes"]]
    for index, (x, y) in enumerate(boxes):
        assert 0 <= x <= picture["width"] - drawing.WIDTH
        assert 0 <= y <= picture["height"] - drawing.HEIGHT
        for other_x, other_y in boxes[index + 1 :]:
            beside = abs(x - other_x) >= drawing.WIDTH
            assert beside or abs(y - other_y) >= drawing.HEIGHT
    assert drawing.shorten("a" * 50 + "end", 10) == "aaaa…aaend"


@pytest.mark.parametrize("command", ["fold", "inspect"])
def test_on_the_command_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    model, target = tmp_path / "net.onnx", tmp_path / "net.html"
    onnx.save(graph().proto(), model)
    pages = []
    for _ in range(2):
        assert main([command, str(model), "--html", str(target)]) == 0
        pages.append(target.read_bytes())
    assert pages[0] == pages[1]
    text = Page(pages[0].decode()).text
    assert "2023-11-14T22:13:20+00:00" in text
    assert hashlib.sha256(model.read_bytes()).hexdigest() in text
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]
    capsys.readouterr()
    for bad in (str(tmp_path / "no" / "such.html"), str(model), str(tmp_path)):
        assert main([command, str(model), "--html", bad]) == 2
        assert "error: " in capsys.readouterr().err
