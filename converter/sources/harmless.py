"""Objects that training files hold beside their tensors, read as data without trusting the file.

torch.load(weights_only=True) calls only what is on its own list and on ours (`safe_globals`). Ours
holds no class of another package: each NAME in the table is replaced by a stand-in that is defined
here, so that neither numpy nor argparse nor pathlib is imported or called by a file, whatever the
arguments and the state that it brings. The rules for a stand-in:

* it creates plain containers, numbers, tensors, or an `Opaque`, which keeps nothing;
* it looks nothing up by name, and calls nothing that it was given (REDUCE, NEWOBJ);
* its state (BUILD) is either thrown away, or kept as a plain dictionary under one attribute;
* it creates nothing larger than the bytes that the file holds.

Deliberately left out: `getattr`, `functools.partial`, `operator.*`, `eval` and the like, which
call what they are given; `copyreg._reconstructor` and `importlib`, which look names up; enums and
other classes of the user, whose meaning is not known; omegaconf, whose values may be interpolated.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]|c(8|16)")
_TEXTS = re.compile(r"[SU][0-9]+")


class Opaque:
    """Stands in for an object that says nothing about weights: a date, a path, a type."""

    def __new__(cls, *_: Any, **__: Any) -> Opaque:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Its state is not kept."""


class Attributes:
    """Stands in for a namespace: its attributes, as a plain dictionary."""

    def __new__(cls, *_: Any, **__: Any) -> Attributes:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        self.entries: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.entries = dict(state) if type(state) is dict else {}


class Dtype:
    """Stands in for numpy.dtype: a code such as "f8" and a byte order."""

    def __new__(cls, code: Any = "", *_: Any) -> Dtype:
        self = super().__new__(cls)
        self.code = code if isinstance(code, str) else ""
        self.order = "<"
        return self

    def __setstate__(self, state: Any) -> None:
        # (version, order, subdtype, names, fields, itemsize, alignment, flags, ...)
        if type(state) is not tuple or len(state) < 5 or any(x is not None for x in state[2:5]):
            self.code = ""  # an array of records
        elif state[1] in {"<", ">", "="}:
            self.order = state[1]

    def numpy(self, pattern: re.Pattern[str] = _NUMBERS) -> np.dtype[Any] | None:
        """The type of plain numbers; None for anything else: objects, dates, records."""
        return np.dtype(self.order + self.code) if pattern.fullmatch(self.code) else None


class Array:
    """Stands in for numpy.ndarray: numbers whose count is checked against their bytes."""

    def __new__(cls, *_: Any) -> Array:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        self.tensor: torch.Tensor | None = None

    def __setstate__(self, state: Any) -> None:
        # (version, shape, dtype, whether it is in Fortran order, bytes)
        if type(state) is not tuple or len(state) != 5:
            raise ValueError("a numpy array with an invalid state")
        _, shape, dtype, fortran, content = state
        kind = dtype.numpy() if type(dtype) is Dtype else None
        if kind is None or type(content) is not bytes:
            return  # texts, dates, objects: they are not weights
        if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("a numpy array with an invalid shape")
        if math.prod(shape) * kind.itemsize != len(content):
            raise ValueError("a numpy array whose bytes do not match its shape")
        array = np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")
        self.tensor = torch.from_numpy(array.astype(kind.newbyteorder("="), order="C"))


def scalar(dtype: Any = None, content: Any = b"", *_: Any) -> Any:
    """numpy's scalar(dtype, bytes): a number or a text of Python's."""
    kind = None
    if type(dtype) is Dtype:
        kind = dtype.numpy() or dtype.numpy(_TEXTS)
    if kind is None or type(content) is not bytes or len(content) != kind.itemsize:
        return Opaque()
    return np.frombuffer(content, kind)[0].item() if kind.itemsize else ""


def dictionary(*_: Any) -> OrderedDict[Any, Any]:
    """An empty dictionary, which the pickle fills; a defaultdict's factory is not kept."""
    return OrderedDict()


class Dictionary:
    """The same for classes whose instances pickles make by NEWOBJ."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def sequence(items: Any = (), *_: Any) -> list[Any]:
    """A list, which the pickle fills further."""
    return list(items) if type(items) in {list, tuple} else []


class Text:
    """Stands in for a subclass of str."""

    def __new__(cls, text: Any = "", *_: Any) -> str:  # type: ignore[misc]
        return text if type(text) is str else ""


_DTYPES = (
    "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 "
    "complex64 complex128 str_ bytes_ ndarray"
)
_PATHS = "PosixPath WindowsPath PurePosixPath PureWindowsPath Path PurePath"


def _names(module: str, names: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for name in names.split())


# (the names that files use, what stands in for them, why it is harmless and occurs in files).
TABLE: tuple[tuple[tuple[str, ...], Callable[..., Any], str], ...] = (
    (
        ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar"),
        scalar,
        "a measured number: best_acc = np.float64(0.9)",
    ),
    (
        ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct"),
        Array,
        "arrays: weights, means, states of random generators; objects in them are not read",
    ),
    (("numpy.dtype",), Dtype, "the type of those"),
    (_names("numpy", _DTYPES), Opaque, "a type as a setting, and part of an array's pickle"),
    (
        ("argparse.Namespace", "types.SimpleNamespace"),
        Attributes,
        "the arguments of the training script",
    ),
    (
        ("collections.defaultdict",),
        dictionary,
        "counts and histories; its factory is never called",
    ),
    (
        (
            "lightning_fabric.utilities.data.AttributeDict",
            "lightning.fabric.utilities.data.AttributeDict",
            "pytorch_lightning.utilities.parsing.AttributeDict",
            "lightning.pytorch.utilities.parsing.AttributeDict",
            "easydict.EasyDict",
            "addict.addict.Dict",
            "yacs.config.CfgNode",
            "munch.Munch",
            "mmcv.utils.config.ConfigDict",
            "mmengine.config.config.ConfigDict",
        ),
        Dictionary,
        "settings: dictionaries with another way to write their entries",
    ),
    (("collections.deque",), sequence, "the last losses"),
    (("builtins.frozenset",), sequence, "a set of names"),
    (_names("pathlib", _PATHS) + _names("pathlib._local", _PATHS), Opaque, "where data lay"),
    (_names("datetime", "datetime date time timedelta timezone"), Opaque, "when it was"),
    (("uuid.UUID", "decimal.Decimal", "fractions.Fraction"), Opaque, "names and numbers of runs"),
    (
        _names("builtins", "bool int float str bytes list tuple dict object range slice"),
        Opaque,
        "a type as a setting, or as the factory of a defaultdict; a range",
    ),
    (("torch.torch_version.TorchVersion",), Text, "torch.__version__"),
)
NAMES = frozenset(name for names, _, _ in TABLE for name in names)

_ONE_AT_A_TIME = threading.Lock()  # all threads share torch's list


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """Within this block, torch.load(weights_only=True) reads what is in the table."""
    entries: list[Any] = [(stand_in, name) for names, stand_in, _ in TABLE for name in names]
    with _ONE_AT_A_TIME, torch.serialization.safe_globals(entries):
        yield


def settle(value: Any) -> Any:
    """What was read, with tensors for the arrays, and dictionaries for the namespaces."""
    return _settle(value, {})


def _settle(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, Array):
        return Opaque() if value.tensor is None else value.tensor
    if isinstance(value, Attributes):
        value = value.entries
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        done[id(value)] = value
        for key, inner in list(value.items()):
            value[key] = _settle(inner, done)
    elif type(value) is list:
        done[id(value)] = value
        value[:] = [_settle(inner, done) for inner in value]
    elif type(value) is tuple:
        settled = tuple(_settle(inner, done) for inner in value)
        done[id(value)] = settled
        done[id(settled)] = settled
        return settled
    return value
