"""What a peer is: how it is installed, started and asked.

A file of `benchmarks/serving/peers` is read twice. Here, for its `PEER`: that must work without
the peer's packages. And in the peer's own environment, started by `Peer.command`, where `serving()`
is true: there it imports its packages and serves the model that `Model.served()` describes. This
module is imported in both, so it needs numpy alone, and onnxruntime once a session is made.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Where a peer has a knob for it; the models gain nothing from larger batches on few cores.
MAX_BATCH = 32
DELAY_MS = 2
_SMALL_INPUT = 10_000
_PREFIX = "SERVING_BENCH_"
TOKEN = _PREFIX + "TOKEN"  # in the environment of all processes of a server


@dataclass(frozen=True)
class Model:
    """One ONNX file with one input and one output, float32.

    `repository`: a folder that `python -m service --models` serves. `path`: the file in it.
    `shape`: of a sample, without the batch axis. `classes`: the width of the output.
    """

    name: str
    repository: Path
    path: Path
    input: str
    output: str
    shape: tuple[int, ...]
    classes: int

    def environment(self) -> dict[str, str]:
        """For `served`, in another process."""
        values = {**self.__dict__, "shape": ",".join(map(str, self.shape))}
        return {f"{_PREFIX}{key.upper()}": str(value) for key, value in values.items()}

    @classmethod
    def served(cls) -> Model:
        """The model that this process was started to serve."""
        found = {name: os.environ[f"{_PREFIX}{name.upper()}"] for name in cls.__annotations__}
        return cls(
            found["name"], Path(found["repository"]), Path(found["path"]), found["input"],
            found["output"], tuple(map(int, found["shape"].split(","))), int(found["classes"]),
        )  # fmt: skip

    def session(self, threads: int | None = None) -> Any:
        """onnxruntime with its defaults, as the guides of all peers make it.

        But for the threads: 0 stands for all cores, None for what suits the model. A second
        thread does not help a small one; it spins, and takes the CPU from the server around it.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        small = math.prod(self.shape) < _SMALL_INPUT
        options.intra_op_num_threads = int(small) if threads is None else threads
        return ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def sample(self) -> np.ndarray:
        """One input of shape (1, *shape); the same in each run."""
        rng = np.random.default_rng(0)
        return rng.standard_normal((1, *self.shape)).astype(np.float32)


def serving() -> bool:
    """Whether this process is to be the server."""
    return TOKEN in os.environ


def port() -> int:
    """The port that the server is to listen on."""
    return int(os.environ[_PREFIX + "PORT"])


class Request(NamedTuple):
    """A POST."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Route:
    """One way to ask a server.

    `key`: "json", "v2-binary", ...; `binary` decides the table's column.
    `ask`: model and input to the request. `read`: headers (in small letters) and body of an
    answer to the output; raises ValueError or KeyError where it is not one.
    """

    key: str
    binary: bool
    ask: Callable[[Model, np.ndarray], Request]
    read: Callable[[Model, Mapping[str, str], bytes], np.ndarray]


@dataclass(frozen=True)
class Peer:
    """A server.

    `key`: of its rows and its folder. `title`: in the tables. `requirements`: for pip, pinned,
    the first is the one whose version is shown; empty for this project's own environment.
    `command`: behind the environment's python; `{port}` and the fields of the model are filled
    in. It is up once its first route answers 200.
    `models`: names of the models it is measured on, all by default. `said`: its configuration,
    for the table. `restless`: it takes CPU when nobody asks, so it
    is stopped between its turns; the others must not be (Triton's batcher dies of it).
    """

    key: str
    title: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    routes: tuple[Route, ...]
    said: str
    models: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    restless: bool = False
    prepare: Callable[[Model, Path, int], None] | None = None  # files in a folder of its own

    def start(self, model: Model, port_: int, folder: Path) -> tuple[list[str], dict[str, str]]:
        """The command without the interpreter, and what to add to the environment."""
        fields = {**model.__dict__, "port": port_, "folder": folder}
        words = [word.format(**fields) for word in self.command]
        added = {key: value.format(**fields) for key, value in self.environment.items()}
        return words, {**model.environment(), f"{_PREFIX}PORT": str(port_), **added}
