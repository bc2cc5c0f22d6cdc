"""Pickles are read, not run: what a file names is told, and nothing of it happens."""

from __future__ import annotations

import collections
import enum
import functools
import io
import os
import zipfile
from pathlib import Path

import pytest
import torch
from source_nets import ConvNet
from torch import nn

from converter.errors import UserError
from converter.sources import LoadOptions, load, pickles
from patterns.networks import randomize_batchnorms

pytestmark = pytest.mark.slow

TRUST = LoadOptions(trust_pickle=True)


class Touch:
    """Unpickling it creates a file: a stand-in for any attack."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def save(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


FORMS = [
    {},
    {"pickle_protocol": 4},
    {"_use_new_zipfile_serialization": False},
    {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
]


@pytest.mark.parametrize("options", FORMS)
@pytest.mark.parametrize("where", ["alone", "beside", "inside"])
def test_a_malicious_pickle_never_runs(tmp_path: Path, options: dict, where: str) -> None:
    victim = tmp_path / "victim"
    attack = Touch(victim)
    content = {
        "alone": attack,
        "beside": {"state_dict": ConvNet().state_dict(), "note": attack},
        "inside": {"conv.weight": torch.zeros(2), "bn1.weight": attack},
    }[where]
    path = save(tmp_path / "model.pt", content, **options)
    for arch in (None, "source_nets:ConvNet"):
        with pytest.raises(UserError) as raised:
            load(path, LoadOptions(arch=arch))
        assert f"{os.system.__module__}.system" in raised.value.message
        assert "--trust-pickle" in raised.value.hint
    assert not victim.exists()


def test_what_the_scan_misses_torch_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan only words the message: safety is torch's weights_only, with or without it."""
    victim = tmp_path / "victim"
    path = save(tmp_path / "model.pt", {"a": torch.zeros(1), "b": Touch(victim)})
    monkeypatch.setattr(pickles, "scan_file", lambda _: pickles.Scan("", ()))
    with pytest.raises(UserError, match="cannot be read as tensors"):
        load(path)
    assert not victim.exists()


def test_a_trusted_pickle_does_run(tmp_path: Path) -> None:
    """The option means what it says; the tests above would pass if nothing ever ran."""
    victim = tmp_path / "victim"
    with pytest.raises(UserError, match="no weights"):
        load(save(tmp_path / "model.pt", Touch(victim)), TRUST)
    assert victim.exists()


@pytest.mark.parametrize("options", FORMS)
def test_a_whole_module_is_named(tmp_path: Path, options: dict) -> None:
    path = save(tmp_path / "model.pt", ConvNet(), **options)
    with pytest.raises(UserError) as raised:
        load(path)
    assert "whole pickled object of class source_nets.ConvNet" in raised.value.message
    for way_out in ("state_dict()", "--arch", "torch.export", "--trust-pickle"):
        assert way_out in raised.value.hint


@pytest.mark.parametrize(("options", "key"), [*zip(FORMS, ["", "model", "ema", ""], strict=True)])
def test_a_trusted_module(tmp_path: Path, options: dict, key: str, assert_same) -> None:
    module = randomize_batchnorms(ConvNet())  # in training mode, as many are saved
    content = {key: module, "epoch": 3} if key else module
    loaded = load(save(tmp_path / "model.pt", content, **options), TRUST)
    assert any("was saved in training mode" in note for note in loaded.notes)
    assert any(f"under '{key}'" in note for note in loaded.notes) is bool(key)
    assert_same(loaded, module.eval())
    assert loaded.untracked == frozenset()


def test_the_averaged_module_is_preferred(tmp_path: Path, assert_same) -> None:
    """As ultralytics saves: half precision, both modules, and `ema` may be None."""
    plain, averaged = (randomize_batchnorms(ConvNet(), seed).half() for seed in (1, 2))
    path = save(tmp_path / "a.pt", {"model": plain, "ema": averaged})
    loaded = load(path, TRUST)
    assert_same(loaded, averaged.float().eval())
    assert any("widened to float32" in note for note in loaded.notes)
    loaded = load(save(tmp_path / "b.pt", {"model": plain, "ema": None}), TRUST)
    assert_same(loaded, plain.float().eval())


@pytest.mark.parametrize("ran", [False, True])
def test_lazy_layers_have_weights_once_they_ran(tmp_path: Path, ran: bool, assert_same) -> None:
    layers = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    module = nn.Sequential(*layers, nn.LazyLinear(2))
    path = tmp_path / "model.pt"
    if ran:
        module(torch.randn(4, 3, 6, 6))
        assert_same(load(save(path, module), TRUST), module.eval())
        return
    with pytest.raises(UserError, match="never saw an input") as raised:
        load(save(path, module), TRUST)
    assert "0 (LazyConv2d), 1 (LazyBatchNorm2d), 4 (LazyLinear)" in raised.value.message
    assert "on a batch" in raised.value.hint


def test_a_trusted_module_of_a_missing_class(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", ConvNet())
    content = path.read_bytes().replace(b"source_nets\nConvNet", b"source_netz\nConvNet")
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            data = old.open(entry.filename)
            data._expected_crc = None
            new.writestr(entry.filename, data.read())
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"needs code that is not here: .*source_netz"):
        load(path, TRUST)


def test_a_trusted_module_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class lives in a file beside the user, as in most training scripts."""
    import subprocess
    import sys

    (tmp_path / "beside_pickle.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n    pass\n"
    )
    code = (
        "import torch, beside_pickle; from torch import nn; "
        "torch.save(beside_pickle.Net(nn.Linear(3, 2), nn.BatchNorm1d(2)), 'model.pt')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    loaded = load("model.pt", TRUST)
    assert loaded.kind == "a pickled Net"
    assert sys.path == before


class Color(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        (Color.RED, "test_pickles.Color"),
        (functools.partial(print, 1), "functools.partial"),
        (nn.ReLU, "torch.nn.modules.activation.ReLU"),
        (range, None),
    ],
)
@pytest.mark.parametrize("options", FORMS)
def test_the_offending_object_is_named(
    tmp_path: Path, extra: object, name: str | None, options: dict
) -> None:
    content = {"state_dict": ConvNet().state_dict(), "extra": extra}
    path = save(tmp_path / "model.pt", content, **options)
    with pytest.raises(
        UserError, match=name or r"is a state_dict|with a pickle_protocol"
    ) as raised:
        load(path, LoadOptions() if name is None else LoadOptions(arch="source_nets:ConvNet"))
    assert name is None or "--trust-pickle" in raised.value.hint
    with pytest.raises(UserError, match="is a state_dict"):  # trusted, it is read
        load(path, TRUST)


def test_tensor_parts_are_not_foreign(tmp_path: Path) -> None:
    content = collections.OrderedDict(
        a=torch.zeros(2, dtype=torch.bfloat16),
        b=nn.Parameter(torch.zeros(2)),
        c=torch.Size([3]),
        d=torch.float16,
        e=torch.device("cpu"),
        f={1, 2},
        g=collections.Counter("aab"),
    )
    assert pickles.scan_file(save(tmp_path / "a.pt", content)).foreign == ()


def test_scanning_tells_the_outermost_object(tmp_path: Path) -> None:
    for content, root in (
        ({"a": nn.Linear(1, 1)}, ""),
        ([nn.Linear(1, 1)], ""),
        ("text", ""),
        (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
    ):
        for options in FORMS:
            assert pickles.scan_file(save(tmp_path / "a.pt", content, **options)).root == root


def test_a_damaged_pickle(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for junk in (b"", b"\xff\xff", b"cos\n", b"\x80\x02X\xff\xff\xff\x7f", b"\x80\x02}q"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", junk)
        with pytest.raises(UserError, match=r"damaged torch\.save file"):
            load(path)


def test_damaged_tensors(tmp_path: Path) -> None:
    """A tensor that claims more bytes than the file has."""
    path = save(tmp_path / "model.pt", {"w": torch.zeros(4)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            new.writestr(entry, data[:4] if entry.endswith("data/0") else data)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="cannot be read as tensors"):
        load(path)
