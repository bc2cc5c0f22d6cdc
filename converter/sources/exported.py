"""A torch.export program (.pt2): it knows its inputs, and whether its batch may vary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from converter.errors import UserError, gist
from converter.graph.zero_biases import DropZeroBiasesPass
from converter.sources import inputs, sizes, vet
from converter.sources.exporters import reason, strip_debug_metadata
from converter.sources.interface import NameOutputsPass, RenameAxisPass
from converter.sources.loaded import Loaded, LoadOptions
from converter.sources.outputs import leaves
from converter.system.quiet import silent


def load(path: Path, options: LoadOptions) -> Loaded:
    """Load the program and translate it.

    Raises:
        UserError: when the file is damaged or not an ordinary program, the program was made in
            training mode, an operator has no ONNX form, or `--input-shape` contradicts it.
    """
    if not options.trust_pickle:
        vet.exported_program(path)
    try:
        with silent():
            program = torch.export.load(path)
    except Exception as error:
        raise UserError(
            f"{path} cannot be loaded by torch {torch.__version__}: {gist(error)}",
            "export it again with this version of torch",
        ) from error
    # Conditions on the inputs, as Python source that torch would execute. Not needed here.
    program._guards_code = []
    if training := in_training(program):
        names = ", ".join(training[:3]) + (", ..." if len(training) > 3 else "")
        raise UserError(
            f"{path} was exported in training mode: {len(training)} batch-norms use the "
            f"statistics of the batch and change the stored ones ({names})",
            "call model.eval() before torch.export.export",
        )
    try:
        with silent():
            made = torch.onnx.export(program, (), dynamo=True, optimize=False, verbose=False)
    except Exception as error:
        raise UserError(f"{path} cannot be turned into ONNX: {reason(error)}") from error
    assert made is not None
    model = made.model
    strip_debug_metadata(model)
    DropZeroBiasesPass()(model)
    NameOutputsPass(_output_names(program))(model)
    notes: list[str] = []
    first = {str(v.shape[0]) for v in model.graph.inputs if v.shape is not None and len(v.shape)}
    dynamic = inputs.dynamic_batch(model)
    numbers = _hints(program)
    if dynamic and len(first) == 1:
        RenameAxisPass(first.pop(), "batch")(model)
    elif not dynamic:
        notes.append(
            "the program has a fixed batch size; to let it vary, export it again with "
            'dynamic_shapes={...: {0: torch.export.Dim("batch")}}'
        )
    described = inputs.describe(model)
    numbers |= sizes.from_user(described, options.input_shapes)
    numbers["batch"] = 1
    return Loaded(
        model=model,
        inputs=inputs.describe(model, numbers),
        path=path,
        kind="a torch.export program",
        notes=notes,
        dynamic_batch=dynamic,
        untracked=frozenset(
            name.removesuffix(".num_batches_tracked")
            for name, tensor in program.state_dict.items()
            if name.endswith(".num_batches_tracked") and int(tensor) == 0
        ),
    )


def in_training(program: torch.export.ExportedProgram) -> list[str]:
    """Batch-norms that normalise with the batch and update running statistics.

    The exporter has no ONNX form for this and writes them as if they were in eval mode. Those
    without running statistics do not count: the exporter writes the computation of theirs.
    """
    found = []
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or "batch_norm" not in schema.name:
            continue
        given = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
        if given.get("training") and given.get("running_mean") is not None:
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            found.append(stack[-1][0] if stack else node.name)
    return found


def _output_names(program: torch.export.ExportedProgram) -> list[str]:
    """The names that the program's nested outputs suggest."""
    spec = program.call_spec.out_spec
    if spec is None:
        return []
    blank = torch.empty(0)
    try:
        tree: Any = torch.utils._pytree.tree_unflatten([blank] * spec.num_leaves, spec)
    except (TypeError, ValueError):
        return []
    return [name for name, _ in leaves(tree)]


def _hints(program: torch.export.ExportedProgram) -> dict[str, int]:
    """The sizes that the author's example had, for the axes that may vary."""
    found: dict[str, int] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            for dim in value.shape:
                # An int, or a torch.SymInt, which type checkers take for an int as well.
                hint = getattr(getattr(dim, "node", None), "hint", None)
                if hint is not None:
                    found[str(dim)] = int(hint)
    return found
