"""Check that the service can serve what was folded, by the service's own code, before it appears.

look              what the file returns in onnxruntime: model.json is written from this, because
                  the shapes in a file may be wrong or missing
refuse_unservable the check that the service makes of every version, on the folder before it is
                  renamed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir

from converter.errors import UserError
from converter.evaluation.oracle import Feeds
from service.batching.batch import attempt
from service.device import choose
from service.errors import ServiceError
from service.manifest import TensorSpec
from service.models.bundle import Rejected
from service.models.check import check
from service.models.observed import look as observe
from service.models.runtime import CannotLoad, Runtime

_HINT = "Nothing was published. Write the model with --output instead, or convert it to float32."


@dataclass(frozen=True)
class Served:
    """What a request gets from a model.

    `outputs`: with their actual shapes; `by_rows`: axis 0 of each output counts the rows of the
    inputs. `left_out`: outputs that cannot be served, and why.
    """

    outputs: list[TensorSpec]
    by_rows: bool
    left_out: dict[str, str]


def look(path: Path, inputs: list[TensorSpec], sample: Feeds) -> Served:
    """Run a model file as the service will.

    Args:
        path: of model.onnx.
        inputs: those that need a value.
        sample: a tensor for each of them.

    Raises:
        UserError: it cannot be loaded or run, or none of its outputs can be served.
    """
    try:
        runtime = Runtime(path, choose("cpu"), threads=1)
        seen = observe(partial(attempt, runtime.run), inputs, runtime.outputs, sample)
    except CannotLoad as error:
        raise UserError(f"the service would not serve this model: {error}.", _HINT) from error
    except ServiceError as error:
        raise UserError(
            f"the service would not serve this model: {error.message.rstrip('.')}.", _HINT
        ) from error
    return Served(seen.outputs, seen.by_rows, runtime.left_out)


class TellOutputsPass(ir.passes.FunctionalPass):
    """Annotate a model's outputs with the shapes that they have.

    1. Only an output whose shape differs in its rank or in a number gets a new shape; the name of
       an axis that may vary does not matter.
    2. The given model is not changed: it is the one that was proven.

    Args:
        outputs: what a run gave.
    """

    def __init__(self, outputs: Sequence[TensorSpec]) -> None:
        self._specs = {spec.name: spec for spec in outputs}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        model, modified = model.clone(), False
        for value in model.graph.outputs:
            spec = self._specs.get(str(value.name))
            if spec is not None and not _agrees(value, spec):  # (1)
                value.shape = ir.Shape(spec.shape)
                modified = True
        return ir.passes.PassResult(model, modified)


def _agrees(value: ir.Value, spec: TensorSpec) -> bool:
    shape = value.shape
    return (
        shape is not None
        and len(shape) == len(spec.shape)
        and all(
            dim == size if isinstance(dim, int) else True
            for dim, size in zip(shape, spec.shape, strict=True)
        )
    )


def refuse_unservable(folder: Path, name: str, version: int) -> None:
    """Check a version folder as the service does.

    Raises:
        UserError: the service would not load it; with the service's own message.
    """
    try:
        check(folder, name, version, choose("cpu"))
    except Rejected as reason:
        raise UserError(f"the service would not serve this model: {reason}.", _HINT) from reason
