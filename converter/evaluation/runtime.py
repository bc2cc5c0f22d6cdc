"""Run a graph as it will be run: in onnxruntime on the CPU, in the graph's own types."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from converter.errors import UserError, first_line
from converter.evaluation.oracle import Feeds, Oracle
from converter.files.onnx_file import write_scratch
from converter.system.memory import ended, shortage


class RunnerError(Exception):
    """onnxruntime cannot load or run the graph; the message is its own, shortened."""


class Runner(Protocol):
    """Runs a graph. `exact_types` is False where types are emulated."""

    note: str

    def run(self, feeds: Feeds) -> Feeds: ...


class OrtRunner:
    """onnxruntime on the CPU, with all or none of its graph optimisations.

    Raises:
        RunnerError: the graph cannot be loaded.
    """

    note = ""

    def __init__(self, model: ir.Model, *, optimize: bool) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # In one arena, three batches would take the memory of all three and of its reserves.
        options.enable_cpu_mem_arena = False
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = (
            level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        )
        with tempfile.TemporaryDirectory(prefix="foldserve-") as folder:
            try:
                path = write_scratch(model, Path(folder))
            except OSError as error:
                raise UserError(
                    f"there is no room for the proof in {folder}: {error.strerror or error}.",
                    "Set TMPDIR to a folder with room for the model.",
                ) from error
            try:
                self._session = ort.InferenceSession(
                    path, options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                if ended(error):
                    raise shortage(error, "where onnxruntime loads the graph") from error
                raise RunnerError(first_line(error)) from error
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Feeds) -> Feeds:
        """The outputs by name, in their own types.

        Raises:
            RunnerError: the graph fails on these inputs.
        """
        try:
            results = self._session.run(self._names, feeds)
        except Exception as error:
            if ended(error):
                raise shortage(error, f"in onnxruntime{_node_of(error)}") from error
            raise RunnerError(first_line(error)) from error
        return dict(zip(self._names, map(np.asarray, results), strict=True))


class EmulatedRunner:
    """For types that onnxruntime has no CPU kernels for: each result is computed in float64 and
    rounded to its declared type."""

    def __init__(self, model: ir.Model, why: str) -> None:
        self.note = why
        self._oracle = Oracle(model, rounded=True)

    def run(self, feeds: Feeds) -> Feeds:
        """The outputs by name; floats are float64 holding values of their own type."""
        return self._oracle.run(feeds)


def runner(model: ir.Model, *, optimize: bool) -> Runner:
    """onnxruntime if it has kernels for the graph's types, otherwise an emulation that says so.

    Raises:
        RunnerError: the graph is broken.
    """
    try:
        return OrtRunner(model, optimize=optimize)
    except RunnerError as error:
        types = {"BFLOAT16": "bfloat16", "DOUBLE": "float64"}
        used = [types[name] for name in _float_types(model) if name in types]
        if not used or "NOT_IMPLEMENTED" not in str(error).upper().replace(" ", "_"):
            raise
        return EmulatedRunner(
            model,
            f"onnxruntime has no CPU kernels for this model in {used[0]}: its arithmetic was "
            "emulated, each result rounded to its type.",
        )


def _float_types(model: ir.Model) -> Sequence[str]:
    return sorted(
        {
            value.const_value.dtype.name
            for value in model.graph.initializers.values()
            if value.const_value is not None
        }
    )


def _node_of(error: Exception) -> str:
    """ " at the node .." if onnxruntime names it."""
    found = re.search(r"running (\S+) node\. Name:'([^']*)'", str(error))
    return f" at {found[1]} {found[2]}".rstrip() if found else ""
