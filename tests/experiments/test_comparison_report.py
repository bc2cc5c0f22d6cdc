"""What the report says, in HTML and in Markdown, and that it is whole without anything else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from converter.errors import UserError
from experiments import figures, markdown, report
from experiments.claims import CLAIMS
from experiments.examining import Claim
from experiments.grid import expand
from experiments.page import page
from experiments.records import Record
from experiments.settings import Settings
from experiments.summary import arms
from tests.experiments.made import record

pytestmark = pytest.mark.slow

HOSTILE = "</title><script>alert('x')</script>{{ 7*7 }}"
VOID = {"meta", "br", "img", "input", "link", "hr", "source"}
CLAIM = next(claim for claim in CLAIMS if claim.name == "mlp-sgd")


class Page(HTMLParser):
    """Elements, their attributes, and the text outside of style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def of_claim(claim: Claim) -> list[Record]:
    """The batch-norm reaches the plain network's best in half of the steps."""
    return [
        record(s, [0.1, 0.9, 0.985 + s.seed * 1e-4] if s.norm == "batch" else [0.1, 0.5, 0.9])
        for s in claim.runs()
    ]


@pytest.fixture(scope="module")
def told() -> report.Report:
    return report.of_claims([CLAIM], of_claim(CLAIM), "python -m experiments --claims")


def test_the_page_says_everything(told: report.Report) -> None:
    seen = Page(page(told))
    text = " ".join(seen.text.split())
    for part in (
        CLAIM.sentence,
        "does not hold",  # the plain network is at 90 %, and not at 97 %
        "90.00 % (90.00 to 90.00, 5 seeds)",
        "98.52 % (98.50 to 98.54, 5 seeds)",
        "98.52 % ± 0.02",
        "98.50 to 98.54",
        "0.50",  # of the steps
        "10 of 10 runs finished",
        "2.00",  # median seconds of an epoch
        "fc2",
        told.command,
        told.data,
    ):
        assert part in text, part
    pictures = [attrs for tag, attrs in seen.elements if tag == "img"]
    assert len(pictures) == 3


def test_the_page_needs_nothing_else(told: report.Report) -> None:
    seen = Page(page(told))
    for tag, attrs in seen.elements:
        assert tag not in {"script", "link", "iframe"}
        assert not any(name.startswith("on") or name == "style" for name in attrs)
        for name in ("src", "srcset", "href"):
            address = attrs.get(name) or "#"
            assert address.startswith(("data:image/svg+xml;base64,", "#")), address
    policy = next(a["content"] for t, a in seen.elements if a.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "prefers-color-scheme: dark" in page(told)


def test_dark_pictures_are_the_same_in_other_colours(told: report.Report) -> None:
    for picture in told.sections[0].pictures:
        light, dark = picture.svg["light"], picture.svg["dark"]
        assert figures.INK in light
        assert len(light) == len(dark)
        assert not any(colour in dark for colour in figures.DARK)


def test_equal_reports_give_equal_pages(told: report.Report) -> None:
    again = report.of_claims([CLAIM], of_claim(CLAIM), "python -m experiments --claims")
    assert page(again) == page(told)


def test_what_others_wrote_stays_text() -> None:
    from dataclasses import replace

    runs = [replace(record(Settings()), data=HOSTILE)]
    text = page(report.of_grid([Settings()], runs, HOSTILE))
    assert "<script" not in text
    assert "{{ 7*7 }}" in text


def test_markdown_and_its_pictures(tmp_path: Path, told: report.Report) -> None:
    markdown.write(told, tmp_path / "report.md", tmp_path / "figures")
    text = (tmp_path / "report.md").read_text()
    assert CLAIM.sentence in text
    assert "**Does not hold.**" in text
    assert "98.52 % ± 0.02" in text
    named = set(re.findall(r'(?:src|srcset)="([^"]+)"', text))
    assert named == {f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()}
    assert len(named) == 6
    for path in (tmp_path / "figures").iterdir():
        root = ET.fromstring(path.read_text())
        assert root.tag.endswith("svg")
        assert "http" not in re.sub(
            r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>|<rdf:RDF.*?</rdf:RDF>|'
            r"<metadata>.*?</metadata>",
            "",
            path.read_text(),
            flags=re.S,
        )
        assert path.stat().st_size < 60_000
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count(" | ") for line in rows}) <= 4


def test_every_verdict_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "pictures", lambda *_: [])
    by_name = {claim.name: claim for claim in CLAIMS}
    claims = [by_name["mlp-sgd"], by_name["sigmoid-sgd"], by_name["steps"], by_name["position"]]
    assert len(report.of_claims(claims, [], "").sections) == 0
    records: list[Record] = of_claim(by_name["mlp-sgd"])
    records += [record(s, [0.1, 0.1, 0.1 + 0.4 * s.seed]) for s in by_name["sigmoid-sgd"].runs()]
    told = report.of_claims(claims, records, "")
    found = {section.name: report.verdict_of(section) for section in told.sections}
    assert found == {
        "mlp-sgd": "does not hold",
        "sigmoid-sgd": "undecided",
        "steps": "does not hold",
        "position": "unfinished",
    }
    records = [
        record(s, [0.1, 0.95] if s.norm == "batch" else [0.1, 0.3, 0.4, 0.5, 0.9])
        for s in by_name["steps"].runs()
    ]
    told = report.of_claims([by_name["steps"]], records, "")
    assert report.verdict_of(told.sections[0]) == "holds"
    told = report.of_claims([by_name["steps"]], records[:2], "")  # one seed of five
    assert report.verdict_of(told.sections[0]) == "unfinished"


def test_panels_are_what_differs_beside_the_norm() -> None:
    runs = expand(
        Settings(), {"norm": ["none", "batch"], "bn_position": ["before", "after"]}, seeds=2
    )
    panels = figures._panels(arms([record(s) for s in runs]))
    assert {title: [arm.settings.norm for arm in found] for title, found in panels.items()} == {
        "before the activation": ["none", "batch"],
        "after the activation": ["none", "batch"],
    }


def test_only_so_many_panels_are_drawn() -> None:
    runs = expand(Settings(), {"lr": [0.1 * n for n in range(1, 12)]}, seeds=1)
    found = arms([record(s) for s in runs])
    assert figures.left_out(found) == 3
    assert len(figures._panels(found)) == figures.MOST_PANELS


@pytest.mark.parametrize("accuracies", [[0.1], [0.1, float("nan")], [0.0, 0.0]])
def test_odd_runs_are_drawn(accuracies: Sequence[float]) -> None:
    """One that diverged at once, one that is not finite, one that learnt nothing."""
    made = record(Settings(), accuracies, diverged=1, drift=0.0)
    told = report.of_grid([made.settings], [made], "")
    assert "1 diverged" in page(told)


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda _: None)
    with pytest.raises(UserError) as raised:
        figures.pictures([], "x")
    assert "foldserve[plots]" in raised.value.hint
