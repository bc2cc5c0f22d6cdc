"""The engines that can run a model on the CPU: one row for each, in the order of tables shown.

All are providers of onnxruntime. The first row is what serves without any choice; the others are
compared with it. `family` is what `--provider` names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.device import CPU, Choice
from service.engines import openvino

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"


@dataclass(frozen=True, slots=True)
class Engine:
    """A way to run a model.

    `whole`: one run at a time, on all CPUs; otherwise a runner for each CPU, of one thread each.
    `obstacle`: why it cannot be tried on this machine, "" if it can. `choice`: what a session is
    made with, for a number of threads.
    """

    name: str
    family: str
    precision: str
    whole: bool
    obstacle: Callable[[], str]
    choice: Callable[[int], Choice]


def _nothing() -> str:
    return ""


def _own(_: int) -> Choice:
    return Choice("cpu", [(CPU, {})])


def _openvino(precision: str, hint: str) -> Engine:
    return Engine(
        name=f"openvino {precision}",
        family=OPENVINO,
        precision=precision,
        whole=True,
        obstacle=openvino.obstacle,
        choice=lambda threads: openvino.choice(hint, threads),
    )


# `precision` is what the engine computes in; onnxruntime's own does what the file says.
ENGINES = (
    Engine("onnxruntime", ONNXRUNTIME, "as the file", False, _nothing, _own),
    Engine("onnxruntime, all threads", ONNXRUNTIME, "as the file", True, _nothing, _own),
    _openvino("float32", "f32"),
    _openvino("bfloat16", "bf16"),
    _openvino("float16", "f16"),
)
DEFAULT = ENGINES[0]


def tried(provider: str) -> tuple[Engine, ...]:
    """The engines of `--provider`: the default, for comparison, and those that may be chosen."""
    return tuple(e for e in ENGINES if e is DEFAULT or provider in {"auto", e.family})
