"""From a torch module to a `Loaded`: what every torch source shares."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from converter.errors import UserError
from converter.sources import examples, infer, inputs
from converter.sources.export import export
from converter.sources.loaded import Known, Loaded, LoadOptions

HALVES = (torch.float16, torch.bfloat16)


def from_module(
    module: nn.Module,
    *,
    path: Path,
    kind: str,
    options: LoadOptions,
    known: Known | None = None,
    uncounted: frozenset[str] = frozenset(),
    pickled: bool = False,
) -> Loaded:
    """Set the module to eval, find inputs for it, and export it.

    Args:
        known: the input's shape, when the file or the architecture states it.
        uncounted: batch-norms whose file has no `num_batches_tracked`.
        pickled: whether the author chose the module's mode, so that changing it is worth a note.

    Raises:
        UserError: a lazy layer has no weights yet; see `examples.resolve` and `export.export`.
    """
    notes = []
    if pickled and any(m.training for m in module.modules() if isinstance(m, _NormBase)):
        notes.append(
            "the model was saved in training mode and was set to eval(): in training its "
            "batch-norms normalise each batch by itself and change their statistics"
        )
    _require_weights(module, path)
    module = module.eval().cpu().requires_grad_(False)
    dtypes = {p.dtype for p in module.parameters() if p.is_floating_point()}
    if dtypes & set(HALVES):
        module = module.float()
        notes.append("the weights are stored in 16 bits and were widened to float32")
        dtypes = {torch.float32}
    dtype = "float64" if dtypes == {torch.float64} else "float32"
    call = examples.resolve(
        module,
        options.input_shapes,
        known,
        infer.first_layer(module),
        dtype,
        values=options.input_values,
    )
    exported = export(module, call)
    return Loaded(
        model=exported.model,
        inputs=inputs.describe(exported.model, exported.sizes, call.fills()),
        path=path,
        kind=kind,
        notes=notes + call.notes + exported.notes,
        warnings=exported.warnings,
        dynamic_batch=exported.dynamic_batch,
        reference=exported.reference,
        untracked=untracked(module) - uncounted,
    )


def _require_weights(module: nn.Module, path: Path) -> None:
    """Refuse lazy layers (LazyLinear, LazyBatchNorm2d), which get weights at their first batch."""
    lazy = [
        f"{name} ({type(layer).__name__})"
        for name, layer in module.named_modules()
        if any(
            is_lazy(tensor)
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
        )
    ]
    if lazy:
        raise UserError(
            f"{path} has layers that never saw an input and so have no weights: "
            f"{', '.join(lazy[:3])}{' and others' if len(lazy) > 3 else ''}",
            "run the model once, on a batch, before it is saved",
        )


def untracked(module: nn.Module) -> frozenset[str]:
    """Names of the batch-norms that never saw a batch in training mode."""
    return frozenset(
        name
        for name, norm in module.named_modules()
        if isinstance(norm, _NormBase)
        and isinstance(norm.num_batches_tracked, torch.Tensor)
        and int(norm.num_batches_tracked) == 0
    )
