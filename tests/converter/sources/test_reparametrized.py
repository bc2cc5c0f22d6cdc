"""Pruned and normalised weights, in the old forms and in the new ones, fit each other."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from converter.errors import UserError
from converter.sources import LoadOptions
from converter.sources.trained import load_module
from converter.system.quiet import torch_quiet
from patterns.networks import randomize_batchnorms

HERE = "test_reparametrized"


def body() -> nn.Sequential:
    """Out and in channels are equal where the axis of the rows cannot be told from the shape."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )


LAYERS = (0, 2, 4, 7)


def _each(change: Callable[[nn.Module], object]) -> nn.Sequential:
    module = body()
    with torch_quiet():
        for index in LAYERS:
            change(module[index])
    return module


def plain() -> nn.Module:
    return body()


def pruned() -> nn.Module:
    return _each(lambda layer: prune.l1_unstructured(layer, "weight", 0.5))


def old_weight_norm() -> nn.Module:
    return _each(nn.utils.weight_norm)


def new_weight_norm() -> nn.Module:
    return _each(parametrizations.weight_norm)


def whole_weight_norm() -> nn.Module:
    return _each(lambda layer: parametrizations.weight_norm(layer, dim=None))


def old_spectral_norm() -> nn.Module:
    return _each(nn.utils.spectral_norm)


def new_spectral_norm() -> nn.Module:
    return _each(parametrizations.spectral_norm)


FORMS = (pruned, old_weight_norm, new_weight_norm, whole_weight_norm, old_spectral_norm,
         new_spectral_norm)  # fmt: skip
SAME_KIND = [
    pair
    for pair in itertools.product((old_weight_norm, new_weight_norm), repeat=2)
    if pair[0] is not pair[1]
] + [(old_spectral_norm, new_spectral_norm), (new_spectral_norm, old_spectral_norm)]


def trained(factory: Callable[[], nn.Module]) -> nn.Module:
    module = randomize_batchnorms(factory())
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) / 4
    with torch.no_grad():
        module.train()
        for _ in range(3):  # the power iterations of spectral norms
            module(torch.randn(4, 3, 5, 5, generator=generator))
    return module.eval()


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize(
    ("stored", "built"),
    [*((form, plain) for form in FORMS), *SAME_KIND, (plain, new_weight_norm),
     (plain, old_weight_norm), (plain, whole_weight_norm)],
)  # fmt: skip
def test_forms(tmp_path: Path, stored, built, prefix: str) -> None:
    module = trained(stored)
    path = tmp_path / "model.pt"
    torch.save({prefix + k: v for k, v in module.state_dict().items()}, path)
    with torch_quiet():
        found = load_module(path, LoadOptions(arch=f"{HERE}:{built.__name__}"))
    image = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        expected = module(image)
        assert torch.allclose(found.module.eval()(image), expected, rtol=1e-5, atol=1e-6)
    said = [note for note in found.notes if note.startswith("4 weights are ")]
    assert len(said) == 1


def test_masks_of_biases_and_other_names(tmp_path: Path) -> None:
    module = trained(plain)
    for layer, name in ((0, "weight"), (7, "weight"), (7, "bias")):
        prune.random_unstructured(module[layer], name, 0.5)
    path = tmp_path / "model.pt"
    torch.save(module.state_dict(), path)
    found = load_module(path, LoadOptions(arch=f"{HERE}:plain"))
    assert "3 weights are pruned: their masks were applied" in found.notes
    image = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        assert torch.allclose(found.module.eval()(image), module(image))


def test_the_same_form_stays(tmp_path: Path) -> None:
    for factory in FORMS:
        module = trained(factory)
        path = tmp_path / "model.pt"
        torch.save(module.state_dict(), path)
        with torch_quiet():
            found = load_module(path, LoadOptions(arch=f"{HERE}:{factory.__name__}"))
        state = found.module.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
        assert not found.notes


def test_a_plain_weight_has_no_spectral_form(tmp_path: Path) -> None:
    """It would be divided by its norm once more."""
    path = tmp_path / "model.pt"
    torch.save(trained(plain).state_dict(), path)
    with torch_quiet(), pytest.raises(UserError, match=r"0\.parametrizations\.weight"):
        load_module(path, LoadOptions(arch=f"{HERE}:new_spectral_norm"))


def test_a_mask_alone_is_left_over(tmp_path: Path) -> None:
    module = trained(plain)
    path = tmp_path / "model.pt"
    torch.save({**module.state_dict(), "0.weight_mask": torch.ones(4, 3, 3, 3)}, path)
    with pytest.raises(UserError, match=r"1 unexpected: 0\.weight_mask"):
        load_module(path, LoadOptions(arch=f"{HERE}:plain"))


class Named(nn.Module):
    """Parameters whose names only look like parts of a form."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.mix_u, self.mix_v, self.mix_g, self.mix_orig = (
            nn.Parameter(torch.randn(3)) for _ in range(4)
        )


def test_names_that_only_look_like_parts(tmp_path: Path) -> None:
    module = Named()
    path = tmp_path / "model.pt"
    torch.save({f"net.{k}": v for k, v in copy.deepcopy(module.state_dict()).items()}, path)
    found = load_module(path, LoadOptions(arch=f"{HERE}:Named"))
    assert all(torch.equal(v, found.module.state_dict()[k]) for k, v in module.state_dict().items())
