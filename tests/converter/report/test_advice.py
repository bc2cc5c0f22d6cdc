"""What is needless about a batch-norm, and what only looks like it; and the traps of real files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from converter import cli
from converter.evaluation.normalize import normalize
from converter.report.advice import advise
from patterns.graphs import Graph


def advice(build: Callable[[Graph, str], str], *shape: int) -> dict[str, list[str]]:
    """code -> the batch-norms that it is for."""
    g = Graph()
    g.output(build(g, g.input("x", "N", *shape)))
    found: dict[str, list[str]] = {}
    for hazard in advise(normalize(g.model())):
        found.setdefault(hazard.code, []).append(hazard.sentence)
    return found


def conv(g: Graph, x: str, size: int = 3, *, bias: bool = False) -> str:
    """`size` channels to four."""
    weight = g.weight(4, size, 1, 1)
    return g.op("Conv", x, weight, g.weight(4)) if bias else g.op("Conv", x, weight)


CASES: list[tuple[str, Callable[[Graph, str], str], tuple[int, ...], set[str]]] = [
    ("a bias in front", lambda g, x: g.bn(conv(g, x, bias=True), 4), (3, 5, 5), {"needless-bias"}),
    ("no bias", lambda g, x: g.bn(conv(g, x), 4), (3, 5, 5), set()),
    (
        "a bias of a dense layer",
        lambda g, x: g.bn(g.op("Gemm", x, g.weight(3, 4), g.weight(4)), 4),
        (3,),
        {"needless-bias"},
    ),
    (
        "a bias as Add",
        lambda g, x: g.bn(g.op("Add", g.op("MatMul", x, g.weight(3, 4)), g.weight(4)), 4),
        (3,),
        {"needless-bias"},
    ),
    (
        "a bias as Add, first",
        lambda g, x: g.bn(g.op("Add", g.weight(4), g.op("MatMul", x, g.weight(3, 4))), 4),
        (3,),
        {"needless-bias"},
    ),
    (
        "a bias on another axis than the norm's",
        lambda g, x: g.bn(g.op("Add", g.op("MatMul", x, g.weight(3, 4)), g.weight(4)), 5),
        (5, 3),
        set(),
    ),
    (
        "a bias with an activation between",
        lambda g, x: g.bn(g.op("Relu", conv(g, x, bias=True)), 4),
        (3, 5, 5),
        set(),
    ),
    (
        "a norm behind a norm",
        lambda g, x: g.bn(g.bn(conv(g, x), 4), 4),
        (3, 5, 5),
        {"norm-after-norm"},
    ),
    (
        "a norm behind a norm's activation",
        lambda g, x: g.bn(g.op("Relu", g.bn(conv(g, x), 4)), 4),
        (3, 5, 5),
        {"norm-after-norm"},
    ),
    (
        "weights between",
        lambda g, x: g.bn(conv(g, g.op("Relu", g.bn(conv(g, x), 4)), 4), 4),
        (3, 5, 5),
        set(),
    ),
    (
        "a pool between, which changes what is normalised",
        lambda g, x: g.bn(g.op("GlobalAveragePool", g.bn(conv(g, x), 4)), 4),
        (3, 5, 5),
        set(),
    ),
]


@pytest.mark.parametrize(
    ("build", "shape", "codes"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_what_is_said_of_each(build, shape, codes) -> None:
    assert set(advice(build, *shape)) == codes


def test_a_value_that_others_read_is_not_needless() -> None:
    """A pre-activation block: the sum reads the first norm's result as well."""

    def block(g: Graph, x: str) -> str:
        y = conv(g, x, bias=True)
        first = g.op("Relu", g.bn(y, 4))
        return g.op("Add", g.op("Add", g.bn(first, 4), first), y)

    assert advice(block, 3, 5, 5) == {}


def test_the_sentence_names_the_other_norm_and_what_is_between() -> None:
    build = lambda g, x: g.bn(g.op("Tanh", g.bn(conv(g, x), 4)), 4)  # noqa: E731
    (sentence,) = advice(build, 3, 5, 5)["norm-after-norm"]
    assert "with only Tanh between" in sentence
    assert "leave the other out in the next training" in sentence


class Trapped(nn.Module):
    """Everything that one can do wrong with a batch-norm, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, bias=True)
        self.first = nn.BatchNorm2d(2)
        self.second = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, 3)
        self.own = nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(torch.relu(self.first(self.conv(x))))
        return self.own(self.fc(y.mean((2, 3))))


def test_a_real_file_with_every_trap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.save(Trapped().train(), tmp_path / "model.pt")
    arguments = ["--trust-pickle", "--input-shape", "1,6,6"]
    report = tmp_path / "report.json"
    code = cli.main(["inspect", str(tmp_path / "model.pt"), *arguments, "--json", str(report)])
    assert code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "saved in training mode and was set to eval(): in training its batch-norms" in said
    assert "its statistics were never updated (mean 0, variance 1" in said
    assert "`recalibrate` can compute them from data" in said
    assert "With track_running_stats=False an answer depends on what else is in its batch" in said
    assert "advice: first: the op in front of it has a bias" in said
    assert "advice: second: it follows the batch-norm first with only Relu between" in said
    assert '"code": "norm-after-norm"' in report.read_text()
