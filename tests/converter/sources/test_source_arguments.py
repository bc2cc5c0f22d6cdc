"""`--input-shape` and `--arch-arg`."""

from __future__ import annotations

import pytest

from converter.errors import UserError
from converter.sources import InputShape, parse_arch_arg, parse_input_shape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3,224,224", InputShape((3, 224, 224))),
        (" 3, 224 ,224", InputShape((3, 224, 224))),
        ("3x224x224", InputShape((3, 224, 224))),
        ("16", InputShape((16,))),
        ("image=3,224,224", InputShape((3, 224, 224), "image")),
        ("tokens=128:int64", InputShape((128,), "tokens", "int64")),
        ("128:int64", InputShape((128,), None, "int64")),
        ("age=", InputShape((), "age")),
        ("serving_default:0=3,4", InputShape((3, 4), "serving_default:0")),
    ],
)
def test_input_shapes(text: str, expected: InputShape) -> None:
    assert parse_input_shape(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no sizes"),
        ("3,,4", "'' is not a size"),
        ("3,a b", "'a b' is not a size"),
        ("3,-1", "'-1' is not a size"),
        ("0,3", "'0' is not a size"),
        ("3.5", "'3.5' is not a size"),
        ("=3,4", "no name stands before"),
        ("x=3:text", "'text' is not a type"),
        ("3,4:", "'' is not a type"),
        ("99999999999999", "is not a size"),
    ],
)
def test_wrong_input_shapes(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as raised:
        parse_input_shape(text)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_classes=10", ("num_classes", 10)),
        ("rate=0.5", ("rate", 0.5)),
        ("rate=1e-3", ("rate", 0.001)),
        ("bias=True", ("bias", True)),
        ("bias=false", ("bias", False)),
        ("norm=None", ("norm", None)),
        ("layers=[2, 2, 2]", ("layers", [2, 2, 2])),
        ('kw={"a": 1}', ("kw", {"a": 1})),
        ('name="10"', ("name", "10")),
        ("act=silu", ("act", "silu")),
        ("path=a=b", ("path", "a=b")),
        ("empty=", ("empty", "")),
    ],
)
def test_arch_arguments(text: str, expected: tuple[str, object]) -> None:
    key, value = parse_arch_arg(text)
    assert (key, value) == expected
    assert type(value) is type(expected[1])


@pytest.mark.parametrize("text", ["num_classes", "=3", "a-b=3", "layers=[2,"])
def test_wrong_arch_arguments(text: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_arch_arg(text)
    assert raised.value.hint
