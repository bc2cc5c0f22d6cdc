"""From a loaded model to a proven folded one: normalize, plan, fold, tidy, verify."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from converter.errors import UserError
from converter.evaluation.normalize import normalize
from converter.evaluation.oracle import Feeds
from converter.files.on_disk import store_for
from converter.files.onnx_file import encoded_size, parameter_count, weight_bytes
from converter.folding import Folded, Hazard, Plan, fold_graph, note_untracked, plan_graph
from converter.graph.cost import cost_of
from converter.graph.paddings import keep_zero_paddings
from converter.graph.tidy import TidyPass
from converter.graph.transposes import cancel_transposes
from converter.proof import Proof, verify
from converter.proof.unchanged import prove as prove_unchanged
from converter.proof.unchanged import same_graph
from converter.sources.loaded import Input, Loaded


@dataclass(frozen=True)
class Size:
    """What a graph costs: batch-norms, nodes, floating-point parameters, bytes of its file.

    `multiply_adds` are those of one sample (`cost.py`), or of the batch that the graph fixes;
    None where a shape is not known: `uncounted` names the ops.
    """

    batchnorms: int
    nodes: int
    parameters: int
    bytes: int
    multiply_adds: int | None = None
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Preview:
    """What a fold would do: a fold without its proof.

    Attributes:
        loaded: what was planned for.
        original: the un-folded graph, normalized.
        model: the graph as it would be.
        plan: a decision for every batch-norm.
        before, after: the sizes of both graphs.
        hazards: what is suspicious about the weights as they would be.
    """

    loaded: Loaded
    original: ir.Model
    model: ir.Model
    plan: Plan
    before: Size
    after: Size
    hazards: tuple[Hazard, ...] = ()


@dataclass(frozen=True, eq=False)
class FoldResult:
    """Everything that a fold produced.

    Attributes:
        loaded: what was folded.
        original: the un-folded graph, normalized.
        model: the folded graph, as it will be written.
        plan: a decision for every batch-norm.
        proof: the comparison with the original; look at `proof.passed` before you use `model`.
        before, after: the sizes of the un-folded and of the folded graph.
        seconds: how long the fold itself took (normalize, plan, apply), without the proof.
        hazards: what is suspicious about the folded weights.
    """

    loaded: Loaded
    original: ir.Model
    model: ir.Model
    plan: Plan
    proof: Proof
    before: Size
    after: Size
    seconds: float
    hazards: tuple[Hazard, ...] = ()


def fold(
    loaded: Loaded,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    through_relu: bool = False,
    data: Feeds | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> FoldResult:
    """Fold every batch-norm of a loaded model that can be folded, and prove the result.

    Args:
        loaded: from `converter.load`.
        only, skip: patterns of batch-norm names to fold, to leave.
        through_relu: let a Relu become a maximum with one number a channel (`fold_graph`).
        data: inputs of the user's, by name, to prove it on as well.
        seed: of the random inputs of the proof.
        progress: told what is being done.

    Raises:
        UserError: `only` or `skip` matches no batch-norm.
    """
    start = time.perf_counter()
    progress("normalize")
    original = _normalized(loaded)
    progress("fold")
    folded = _folded(original, only, skip, through_relu)
    seconds = time.perf_counter() - start
    proof = verify(
        loaded.model,
        original,
        folded.model,
        loaded.inputs,
        dynamic_batch=loaded.dynamic_batch,
        data=data,
        framework=loaded.reference,
        seed=seed,
        progress=progress,
    )
    exported = loaded.reference is None or (
        bool(proof.framework) and all(m.passed for m in proof.framework)
    )
    if not proof.passed and exported and same_graph(original, folded.model):
        proof = (
            prove_unchanged(
                loaded.model,
                folded.model,
                loaded.inputs,
                dynamic_batch=loaded.dynamic_batch,
                data=data,
                seed=seed,
                progress=progress,
            )
            or proof
        )
    return FoldResult(
        loaded,
        original,
        folded.model,
        folded.plan,
        proof,
        *_sizes(original, folded, loaded.inputs),
        seconds,
        folded.hazards,
    )


def plan(
    loaded: Loaded,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    through_relu: bool = False,
) -> Plan:
    """What `fold` would do to each batch-norm; nothing is changed.

    Raises:
        UserError: `only` or `skip` matches no batch-norm.
    """
    found = plan_graph(
        _normalized(loaded),
        only=only,
        skip=skip,
        through_relu=through_relu,
    )
    _check_patterns(found, (*only, *skip))
    return found


def preview(
    loaded: Loaded,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    through_relu: bool = False,
) -> Preview:
    """As `plan`, with the graph as it would be and what it would cost.

    Raises:
        UserError: `only` or `skip` matches no batch-norm.
    """
    original = _normalized(loaded)
    folded = _folded(original, only, skip, through_relu)
    return Preview(
        loaded,
        original,
        folded.model,
        folded.plan,
        *_sizes(original, folded, loaded.inputs),
        folded.hazards,
    )


def _normalized(loaded: Loaded) -> ir.Model:
    """The graph as the fold reads it, with what is known of its batch-norms noted on them."""
    graph = normalize(loaded.model)
    note_untracked(graph, loaded.untracked)
    return graph


def _folded(
    original: ir.Model,
    only: Sequence[str],
    skip: Sequence[str],
    through_relu: bool,
) -> Folded:
    folded = fold_graph(
        original,
        only=only,
        skip=skip,
        through_relu=through_relu,
        store=store_for(weight_bytes(original)),
    )
    _check_patterns(folded.plan, (*only, *skip))
    # Where a batch-norm stood between two Transposes, they may now undo each other.
    folded = replace(folded, model=cancel_transposes(folded.model))
    keep_zero_paddings(folded.model)
    plan = folded.plan
    TidyPass(folded=len(plan.folded), kept=len(plan.kept))(folded.model)
    return folded


def _sizes(original: ir.Model, folded: Folded, inputs: Sequence[Input]) -> tuple[Size, Size]:
    plan = folded.plan
    return (
        size_of(original, len(plan.batchnorms), inputs),
        size_of(folded.model, len(plan.kept), inputs),
    )


def size_of(model: ir.Model, batchnorms: int, inputs: Sequence[Input] = ()) -> Size:
    """Count a graph; its bytes are those of the file that would be written.

    `inputs`: give sizes to axes that may vary, as far as they are known.
    """
    cost = cost_of(model, {item.name: item.example for item in inputs})
    return Size(
        batchnorms,
        cost.nodes,
        parameter_count(model),
        encoded_size(model),
        cost.multiply_adds,
        cost.uncounted,
    )


def _check_patterns(found: Plan, patterns: Sequence[str]) -> None:
    from fnmatch import fnmatchcase

    names = [decision.site.name for decision in found.decisions]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"no batch-norm is named like {pattern!r}.",
                "`inspect` lists the names; patterns may hold * and ?.",
            )
