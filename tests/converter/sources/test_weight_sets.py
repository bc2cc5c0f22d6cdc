"""Files with several sets of weights: the averaged one is taken, the rest is named, `--weights`
chooses. Each layout is one that training scripts write."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from source_nets import ConvNet
from torch import Tensor, nn

from converter.errors import UserError
from converter.sources import InputShape, LoadOptions, load, state_dict, weight_sets
from converter.sources.trained import load_module
from converter.system.quiet import torch_quiet
from patterns.networks import randomize_batchnorms

State = dict[str, Tensor]


@pytest.fixture
def plain() -> nn.Module:
    torch.manual_seed(1)
    return randomize_batchnorms(ConvNet(), 1).eval()


@pytest.fixture
def averaged() -> nn.Module:
    torch.manual_seed(2)
    return randomize_batchnorms(ConvNet(), 2).eval()


def options(key: str | None = None, arch: str | None = "source_nets:ConvNet") -> LoadOptions:
    return LoadOptions(arch=arch, weights=key, input_shapes=(InputShape((3, 8, 8)),))


def read(tmp_path: Path, content: object, key: str | None = None) -> state_dict.Rebuilt:
    """What every command reads: through the file, without the export."""
    path = tmp_path / "model.pt"
    torch.save(content, path)
    trained = load_module(path, options(key))
    return state_dict.Rebuilt(trained.module, None, frozenset(), list(trained.notes))


def state(module: nn.Module, prefix: str = "") -> State:
    return {prefix + name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(found: nn.Module, module: nn.Module) -> bool:
    return all(torch.equal(v, module.state_dict()[k]) for k, v in found.state_dict().items())


def parameters(module: nn.Module) -> State:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


LAYOUTS: dict[str, Any] = {
    "basicsr": lambda p, a: {"params": state(p), "params_ema": state(a)},
    "guided diffusion": lambda p, a: {"model": state(p), "ema_model": state(a), "step": 3},
    "yolo": lambda p, a: {"model_state_dict": state(p), "model_ema_state_dict": state(a)},
    "swa": lambda p, a: {"state_dict": state(p), "swa_state_dict": state(a)},
    "timm": lambda p, a: {"state_dict": state(p), "state_dict_ema": state(a), "epoch": 1},
    "ema first": lambda p, a: {"ema_params": state(a), "params": state(p)},
    "camel": lambda p, a: {"model": state(p), "modelEMA": {"module": state(a), "updates": 7}},
    "lightning": lambda p, a: {
        "state_dict": state(p, "net."),
        "callbacks": {"EMACallback": {"ema_state_dict": state(a, "net.")}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}],
    },
    "ema_pytorch": lambda p, a: (
        state(p, "online_model.")
        | state(a, "ema_model.")
        | {"initted": torch.tensor(True), "step": torch.tensor(9)}
    ),
    "stylegan": lambda p, a: {"g": state(p), "d": nn.Linear(2, 2).state_dict(), "g_ema": state(a)},
    "averaged model": lambda p, a: {
        "net": state(p, "module."),
        "averaged": {**state(a, "module."), "n_averaged": torch.tensor(4)},
    },
    "deep": lambda p, a: {
        "trainer": {"last": {"model": state(p)}, "hooks": [{"name": "x"}, {"ema": state(a)}]}
    },
    "latent diffusion": lambda p, a: {
        "state_dict": state(p, "model.")
        | {f"model_ema.{k.replace('.', '')}": v for k, v in parameters(a).items()}
        | {"model_ema.decay": torch.tensor(0.99), "model_ema.num_updates": torch.tensor(5)}
    },
    "latent diffusion, a part": lambda p, a: {
        "state_dict": state(p, "model.unet.")
        | {f"model_ema.unet{k.replace('.', '')}": v for k, v in parameters(a).items()}
        | {"first_stage.weight": torch.ones(2, 2), "model_ema.num_updates": torch.tensor(5)}
    },
    "denoising diffusion": lambda p, a: {
        "model": state(p),
        "ema": state(p, "online_model.") | state(a, "ema_model.") | {"initted": torch.tensor(True)},
        "opt": {"state": [{"sqr_avg": torch.ones(3), "other": torch.ones(3)}], "hypers": [{}]},
    },
    "mmengine": lambda p, a: {
        "meta": {"mmengine_version": "0.10.4", "epoch": 3},
        "state_dict": state(a),
        "ema_state_dict": {**state(p, "module."), "steps": torch.tensor(3)},
    },
    "parameters alone": lambda p, a: {"model": state(p), "ema": {"shadow": parameters(a)}},
    "a list": lambda p, a: {
        "model": state(p),
        "ema": {"decay": 0.99, "num_updates": 3, "shadow_params": list(parameters(a).values())},
    },
}  # fmt: skip
PARAMETERS_ALONE = {"latent diffusion", "latent diffusion, a part", "parameters alone", "a list"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_averaged_weights_are_taken(
    tmp_path: Path, plain: nn.Module, averaged: nn.Module, layout: str
) -> None:
    found = read(tmp_path, LAYOUTS[layout](plain, averaged))
    expected = copy.deepcopy(plain if layout in PARAMETERS_ALONE else averaged)
    expected.load_state_dict(parameters(averaged), strict=False)
    assert same(found.module, expected)
    assert any("averaged weights are the ones that are evaluated" in n for n in found.notes)
    (unused,) = [note for note in found.notes if note.startswith("not used: ")]
    assert re.search(r"\((20|21) tensors\)", unused)
    assert "exp_avg" not in unused
    assert "opt." not in unused
    told = any("holds parameters alone: running_mean, running_var" in n for n in found.notes)
    assert told is (layout in PARAMETERS_ALONE)


@pytest.mark.parametrize(
    ("layout", "key"),
    [
        ("basicsr", "params"),
        ("timm", "state_dict"),
        ("camel", "model"),
        ("lightning", "state_dict"),
        ("lightning", "state_dict.net"),
        ("ema_pytorch", "online_model"),
        ("averaged model", "net"),
        ("deep", "trainer.last"),
        ("deep", "trainer.last.model"),
        ("latent diffusion", "state_dict.model"),
        ("parameters alone", "model"),
    ],
)
def test_the_user_chooses(
    tmp_path: Path, plain: nn.Module, averaged: nn.Module, layout: str, key: str
) -> None:
    found = read(tmp_path, LAYOUTS[layout](plain, averaged), key)
    assert same(found.module, plain)
    assert found.notes[0].endswith("were taken, as you said")


@pytest.mark.parametrize(
    ("layout", "key"),
    [("ema_pytorch", "ema_model"), ("deep", "trainer.hooks.1"), ("camel", "modelEMA.module")],
)
def test_the_user_chooses_the_averaged(
    tmp_path: Path, plain: nn.Module, averaged: nn.Module, layout: str, key: str
) -> None:
    found = read(tmp_path, LAYOUTS[layout](plain, averaged), key)
    assert same(found.module, averaged)


@pytest.mark.parametrize("key", ["parm", "", "params.conv", "epoch", "params_ema.x"])
def test_a_wrong_key_lists_what_there_is(
    tmp_path: Path, plain: nn.Module, averaged: nn.Module, key: str
) -> None:
    content = {**LAYOUTS["basicsr"](plain, averaged), "epoch": 3}
    with pytest.raises(UserError) as raised:
        read(tmp_path, content, key)
    if key != "params.conv":  # that is a part of the weights, and does not fit
        assert "It holds params (20 tensors), params_ema (20 tensors)" in raised.value.message
    else:
        assert "None of them is that of source_nets:ConvNet" in raised.value.message


def test_a_wrong_key_lists_the_prefixes_of_one_set(
    tmp_path: Path, plain: nn.Module, averaged: nn.Module
) -> None:
    with pytest.raises(UserError, match=r"online_model \(20 tensors\), ema_model \(20 tensors\)"):
        read(tmp_path, LAYOUTS["ema_pytorch"](plain, averaged), "ema")


class Shadow:
    """An average as scripts write their own: no module, its weights in an attribute."""

    def __init__(self, module: nn.Module) -> None:
        self.shadow = parameters(module)
        self.decay = 0.99
        self.me = self


def test_an_object_that_keeps_an_average(
    tmp_path: Path, plain: nn.Module, averaged: nn.Module
) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": state(plain), "helper": Shadow(averaged)}, path)
    with pytest.raises(UserError, match=r"test_weight_sets\.Shadow"):
        load_module(path, options())
    trusted = dataclasses.replace(options(), trust_pickle=True)
    trained = load_module(path, trusted)
    assert torch.equal(trained.module.fc.weight, averaged.fc.weight)
    assert torch.equal(trained.module.bn1.running_mean, plain.bn1.running_mean)
    chosen = load_module(path, dataclasses.replace(trusted, weights="model"))
    assert same(chosen.module, plain)
    assert any("helper.shadow (11 tensors)" in note for note in chosen.notes)


def test_an_average_of_no_steps_is_none(tmp_path: Path, plain: nn.Module) -> None:
    """AveragedModel starts as a copy: before its first update that is an untrained network."""
    fresh = torch.optim.swa_utils.AveragedModel(ConvNet())
    found = read(tmp_path, {"model": state(plain), "swa": fresh.state_dict()})
    assert same(found.module, plain)
    assert "those under 'swa' are an average of no steps yet" in found.notes[0]


def test_an_average_that_does_not_fit_is_named(tmp_path: Path, plain: nn.Module) -> None:
    other = ConvNet(num_classes=7).state_dict()
    found = read(tmp_path, {"model": state(plain), "ema": other})
    assert same(found.module, plain)
    assert found.notes[:2] == [
        "the weights under 'model' were taken, which are those of source_nets:ConvNet",
        "not used: ema (20 tensors); --weights NAME takes others",
    ]
    with pytest.raises(UserError, match=r"None of them .*; of 'ema', the nearest, .*\(7, 4\)"):
        read(tmp_path, {"model": nn.Linear(2, 2).state_dict(), "ema": other})


def test_names_that_tell_nothing_are_asked_for(
    tmp_path: Path, plain: nn.Module, averaged: nn.Module
) -> None:
    content = {"student": state(plain), "teacher": state(averaged)}
    with pytest.raises(UserError, match="No name tells which is meant") as raised:
        read(tmp_path, content)
    assert "--weights student" in raised.value.hint
    assert same(read(tmp_path, content, "teacher").module, averaged)
    flat = state(plain, "student.") | state(averaged, "teacher.")
    with pytest.raises(UserError, match="No name tells which is meant"):
        read(tmp_path, {"state_dict": flat})
    assert same(read(tmp_path, {"state_dict": flat}, "state_dict.teacher").module, averaged)


def test_equal_weights_are_no_question(tmp_path: Path, plain: nn.Module) -> None:
    found = read(tmp_path, {"last": state(plain), "best": state(plain)})
    assert same(found.module, plain)


def test_a_list_of_another_order_is_named(tmp_path: Path, plain: nn.Module) -> None:
    backwards = list(parameters(plain).values())[::-1]
    found = read(tmp_path, {"model": state(plain), "ema": {"shadow_params": backwards}})
    assert same(found.module, plain)
    assert "not used: ema.shadow_params (11 tensors)" in "\n".join(found.notes)
    with pytest.raises(UserError, match="tensors without names"):
        read(tmp_path, {"shadow_params": backwards})


def test_parameters_without_their_statistics_do_not_fit(tmp_path: Path, plain: nn.Module) -> None:
    """A batch-norm without its statistics would be another function."""
    for content in ({"ema": parameters(plain)}, {"ema": list(parameters(plain).values())}):
        with pytest.raises(UserError, match=r"6 missing: bn1\.running_mean"):
            read(tmp_path, content)


def test_parts_of_one_network(tmp_path: Path, plain: nn.Module) -> None:
    whole = state(plain)
    content: dict[str, Any] = {}
    for name, tensor in whole.items():
        child, _, rest = name.partition(".")
        content.setdefault(child, {})[rest] = tensor
    found = read(tmp_path, {**content, "optimizer": {"state": {}, "param_groups": []}})
    assert same(found.module, plain)


def test_another_depth_of_the_same_family_is_refused(tmp_path: Path) -> None:
    """The names of a shallow network are among those of a deep one: what is left over tells."""
    deep = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict()
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {f"net.{k}": v for k, v in deep.items()}}, path)
    with pytest.raises(UserError, match=r"2 unexpected: 1\.weight, 1\.bias"):
        load_module(path, options(arch="test_weight_sets:shallow"))


def shallow() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3))


def test_without_an_architecture_every_set_is_named(
    tmp_path: Path, plain: nn.Module, averaged: nn.Module
) -> None:
    path = tmp_path / "model.pt"
    torch.save(LAYOUTS["basicsr"](plain, averaged), path)
    with pytest.raises(UserError, match=r"beside them params \(20 tensors\)"):
        load(path)


def test_a_container_that_holds_itself(tmp_path: Path, plain: nn.Module) -> None:
    content: dict[str, Any] = {"state_dict": state(plain)}
    content["self"] = content
    sets = weight_sets.find(content)
    assert [found.label for found in sets] == ["state_dict"]


@pytest.mark.parametrize("name", ["schema", "remastered", "emaciated", "avgpooling", "swap"])
def test_words_that_only_look_averaged(name: str) -> None:
    assert not weight_sets.is_averaged((name,))


def test_other_formats_have_one_set(tmp_path: Path) -> None:
    with torch_quiet():
        script = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    path = tmp_path / "model.pt"
    script.save(str(path))
    with pytest.raises(UserError, match="which holds one set of weights"):
        load(path, options("ema"))
