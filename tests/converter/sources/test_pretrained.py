"""Folders of Hugging Face's: which file is read, which network config.json names, and that
neither an index nor a link leads out of the folder. transformers itself is a stand-in here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from source_nets import ConvNet
from torch import Tensor, nn

from converter.commands.finetune import base_of
from converter.commands.options.finetune import Finetune
from converter.errors import UserError
from converter.sources import InputShape, LoadOptions, load
from converter.sources.trained import load_module
from patterns.networks import randomize_batchnorms, timm_model

TRANSFORMERS = """
import json, os
from pathlib import Path
from torch import nn

class Config:
    def __init__(self, entries):
        self.__dict__.update(entries)

class AutoConfig:
    @classmethod
    def from_pretrained(cls, folder, *, local_files_only, trust_remote_code, **changes):
        assert local_files_only and not trust_remote_code
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        entries = json.loads((Path(folder) / "config.json").read_text())
        if "auto_map" in entries:
            raise ValueError("it contains custom code which must be executed")
        return Config({**entries, **changes})

class Network(nn.Module):
    def __init__(self, config):
        super().__init__()
        assert not getattr(config, "use_pretrained_backbone", False)
        from source_nets import ConvNet
        self.backbone = ConvNet()
        self.classifier = nn.Linear(5, config.num_labels)

    def forward(self, pixel_values=None, labels=None, return_dict=None):
        return {"logits": self.classifier(self.backbone(pixel_values))}

class AutoModelForImageClassification:
    @classmethod
    def from_config(cls, config):
        return Network(config)

class AutoModel:
    @classmethod
    def from_config(cls, config):
        return Network(config).backbone
"""
CONFIG = {
    "architectures": ["Network"],
    "num_labels": 3,
    "image_size": 8,
    "use_pretrained_backbone": True,
}


@pytest.fixture
def transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    place = tmp_path / "stand_in"
    place.mkdir()
    (place / "transformers.py").write_text(TRANSFORMERS)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    import transformers as module

    yield module
    sys.modules.pop("transformers", None)


@pytest.fixture
def module(transformers: Any) -> nn.Module:
    torch.manual_seed(4)
    return randomize_batchnorms(transformers.Network(transformers.Config({"num_labels": 3}))).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "net"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG))
    return place


def same(found: nn.Module, module: nn.Module) -> bool:
    return all(torch.equal(v, module.state_dict()[k]) for k, v in found.state_dict().items())


def sharded(
    folder: Path, state: dict[str, Tensor], stem: str, save: Callable[..., Any], count: int = 3
) -> Path:
    """As save_pretrained writes it with a small max_shard_size."""
    names = list(state)
    where = {
        name: f"{stem[0]}-{i % count + 1:05}-of-{count:05}{stem[1]}" for i, name in enumerate(names)
    }
    for file in sorted(set(where.values())):
        save({name: state[name] for name in names if where[name] == file}, folder / file)
    index = folder / f"{stem[0]}{stem[1]}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return index


SAFE, BIN = ("model", ".safetensors"), ("pytorch_model", ".bin")


@pytest.mark.parametrize(
    "form", ["safetensors", "bin", "safetensors shards", "bin shards", "index"]
)
@pytest.mark.parametrize("arch", [None, "transformers:AutoModelForImageClassification"])
def test_folders(folder: Path, module: nn.Module, form: str, arch: str | None) -> None:
    state = module.state_dict()
    path = folder
    if form == "safetensors":
        save_file(state, folder / "model.safetensors")
    elif form == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    elif form == "bin shards":
        sharded(folder, state, BIN, torch.save)
    else:
        index = sharded(folder, state, SAFE, save_file)
        path = index if form == "index" else folder
    trained = load_module(path, LoadOptions(arch=arch))
    assert same(trained.module, module)
    assert trained.known is not None
    assert trained.known.sizes == (3, 8, 8)
    said = "config.json says that the network is transformers:Network" in trained.notes
    assert said is (arch is None)


def test_a_folder_becomes_a_graph(folder: Path, module: nn.Module) -> None:
    save_file(module.state_dict(), folder / "model.safetensors")
    torch.save({}, folder / "pytorch_model.bin")
    loaded = load(folder)
    assert loaded.kind == "a folder of Hugging Face's with weights of transformers:Network"
    assert [value.name for value in loaded.model.graph.outputs] == ["logits"]
    assert [(i.name, i.shape) for i in loaded.inputs] == [("pixel_values", ("batch", 3, 8, 8))]
    assert "model.safetensors was read; not used: pytorch_model.bin" in loaded.notes
    assert "input shape 3,8,8 from config.json; --input-shape overrides it" in loaded.notes


def test_arguments_change_the_config(folder: Path, module: nn.Module) -> None:
    save_file(module.state_dict(), folder / "model.safetensors")
    with pytest.raises(UserError, match=r"classifier\.weight is \(3, 5\), not \(7, 5\)"):
        load_module(folder, LoadOptions(arch_args={"num_labels": 7}))


def test_the_network_inside(folder: Path, module: nn.Module) -> None:
    save_file(module.state_dict(), folder / "model.safetensors")
    trained = load_module(folder, LoadOptions(arch="transformers:AutoModel"))
    assert same(trained.module, module.backbone)
    assert "not used: classifier (2 tensors); --weights NAME takes others" in trained.notes


def test_a_file_of_the_folder(folder: Path, module: nn.Module) -> None:
    file = folder / "model.safetensors"
    save_file(module.state_dict(), file)
    with pytest.raises(UserError) as raised:
        load(file)
    assert "config.json beside it says: --arch transformers:Network" in raised.value.hint
    assert same(load_module(file, LoadOptions(arch="transformers:Network")).module, module)


def test_a_network_of_timm(tmp_path: Path) -> None:
    module = randomize_batchnorms(timm_model("resnet10t", in_chans=1, num_classes=3)).eval()
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "resnet10t", "num_classes": 3, "model_args": {"in_chans": 1}})
    )
    trained = load_module(tmp_path, LoadOptions())
    assert same(trained.module, module)
    assert "config.json says that the network is timm:resnet10t" in trained.notes


def test_a_network_of_ones_own(folder: Path) -> None:
    module = randomize_batchnorms(ConvNet())
    save_file(module.state_dict(), folder / "model.safetensors")
    options = LoadOptions(arch="source_nets:ConvNet", input_shapes=(InputShape((3, 8, 8)),))
    assert same(load_module(folder, options).module, module)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"model_type": "resnet"}, "does not say what network"),
        ({"architectures": []}, "does not say what network"),
        ({"architectures": ["Missing"]}, "transformers has no model 'Missing'"),
        ({**CONFIG, "auto_map": {"AutoModel": "x.Y"}}, "contains custom code"),
        ({"architecture": "no_such_net"}, "timm has no model 'no_such_net'"),
        ([], "is no JSON object"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_descriptions_that_do_not_help(
    folder: Path, module: nn.Module, config: Any, complaint: str
) -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    save_file(module.state_dict(), folder / "model.safetensors")
    with pytest.raises(UserError, match=complaint):
        load_module(folder, LoadOptions())


def test_without_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(ConvNet().state_dict(), folder / "model.safetensors")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="transformers:Network, and transformers is not") as raised:
        load_module(folder, LoadOptions())
    assert "pip install transformers" in raised.value.hint


def test_transformers_needs_a_config(tmp_path: Path, module: nn.Module) -> None:
    path = tmp_path / "a.safetensors"
    save_file(module.state_dict(), path)
    with pytest.raises(UserError, match=r"config\.json beside the weights, and there is none"):
        load_module(path, LoadOptions(arch="transformers:Network"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.update(x="../secret.safetensors"), "outside its folder"),
        (lambda m: m.update(x="/etc/passwd"), "outside its folder"),
        (lambda m: m.update(x=""), "outside its folder"),
        (lambda m: m.update(x="link.safetensors"), "outside its folder"),
        (lambda m: m.update(x="gone.safetensors"), "which is not there"),
        (lambda m: m.update(x=next(iter(m.values()))), "says that the tensor 'x' is in"),
        (lambda m: m.update(x=3), "without its weight_map"),
        (lambda m: m.clear(), "without its weight_map"),
    ],
)
def test_indexes_that_lie(
    folder: Path, module: nn.Module, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    save_file({"x": torch.ones(2)}, folder.parent / "secret.safetensors")
    (folder / "link.safetensors").symlink_to(folder.parent / "secret.safetensors")
    index = sharded(folder, module.state_dict(), SAFE, save_file)
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match=complaint):
        load_module(folder, LoadOptions())


def cache(folder: Path, place: Path) -> Path:
    """The folder as Hugging Face's cache keeps it: names of a revision that link to blobs."""
    repository = place / "models--someone--net"
    snapshot = repository / "snapshots" / "0f1e2d"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = repository / "blobs" / f"{number:064x}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
    return snapshot


def test_the_cache(folder: Path, module: nn.Module, tmp_path: Path) -> None:
    sharded(folder, module.state_dict(), SAFE, save_file)
    snapshot = cache(folder, tmp_path / "hub")
    assert same(load_module(snapshot, LoadOptions()).module, module)
    blob = (snapshot / "model-00001-of-00003.safetensors").resolve()
    elsewhere = tmp_path / "elsewhere"
    blob.rename(elsewhere)
    blob.symlink_to(elsewhere)
    with pytest.raises(UserError, match="outside its folder"):
        load_module(snapshot, LoadOptions())


def test_weights_that_are_tied_are_stored_once(tmp_path: Path) -> None:
    from source_nets import Tokens

    module = Tokens()
    state = {k: v for k, v in module.state_dict().items() if k != "head.weight"}
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    trained = load_module(path, LoadOptions(arch="source_nets:Tokens"))
    assert same(trained.module, module)
    assert "1 tied to other weights are stored once" in trained.notes


def test_nothing_stays_offline(folder: Path, module: nn.Module) -> None:
    save_file(module.state_dict(), folder / "model.safetensors")
    before = os.environ.get("HF_HUB_OFFLINE")
    load_module(folder, LoadOptions())
    assert os.environ.get("HF_HUB_OFFLINE") == before


def test_finetune_reads_the_same_weights(folder: Path) -> None:
    module = timm_model("resnet10t", num_classes=3)
    torch.save({"model": timm_model("resnet10t", num_classes=3).state_dict(),
                "model_ema": module.state_dict()}, folder / "pytorch_model.bin")  # fmt: skip
    asked = Finetune(folder, arch="timm:resnet10t", arch_arg=("num_classes=3",))
    state = module.state_dict()
    assert all(torch.equal(state[k], v) for k, v in base_of(asked).state_dict.items())
