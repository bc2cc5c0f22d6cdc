"""What training files hold beside tensors is read as data; no file gets anything called."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime as dt
import decimal
import io
import pathlib
import pickle  # noqa: TID251  to write attacks
import struct
import sys
import types
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from source_nets import ConvNet
from torch import nn

from converter.errors import UserError
from converter.sources import LoadOptions, harmless, pickles, torch_save
from converter.sources.trained import load_module
from patterns.networks import randomize_batchnorms

ARCH = LoadOptions(arch="source_nets:ConvNet")

EXTRAS: dict[str, Any] = {
    "number": np.float64(0.9),
    "numbers": [np.float32(1), np.int64(2), np.bool_(True), np.float16(3), np.complex128(1j)],
    "text": np.str_("adam"),
    "array": np.arange(6.0).reshape(2, 3),
    "array of texts": np.array(["a", "bc"]),
    "array of objects": np.array([None, {"a": 1}], dtype=object),
    "array of dates": np.array(["2026-01-01"], dtype="datetime64[D]"),
    "array of records": np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
    "big-endian": np.arange(3, dtype=">f4"),
    "dtype": np.dtype("float32"),
    "type": np.float32,
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), weights=np.ones(3)),
    "simple namespace": types.SimpleNamespace(lr=0.1),
    "path": pathlib.PurePosixPath("/data/a"),
    "windows": pathlib.PureWindowsPath("C:/data"),
    "this path": pathlib.Path("a/b"),
    "now": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    "date": [dt.date(2026, 1, 2), dt.time(3), dt.timedelta(seconds=4)],
    "ordered": collections.OrderedDict(a=1),
    "default": collections.defaultdict(list, a=[1]),
    "default of default": collections.defaultdict(dict, {1: collections.defaultdict(int)}),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2], maxlen=5),
    "set": {1, 2},
    "frozenset": frozenset({"a"}),
    "uuid": uuid.UUID(int=7),
    "decimal": decimal.Decimal("0.1"),
    "range": [range(3), slice(1, 2)],
    "version": torch.__version__,
    "random": np.random.RandomState(0).get_state(),
    "bytes": b"abc",
}  # fmt: skip


def net() -> nn.Module:
    torch.manual_seed(0)
    return randomize_batchnorms(ConvNet()).eval()


def same(found: nn.Module, module: nn.Module) -> bool:
    return all(torch.equal(v, module.state_dict()[k]) for k, v in found.state_dict().items())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", EXTRAS)
def test_objects_of_training_need_no_trust(tmp_path: Path, name: str, legacy: bool) -> None:
    module = net()
    path = tmp_path / "model.pt"
    content = {name: EXTRAS[name], "state_dict": module.state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert pickles.scan_file(path).foreign == ()
    assert same(load_module(path, ARCH).module, module)


def test_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(EXTRAS, path)
    found = torch_save.content_of(path)
    assert found["number"] == 0.9
    assert found["numbers"] == [1.0, 2, True, 3.0, 1j]
    assert found["text"] == "adam"
    assert torch.equal(found["array"], torch.arange(6.0, dtype=torch.float64).reshape(2, 3))
    assert torch.equal(found["big-endian"], torch.arange(3.0))
    assert torch.equal(found["namespace"]["weights"], torch.ones(3, dtype=torch.float64))
    assert found["namespace"]["lr"] == 0.1
    assert found["default"] == {"a": [1]}
    assert found["deque"] == [1, 2]
    assert found["version"] == str(torch.__version__)
    for name in ("array of objects", "array of dates", "array of records", "path", "now", "uuid"):
        assert isinstance(found[name], harmless.Opaque), name


@pytest.mark.parametrize("order", ["C", "F"])
def test_weights_of_numpy(tmp_path: Path, order: str) -> None:
    module = net()
    arrays = {k: np.asarray(v.numpy(), order=order) for k, v in module.state_dict().items()}
    torch.save({"params": arrays, "epoch": np.int64(3)}, tmp_path / "a.pt")
    np.savez(tmp_path / "b.npz", **arrays)
    np.savez_compressed(tmp_path / "c.npz", **arrays)
    torch.save([np.asarray(v) for v in arrays.values()], tmp_path / "d.pt")
    for name in ("a.pt", "b.npz", "c.npz", "d.pt"):
        assert same(load_module(tmp_path / name, ARCH).module, module), name


def test_archives_of_arrays_that_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, names=np.array(["a", "b"]))
    with pytest.raises(UserError, match="holds no weights"):
        load_module(path, ARCH)
    np.savez(path, objects=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="holds Python objects"):
        load_module(path, ARCH)


@pytest.mark.parametrize(
    "layout",
    [
        lambda s: {**s, "epoch": 3, "lr": 0.1, "name": "run", "none": None},
        lambda s: (s, {"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 0.1}]}),
        lambda s: [3, s, "adam"],
        lambda s: {"state_dict": s, "best": (0.9, torch.tensor(0.9)), "rng": torch.get_rng_state()},
        lambda s: list(s.values()),
        lambda s: {"checkpoint": [{"model": s}]},
    ],
)
def test_ordinary_layouts(tmp_path: Path, layout: Any) -> None:
    module = net()
    path = tmp_path / "model.pt"
    torch.save(layout(module.state_dict()), path)
    trained = load_module(path, ARCH)
    assert same(trained.module, module)
    assert not [note for note in trained.notes if note.startswith("not used")]


# Attacks ------------------------------------------------------------------------------------


def called(*_: Any, **__: Any) -> None:
    raise AssertionError("something of the file was called")


STATES = [
    called,
    {"__class__": called, "entries": called, "__dict__": called},
    ({"a": 1}, {"__class__": called, "__setstate__": called}),
    (3, "<", None, None, None, -1, -1, 0),
    (3, called, called, called, called),
    (1, (2**62,), harmless.Dtype("f8"), False, b"12345678"),
    (1, (-1,), harmless.Dtype("f8"), False, b"12345678"),
    (1, (1,), harmless.Dtype("O"), False, [called]),
    (1, (1,), called, False, b"12345678"),
    (1, called, harmless.Dtype("f8"), False, b"12345678"),
    None,
]


@pytest.mark.parametrize("names", [names for names, _, _ in harmless.TABLE], ids=lambda n: n[0])
def test_no_stand_in_calls_or_looks_up(names: tuple[str, ...]) -> None:
    """REDUCE calls it, NEWOBJ makes it, BUILD gives it a state: with whatever the file wants."""
    stand_in = next(s for n, s, _ in harmless.TABLE if n == names)
    assert stand_in.__module__ == harmless.__name__
    for arguments in ((), (called,), (called, called), ("f8", b"1"), ((called,), 3), ("O", called)):
        made = [stand_in(*arguments)]
        if isinstance(stand_in, type):
            made.append(stand_in.__new__(stand_in, *arguments))
        for one in made:
            assert type(one).__module__ in {harmless.__name__, "builtins", "collections"}
            assert one is not called
            for state in STATES if hasattr(one, "__setstate__") else ():
                kind = type(one)
                with contextlib.suppress(ValueError, TypeError):
                    one.__setstate__(state)
                assert type(one) is kind
                assert one.__setstate__ is not called


@pytest.mark.parametrize(
    "name",
    [
        "builtins.getattr", "builtins.eval", "builtins.exec", "builtins.__import__",
        "builtins.compile", "builtins.open", "builtins.map", "functools.partial",
        "functools.reduce", "operator.attrgetter", "operator.methodcaller", "os.system",
        "posix.system", "subprocess.Popen", "importlib.import_module", "copyreg._reconstructor",
        "numpy.load", "numpy.testing._private.utils.runstring", "numpy.core.multiarray.fromfile",
        "numpy.memmap", "pathlib.Path.unlink", "pathlib.Path.write_text", "argparse.FileType",
        "types.FunctionType", "types.CodeType", "collections.namedtuple", "torch.load",
        "torch.hub.load", "omegaconf.dictconfig.DictConfig", "builtins.type", "builtins.vars",
    ],
)  # fmt: skip
def test_names_that_do_something_are_refused(tmp_path: Path, name: str) -> None:
    """Whatever the file does with the name: the scan says so, and torch would refuse as well."""
    assert name not in harmless.NAMES
    module, _, attribute = name.rpartition(".")
    pickled = b"\x80\x02c%s\n%s\n)R." % (module.encode(), attribute.encode())
    path = tmp_path / "model.pt"
    write(path, pickled)
    with pytest.raises(UserError) as raised:
        load_module(path, ARCH)
    assert name in raised.value.message
    assert "--trust-pickle" in raised.value.hint
    with pytest.raises(UserError, match="cannot be read as tensors"):
        torch_save.tensors_of(path)


def write(path: Path, pickled: bytes) -> None:
    """A torch.save file with this pickle in it."""
    torch.save({}, path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, pickled if entry.endswith("data.pkl") else old.read(entry))
    path.write_bytes(buffer.getvalue())


def text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


SCALAR = b"cnumpy._core.multiarray\nscalar\n"
RECONSTRUCT = b"cnumpy._core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n"
SYSTEM = b"cposix\nsystem\n"


@pytest.mark.parametrize(
    "body",
    [
        # scalar(dtype("O"), <a function>), and dtype(<a function>)
        SCALAR + DTYPE + text("O") + b"\x85R" + SYSTEM + b"\x86R.",
        DTYPE + SYSTEM + b"\x85R.",
        # defaultdict(<a function>)
        b"ccollections\ndefaultdict\n" + SYSTEM + b"\x85R.",
        # a namespace whose state names a function
        b"cargparse\nNamespace\n)\x81}" + text("__class__") + SYSTEM + b"sb.",
        # an array of objects, one of which is a function
        RECONSTRUCT + b"cnumpy\nndarray\n" + b"K\x00\x85" + text("b") + b"\x87R" + SYSTEM + b"b.",
    ],
)
def test_a_function_inside_harmless_objects(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "model.pt"
    write(path, b"\x80\x02" + body)
    with pytest.raises(UserError, match=r"posix\.system"):
        load_module(path, ARCH)
    with pytest.raises(UserError, match=r"posix\.system whose module posix is blocked"):
        torch_save.tensors_of(path)


@pytest.mark.parametrize(
    "body",
    [
        # an array that claims to be enormous, one of a negative size, and NEWOBJ on a function
        RECONSTRUCT + b"cnumpy\nndarray\n" + b"K\x00\x85" + text("b") + b"\x87R("
        + b"K\x01\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40\x85" + DTYPE + text("f8") + b"\x85R\x89"
        + b"c_codecs\nencode\n" + text("x") + text("latin1") + b"\x86Rtb.",
        RECONSTRUCT + b"cnumpy\nndarray\n" + b"K\x00\x85" + text("b") + b"\x87R("
        + b"K\x01J\xff\xff\xff\xff\x85" + DTYPE + text("f8") + b"\x85R\x89"
        + b"c_codecs\nencode\n" + text("x") + text("latin1") + b"\x86Rtb.",
        SCALAR + b")\x81.",
        # a namespace with attributes for slots
        b"cargparse\nNamespace\n)\x81}}" + text("__class__")
        + b"ccollections\nOrderedDict\ns\x86b.",
    ],
)  # fmt: skip
def test_hostile_states(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "model.pt"
    write(path, b"\x80\x02" + body)
    with pytest.raises(UserError, match=r"cannot be read as tensors|holds no weights"):
        load_module(path, ARCH)


def test_containers_that_hold_each_other(tmp_path: Path) -> None:
    """Few bytes, and more ways through them than can be walked."""
    inner: Any = {"w": torch.ones(3)}
    for _ in range(60):
        inner = {str(i): inner for i in range(9)}
    pair: Any = (np.float64(1), [])
    for _ in range(60):
        pair = (pair, pair)
    path = tmp_path / "model.pt"
    torch.save({"a": inner, "b": pair, "state_dict": net().state_dict()}, path)
    with pytest.raises(UserError):
        load_module(path, LoadOptions(arch="source_nets:Tokens"))


def test_the_list_is_ours_for_that_moment_only(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": np.float64(1)}, path)
    torch_save.tensors_of(path)
    assert not any(
        isinstance(entry, tuple) and entry[0].__module__ == harmless.__name__
        for entry in torch.serialization.get_safe_globals()
    )
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_nothing_is_imported_for_a_name() -> None:
    for names, stand_in, reason in harmless.TABLE:
        assert reason
        assert callable(stand_in)
        for name in names:
            assert name.partition(".")[0] not in {"os", "sys", "posix", "nt", "subprocess"}
    assert "lightning_fabric" not in sys.modules
