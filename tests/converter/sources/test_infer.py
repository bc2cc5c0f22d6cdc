"""Shapes of inputs that nobody told: from the first layer, and by trying."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from source_nets import ConvNet, FixedSize, KnowsItsBatch, Star, Tokens, TwoInputs
from torch import nn

from converter.errors import UserError, gist
from converter.sources import InputShape, calls, infer
from converter.sources.calls import Call
from converter.sources.examples import resolve
from converter.sources.loaded import Known


def find(module: nn.Module, *given: InputShape, known: Known | None = None) -> Call:
    return resolve(module.eval(), given, known, infer.first_layer(module), "float32")


@pytest.mark.parametrize(
    ("module", "sizes", "dtype"),
    [
        (ConvNet(), (3, 224, 224), "float32"),
        (ConvNet(channels=1), (1, 28, 28), "float32"),
        (ConvNet(channels=5), (5, 224, 224), "float32"),
        (FixedSize(3, 32), (3, 32, 32), "float32"),
        (FixedSize(1, 64), (1, 64, 64), "float32"),
        (FixedSize(2, 1024, axes=1), (2, 1024), "float32"),
        (FixedSize(1, 16, axes=3), (1, 16, 16, 16), "float32"),
        (nn.Linear(7, 2), (7,), "float32"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), (784,), "float32"),
        (nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(16)), (16, 6), "float32"),
        (nn.BatchNorm1d(6), (6,), "float32"),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 5)), (3, 224, 224), "float32"),
        (nn.ConvTranspose2d(4, 2, 2), (4, 224, 224), "float32"),
        (nn.LSTM(9, 4, batch_first=True), (16, 9), "float32"),
        (Tokens(), (16,), "int64"),
    ],
)
def test_the_first_layer_tells(module: nn.Module, sizes: tuple[int, ...], dtype: str) -> None:
    call = find(module)
    assert (call.shapes[0].sizes, call.shapes[0].dtype) == (sizes, dtype)
    assert ",".join(map(str, sizes)) in call.notes[-1]
    assert "--input-shape overrides it" in call.notes[-1]


def test_nothing_fits() -> None:
    module = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten(), nn.Linear(77, 2))
    with pytest.raises(UserError, match="no input shape was found") as raised:
        find(module)
    assert "--input-shape 3,224,224" in raised.value.hint
    assert "mat1 and mat2" in raised.value.message


def test_no_layer_that_tells() -> None:
    with pytest.raises(UserError, match="no input shape was found"):
        find(nn.ReLU())
    assert find(nn.ReLU(), InputShape((3,))).shapes[0].sizes == (3,)


def test_what_is_known_comes_first_and_must_run() -> None:
    assert find(ConvNet(), known=Known((3, 40, 40), "the file")).notes == [
        "input shape 3,40,40 from the file; --input-shape overrides it"
    ]
    assert find(ConvNet(), known=Known((4, 40, 40), "the file")).shapes[0].sizes == (3, 224, 224)


def test_what_the_user_says_is_all_that_is_tried() -> None:
    known = Known((3, 40, 40), "the file")
    assert find(ConvNet(), InputShape((3, 9, 9)), known=known).shapes[0].sizes == (3, 9, 9)
    with pytest.raises(UserError) as raised:
        find(ConvNet(), InputShape((4, 9, 9)), known=known)
    assert "does not run with input shape 4,9,9: RuntimeError" in raised.value.message
    assert "to have 3 channels, but got 4" in raised.value.message


def test_several_inputs_are_matched_by_name() -> None:
    a, b = InputShape((3,), "a"), InputShape((4,), "b")
    assert find(TwoInputs(), b, a).names == ("a", "b")
    assert find(TwoInputs(), b, a, InputShape((1,), "scale")).names == ("a", "b", "scale")
    for given, complaint in (
        ((), "2 inputs: a, b"),
        ((a,), "missing for b"),
        ((InputShape((3,)),), "missing for b"),
        ((a, InputShape((4,))), "needs its own name"),
        ((a, a), "needs its own name"),
        ((a, b, InputShape((4,), "c")), "names c, but there is no such input"),
    ):
        with pytest.raises(UserError, match=complaint) as raised:
            find(TwoInputs(), *given)
        assert "a" in raised.value.hint


def test_types() -> None:
    assert find(Tokens(), InputShape((5,))).shapes[0].dtype == "int64"
    assert find(Tokens(), InputShape((5,), "tokens", "int32")).shapes[0].dtype == "int32"
    call = find(nn.Linear(3, 2).double(), InputShape((3,), None, "float64"))
    assert call.tensors()[0].dtype == torch.float64


def test_optional_inputs_and_stars() -> None:
    class Optional(nn.Linear):
        def forward(self, x: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
            return torch.zeros(1) if x is None else super().forward(x)

    assert find(Optional(3, 2)).names == ("x",)
    assert find(Star()).names == ("xs_0",)
    assert find(Star(), InputShape((4,)), InputShape((4,))).names == ("xs_0", "xs_1")


def test_no_input_at_all() -> None:
    class Nothing(nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.zeros(1)

    with pytest.raises(UserError, match="takes no input"):
        find(Nothing())


def test_a_batch_of_one_when_nothing_else_runs() -> None:
    call = find(KnowsItsBatch(1))
    assert call.batch == 1
    assert "only runs with a batch of 1" in call.notes[0]


def test_examples_are_seeded_and_valid() -> None:
    shape = InputShape((3, 4))
    assert torch.equal(calls.example(shape, 2), calls.example(shape, 2))
    assert calls.example(InputShape((3,), None, "int64"), 2).tolist() == [[0] * 3] * 2
    assert calls.example(InputShape((), None, "bool"), 2).shape == (2,)


def test_long_errors_are_cut() -> None:
    text = gist(ValueError("a" * 1000 + "\nmore"))
    assert len(text) < 300
    assert text.endswith("…")
    assert gist(ValueError()) == "ValueError"


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    find(ConvNet())
    assert list(tmp_path.iterdir()) == []
