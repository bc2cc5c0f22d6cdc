"""Which batch-norms are meant, by patterns of their names."""

from __future__ import annotations

import pytest

from converter.errors import UserError
from converter.folding import FoldOptions, names


@pytest.mark.parametrize(
    ("options", "stay"),
    [
        (FoldOptions(), []),
        (FoldOptions(only=["layer1.*"]), ["head.bn"]),
        (FoldOptions(skip=["*.bn2"]), ["layer1.bn2"]),
        (FoldOptions(only=["layer1.*"], skip=["*.bn2"]), ["layer1.bn2", "head.bn"]),
        (FoldOptions(["*.bn?"], ["layer1.*"]), ["layer1.bn1", "layer1.bn2", "head.bn"]),
        (FoldOptions(only=["LAYER1.*"]), ["layer1.bn1", "layer1.bn2", "head.bn"]),
    ],
)  # fmt: skip
def test_what_is_left(options: FoldOptions, stay: list[str]) -> None:
    assert [n for n in ("layer1.bn1", "layer1.bn2", "head.bn") if options.leaves(n)] == stay


@pytest.mark.parametrize("option", ["only", "skip"])
def test_a_pattern_that_matches_nothing(option: str) -> None:
    options = FoldOptions(**{option: ["layer1.*", "layer2.bn*"]})  # type: ignore[arg-type]
    options.check(["layer1.bn1", "layer2.bn1"])
    with pytest.raises(UserError, match=r"no batch-norm is named like 'layer2\.bn\*'") as caught:
        options.check(["layer1.bn1", "head.bn"])
    assert "layer1.bn1" in str(caught.value.hint)
    assert "patterns may hold * and ?" in str(caught.value.hint)


def test_only_a_few_names_are_offered() -> None:
    with pytest.raises(UserError) as caught:
        names.check(["bn"], [f"bn{index}" for index in range(40)])
    assert str(caught.value.hint).count("bn") == names.OFFERED


def test_a_model_without_batchnorms() -> None:
    FoldOptions().check([])
    with pytest.raises(UserError, match="named like") as caught:
        FoldOptions(only=["bn"]).check([])
    assert caught.value.hint == "There is none in this model."


@pytest.mark.parametrize("option", ["only", "skip"])
def test_a_pattern_is_no_list(option: str) -> None:
    with pytest.raises(TypeError, match="lists of patterns"):
        FoldOptions(**{option: "bn1"})  # type: ignore[arg-type]
