"""The style: what it makes of a network, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from converter.architectures import ARCHITECTURES, Style, build, complete, norm_layer
from converter.errors import UserError

LINEAR = (nn.Linear, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NAMES = list(ARCHITECTURES)


def norms(module: nn.Module) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, NORMS)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("position", ["before", "after"])
def test_no_bias_is_in_vain(name: str, position: str) -> None:
    """A norm that follows subtracts whatever a bias adds, so that the logits would not change."""
    torch.manual_seed(0)
    module = build(name, style=Style(bn_position=position, activation="tanh")).double()
    x = torch.rand(4, 1, 28, 28, dtype=torch.float64)
    before = module(x)
    biases = [m.bias for m in module.modules() if isinstance(m, LINEAR) and m.bias is not None]
    assert biases
    for bias in biases:
        with torch.no_grad():
            bias.add_(0.5)
            assert float((module(x) - before).abs().max()) > 1e-4
            bias.sub_(0.5)


@pytest.mark.parametrize("name", NAMES)
def test_a_bias_is_missing_only_in_front_of_a_norm(name: str) -> None:
    layers = list(build(name, style=Style(bn_position="after")).modules())
    assert all(m.bias is not None for m in layers if isinstance(m, LINEAR))


@pytest.mark.parametrize("name", NAMES)
def test_no_norm_means_none_and_biases_everywhere(name: str) -> None:
    module = build(name, style=Style(norm="none"))
    assert not norms(module)
    linear = [m for m in module.modules() if isinstance(m, LINEAR)]
    assert all(m.bias is not None for m in linear)


def test_before_is_in_front_of_the_activation_and_after_behind_it() -> None:
    for position, order in (
        ("before", ["fc1", "bn1", "tanh1"]),
        ("after", ["fc1", "tanh1", "bn1"]),
    ):
        module = build("mlp", style=Style(bn_position=position, activation="tanh"))
        assert list(module._modules)[1:4] == order


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_gamma_and_beta_can_be_left_out(scale: bool, center: bool) -> None:
    style = Style(scale=scale, center=center, eps=1e-3, momentum=0.3)
    layer = norm_layer(style, 4, rank=1)
    assert isinstance(layer, nn.BatchNorm1d)
    assert [name for name, _ in layer.named_parameters()] == ["weight"] * scale + ["bias"] * center
    assert (layer.eps, layer.momentum) == (1e-3, 0.3)
    x = 3 * torch.randn(50, 4) + 7
    y = layer(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(0, unbiased=False), torch.ones(4), atol=1e-3, rtol=0)


def test_the_input_norm_comes_first_also_where_there_is_no_other() -> None:
    module = build("cnn", style=Style(norm="none", input_norm=True), input_shape=(3, 20, 20))
    assert next(iter(module._modules)) == "input_norm"
    assert [norm.num_features for norm in norms(module)] == [3]


def test_dropout_is_behind_the_hidden_dense_layers() -> None:
    module = build("mlp", style=Style(dropout=0.25))
    assert [m.p for m in module.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]


@pytest.mark.parametrize("name", NAMES)
def test_the_initial_weights_are_scaled_and_nothing_else(name: str) -> None:
    torch.manual_seed(4)
    plain = dict(build(name).named_parameters())
    torch.manual_seed(4)
    scaled = dict(build(name, style=Style(init_scale=3.0)).named_parameters())
    for key, weight in plain.items():
        factor = 3.0 if weight.dim() > 1 and weight.requires_grad else 1.0
        assert torch.equal(scaled[key], weight * factor)


def test_a_checkpoint_keeps_only_what_differs() -> None:
    assert complete("mlp-small", {"style": Style()}) == {"hidden": 64}
    arguments = complete(
        "mlp-small",
        {"style": {"norm": "none", "eps": 1e-5}, "classes": 3, "input_shape": [3, 8, 9]},
    )
    assert arguments == {
        "hidden": 64,
        "style": {"norm": "none"},
        "classes": 3,
        "input_shape": [3, 8, 9],
    }
    assert complete("mlp-small", arguments) == arguments
    assert build("mlp-small", **arguments)(torch.rand(2, 3, 8, 9)).shape == (2, 3)


@pytest.mark.parametrize("name", NAMES)
def test_other_images_and_classes(name: str) -> None:
    side = max(ARCHITECTURES[name].smallest, 9)
    module = build(name, input_shape=(3, side, side + 1), classes=4)
    assert module(torch.rand(2, 3, side, side + 1)).shape == (2, 4)


@pytest.mark.parametrize("name", [n for n in NAMES if ARCHITECTURES[n].smallest > 1])
def test_images_that_are_too_small_are_refused(name: str) -> None:
    side = ARCHITECTURES[name].smallest
    assert build(name, input_shape=(1, side, side))(torch.rand(2, 1, side, side)).shape == (2, 10)
    with pytest.raises(UserError, match="are too small"):
        build(name, input_shape=(1, side, side - 1))


@pytest.mark.parametrize(
    ("style", "why"),
    [
        ({"norm": "layer"}, "'norm' is 'layer'"),
        ({"norm": ["batch"]}, "'norm' is"),
        ({"bn_position": None}, "'bn_position' is None"),
        ({"activation": "os.system"}, "'activation' is"),
        ({"momentum": 0}, "'momentum' is 0"),
        ({"momentum": None}, "'momentum' is None"),
        ({"eps": float("nan")}, "'eps' is nan"),
        ({"eps": -1e-5}, "'eps' is"),
        ({"dropout": 1.0}, "'dropout' is 1.0"),
        ({"dropout": True}, "'dropout' is True"),
        ({"init_scale": float("inf")}, "'init_scale' is inf"),
        ({"scale": 1}, "'scale' is 1"),
        ({"epsilon": 1e-5}, "no field 'epsilon'"),
        ("batch", "is str, not a dictionary"),
    ],
)
def test_a_style_that_cannot_be_is_refused(style: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        build("mlp", style=style)


@pytest.mark.parametrize(
    "arguments",
    [
        {"classes": 1},
        {"classes": 10**6},
        {"classes": True},
        {"input_shape": [28, 28]},
        {"input_shape": [1, 28, 10**9]},
        {"input_shape": [17, 28, 28]},
        {"input_shape": "111"},
        {"input_shape": [1, 28.0, 28]},
    ],
)
def test_a_task_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="the network is asked for"):
        build("mlp", **arguments)


def test_a_network_that_would_fill_the_memory_is_refused_before_it_is_made() -> None:
    with pytest.raises(UserError, match=r"would have .* parameters, more than"):
        build("mlp", first=4096, input_shape=(3, 1024, 1024))
