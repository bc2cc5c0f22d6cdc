"""An onnxruntime session behind a plain interface: what it takes, what it gives, one `run`.

Threads and provider are always set explicitly. Spinning is off: idle workers that spin for
their next task take the CPU from the event loop, and from every other model of the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from service.axes import is_symbol
from service.device import CUDA, Choice
from service.errors import InferenceFailed, InputRefused
from service.manifest import Dim, TensorSpec
from service.models import subnormals
from service.models.binding import BoundRun
from service.models.external import Unreadable
from service.models.held import Held
from service.models.kinds import why_left_out
from service.signature import NUMPY_DTYPES, STRING, Tensors

# onnxruntime's severities: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal. A session's errors
# come as exceptions too; the ones of the library, such as a missing cuDNN, only as log lines.
_ERROR, _FATAL = 3, 4

_DTYPES = {
    "float": "float32",
    "double": "float64",
    **{name: name for name in NUMPY_DTYPES if name not in {"float32", "float64"}},
}
_TYPE = re.compile(r"tensor\((\w+)\)")
_ORT_FAILURES = (ort_errors.InvalidArgument, ort_errors.RuntimeException, ort_errors.Fail)
_NO_MEMORY = re.compile(
    r"Failed to allocate memory|Available memory of \d+ is smaller|out of memory|ALLOC_FAILED"
    r"|bad_alloc",
    re.IGNORECASE,
)
_FAILED_NODE = re.compile(r"while running (\w+) node")
# A node that fails on the CPU does so because of its inputs; on a GPU there are other reasons.
_DEVICE = re.compile(r"\bCU(DA|DNN|BLAS|FFT)")


class CannotLoad(Exception):
    """The model file cannot become a session; the text is a sentence without any path."""


class Runtime:
    """One loaded model. `run` may be called from any one thread at a time.

    `left_out`: the outputs that are not served, and why: sequences, maps, types without a number.

    Args:
        source: the path of the model.onnx, or a version that is held in memory.
        choice: providers to use, from `device.choose`.
        threads: size of the session's intra-op pool, the calling thread included.
        left_out: outputs that are not to be served, and why.

    Raises:
        CannotLoad: broken file, an input that cannot be served, or no output that can.
        DeviceUnavailable: CUDA was required and did not start.
    """

    def __init__(
        self,
        source: Path | Held,
        choice: Choice,
        threads: int,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        said = left_out or {}
        ort.disable_telemetry_events()
        ort.set_default_logger_severity(_ERROR)
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if subnormals.asked():
            options.add_session_config_entry(subnormals.OPTION, "1")
        model = _from_memory(source, options) if isinstance(source, Held) else source
        own: list[tuple[str, dict[str, Any]]] | None = choice.providers
        if choice.plugin is not None:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            options.add_provider_for_devices([choice.plugin.device], choice.plugin.options)
            own = None
        try:
            self._session = ort.InferenceSession(model, options, providers=own, enable_fallback=0)
        except Exception as error:  # noqa: BLE001  onnxruntime's errors have no common base
            raise CannotLoad(f"onnxruntime cannot load it: {without_paths(error)}") from None
        if isinstance(source, Held):
            # It would keep the bytes for as long as it lives, to be able to start anew.
            self._session._model_bytes = None
        self.provider: str = self._session.get_providers()[0]
        choice.confirm(self.provider)
        self.inputs = _inputs(self._session.get_inputs())
        outputs = {node.name: node for node in self._session.get_outputs()}  # some name one twice
        self.left_out = {
            name: said.get(name, why_left_out(node.type))
            for name, node in outputs.items()
            if name in said or _dtype(node) is None
        }
        self.outputs = [_spec(node) for name, node in outputs.items() if name not in self.left_out]
        if not self.outputs:
            name, why = next(iter(self.left_out.items()), ("", ""))
            raise CannotLoad(f"it has no output that can be served: {name!r} is left out, as {why}")
        self._output_names = [spec.name for spec in self.outputs]
        specs = [*self.inputs, *self.outputs]
        # Nodes that only lead to outputs which are left out are not computed.
        how = ort.RunOptions()
        how.only_execute_path_to_fetches = bool(self.left_out)
        self._call: Callable[[Tensors], Sequence[np.ndarray]] = (
            BoundRun(self._session, self._output_names, device_id=choice.device_id)
            # A device holds no strings: the session itself keeps them on the host.
            if self.provider == CUDA and not any(spec.dtype == STRING for spec in specs)
            else partial(self._session.run, self._output_names, run_options=how)
        )

    def left_to_the_cpu(self) -> tuple[int, int, list[str]]:
        """What a plug-in leaves to onnxruntime: how many nodes, of how many, their types."""
        left: list[str] = []
        count = 0
        for part in self._session.get_provider_graph_assignment_info():
            ops = [node.op_type for node in part.get_nodes()]
            count += len(ops)
            left += ops if part.ep_name != self.provider else []
        return len(left), count, sorted(set(left))

    def run(self, inputs: Tensors) -> Tensors:
        """{input name: array} to {output name: array}; releases the GIL while it computes.

        Raises:
            InputRefused: a node found the values invalid, or sizes that do not go together.
            InferenceFailed: the device has no memory left.
            Exception: onnxruntime's own, for anything else.
        """
        try:
            values = self._call(inputs)
        except _ORT_FAILURES as error:
            text = str(error)
            if _NO_MEMORY.search(text):
                raise InferenceFailed(
                    "The device has no memory left for a run of this size.",
                    hint="Send fewer rows at a time, or raise --cuda-memory-limit-bytes.",
                ) from error
            node = _FAILED_NODE.search(text)
            if _DEVICE.search(text) or not (node or isinstance(error, ort_errors.InvalidArgument)):
                raise
            # The message quotes values and source paths: only the kind of node leaves.
            who = f"its {node[1]} node" if node else "it"
            raise InputRefused(f"The model was not run: {who} refused the input.") from error
        return dict(zip(self._output_names, values, strict=True))


def _from_memory(held: Held, options: ort.SessionOptions) -> bytes:
    """The content of model.onnx; the options are given that of the files beside it.

    Raises:
        CannotLoad: a file is not among those that are held, or this onnxruntime cannot do it.
    """
    try:
        weights = held.weights()
    except Unreadable as error:
        raise CannotLoad(str(error)) from None
    if weights:
        give = getattr(options, "add_external_initializers_from_files_in_memory", None)
        if give is None:
            raise CannotLoad(
                "its weights lie in files beside it; to load those as they were verified needs a "
                f"newer onnxruntime than {ort.__version__}"
            )
        give(list(weights), list(weights.values()), list(map(len, weights.values())))
    return held.model


def _dtype(node: ort.NodeArg) -> str | None:
    """The element type of a tensor; None for one that cannot be served, and for no tensor."""
    match = _TYPE.fullmatch(node.type)
    return _DTYPES.get(match[1]) if match else None


def _inputs(nodes: Sequence[ort.NodeArg]) -> list[TensorSpec]:
    """The inputs; each open axis that the graph gives no name gets one that is made up.

    Raises:
        CannotLoad: one of them has a type that no request can hold.
    """
    for node in nodes:
        if _dtype(node) is None:
            hint = "" if _TYPE.fullmatch(node.type) else ": a request brings tensors, nothing else"
            raise CannotLoad(
                f"input {node.name!r} has the type {node.type}, which cannot be served{hint}"
            )
    return [_spec(node) for node in nodes]


def _spec(node: ort.NodeArg) -> TensorSpec:
    shape: list[Dim] = []
    for axis, dim in enumerate(node.shape):
        known = dim >= 0 if isinstance(dim, int) else dim is not None and is_symbol(dim)
        shape.append(dim if known else own_name(node.name, axis))
    return TensorSpec.model_validate({"name": node.name, "dtype": _dtype(node), "shape": shape})


def own_name(tensor: str, axis: int) -> str:
    """The name that is made up for an axis which has none in the file."""
    return f"{tensor}.{axis}"


def without_paths(error: BaseException) -> str:
    """An exception's first line with every path cut down to its last part."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"(?:[A-Za-z]:)?[\w.~-]*[/\\][^\s\"':,]*?([^\s\"':,/\\]*)(?=[\s\"':,]|$)",
                  r"\1", lines[0])  # fmt: skip
