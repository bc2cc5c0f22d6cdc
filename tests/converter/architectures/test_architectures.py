"""The closed table: what it makes, and what it refuses to make."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from converter.architectures import ARCHITECTURES, build, complete
from converter.errors import UserError


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_of_samples_becomes_a_batch_of_ten_logits(name: str) -> None:
    module = build(name)
    x = torch.rand(3, *ARCHITECTURES[name].input_shape)
    assert module(x).shape == (3, 10)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_linear_ops_in_front_of_a_batch_norm_carry_no_bias(name: str) -> None:
    modules = list(build(name).modules())
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    pairs = itertools.pairwise(modules)
    linear = (nn.Conv2d, nn.Linear)
    in_front = [a for a, after in pairs if isinstance(a, linear) and isinstance(after, norms)]
    assert in_front
    assert all(op.bias is None for op in in_front)


def test_mnist_cnn_has_five_2d_norms_and_a_1d_norm_after_the_flattened_features() -> None:
    kinds = [type(module) for module in build("mnist_cnn").modules()]
    assert kinds.count(nn.BatchNorm2d) == 5
    assert kinds.count(nn.BatchNorm1d) == 1
    assert kinds.count(nn.MaxPool2d) == 3
    flatten = kinds.index(nn.Flatten)
    assert kinds[flatten + 1 : flatten + 4] == [nn.Linear, nn.BatchNorm1d, nn.ReLU]


def test_the_size_that_the_docstring_states() -> None:
    assert sum(p.numel() for p in build("mnist_cnn").parameters()) == 144_954


def test_the_mlp_is_784_256_128_10() -> None:
    layers = [m for m in build("mlp").modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(784, 256), (256, 128), (128, 10)]


def test_arguments_change_the_sizes() -> None:
    module = build("mnist_cnn", width=3, hidden=5)
    assert module(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert module[0].weight.shape == (3, 1, 3, 3)  # type: ignore[index]


def test_the_seed_decides_the_weights() -> None:
    torch.manual_seed(3)
    first = build("mlp").state_dict()
    torch.manual_seed(3)
    second = build("mlp").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_defaults_are_filled_in() -> None:
    assert complete("mnist_cnn", {"width": 8}) == {"width": 8, "hidden": 128}


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'mnist_cnn'") as raised:
        build("mnist_cn")
    assert "mlp" in raised.value.hint


@pytest.mark.parametrize("name", ["", "torch.nn:Linear", "os.system", "../mnist_cnn", "MLP"])
def test_a_name_is_never_an_import(name: str) -> None:
    with pytest.raises(UserError, match="unknown architecture"):
        build(name)


def test_an_unknown_argument_lists_the_known_ones() -> None:
    with pytest.raises(
        UserError, match="takes no argument 'widht', did you mean 'width'"
    ) as raised:
        build("mnist_cnn", widht=8)
    assert "hidden (default 128)" in raised.value.hint


@pytest.mark.parametrize("value", [0, -1, 257, 10**12, 16.0, "16", None, True, [16]])
def test_a_value_that_is_no_size_is_refused_before_anything_is_allocated(value: object) -> None:
    with pytest.raises(UserError, match=r"argument 'width' .* is "):
        build("mnist_cnn", width=value)


def test_an_argument_whose_name_is_no_string_is_refused() -> None:
    with pytest.raises(UserError, match="takes no argument 1"):
        complete("mlp", {1: 2})  # type: ignore[dict-item]
