"""From a loaded model to a proven folded one: normalize, plan, fold, tidy, verify."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from converter.certificate import Certified, NotCertified, certify
from converter.evaluation.normalize import normalize
from converter.evaluation.oracle import Feeds
from converter.files.on_disk import store_for
from converter.files.onnx_file import encoded_size, parameter_count, weight_bytes
from converter.folding import FoldOptions, Hazard, Plan, fold_graph, note_untracked, plan_graph
from converter.graph.cost import cost_of
from converter.graph.in_order import InOrder
from converter.graph.paddings import KeepZeroPaddingsPass
from converter.graph.tidy import TidyPass
from converter.graph.transposes import CancelTransposesPass
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


@dataclass(frozen=True, eq=False, kw_only=True)
class Preview:
    """What a fold would do: a fold without its proof.

    Attributes:
        loaded: what was planned for.
        original: the un-folded graph, normalized.
        model: the graph as it would be.
        plan: a decision for every batch-norm.
        before, after: the sizes of both graphs.
        seconds: how long it took to normalize, plan and fold.
        hazards: what is suspicious about the weights as they would be.
    """

    loaded: Loaded
    original: ir.Model
    model: ir.Model
    plan: Plan
    before: Size
    after: Size
    seconds: float
    hazards: tuple[Hazard, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldResult(Preview):
    """What a fold did, with its proof: `model` is what will be written.

    Attributes:
        proof: the comparison with the original; look at `proof.passed` before you use `model`.
        certificate: whether `model` computes what the loaded graph computes, for every input.
    """

    proof: Proof
    certificate: Certified | NotCertified


def fold(
    loaded: Loaded,
    options: FoldOptions = FoldOptions(),
    *,
    data: Feeds | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> FoldResult:
    """Fold every batch-norm of a loaded model that can be folded, and prove the result.

    It is proven twice. The certificate is between the graph as it was loaded, before anything of
    the converter's own has touched it, and the graph that will be written; the measurement
    compares what the two give.

    Args:
        loaded: from `converter.load`.
        options: which batch-norms are meant, and what may be done for them.
        data: inputs of the user's, by name, to prove it on as well.
        seed: of the random inputs of the proof.
        progress: told what is being done.

    Raises:
        UserError: a pattern of `options` matches no batch-norm.
    """
    done = preview(loaded, options, progress=progress)
    progress("certifying for every input")
    certificate = certify(loaded.model, done.model)
    proof = verify(
        loaded.model,
        done.original,
        done.model,
        loaded.inputs,
        dynamic_batch=loaded.dynamic_batch,
        data=data,
        framework=loaded.reference,
        certificate=certificate,
        seed=seed,
        progress=progress,
    )
    exported = loaded.reference is None or (
        bool(proof.framework) and all(m.passed for m in proof.framework)
    )
    if not proof.passed and exported and same_graph(done.original, done.model):
        proof = (
            prove_unchanged(
                loaded.model,
                done.model,
                loaded.inputs,
                dynamic_batch=loaded.dynamic_batch,
                data=data,
                seed=seed,
                progress=progress,
            )
            or proof
        )
        proof = replace(proof, certificate=certificate)
    return FoldResult(**vars(done), proof=proof, certificate=certificate)


def plan(loaded: Loaded, options: FoldOptions = FoldOptions()) -> Plan:
    """What `fold` would do to each batch-norm; nothing is changed.

    Raises:
        UserError: a pattern of `options` matches no batch-norm.
    """
    found = plan_graph(_normalized(loaded), options)
    options.check(found.names)
    return found


def preview(
    loaded: Loaded,
    options: FoldOptions = FoldOptions(),
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Preview:
    """As `plan`, with the graph as it would be and what it would cost.

    Raises:
        UserError: a pattern of `options` matches no batch-norm.
    """
    start = time.perf_counter()
    progress("normalize")
    original = _normalized(loaded)
    progress("fold")
    folded = fold_graph(original, options, store=store_for(weight_bytes(original)))
    plan = folded.plan
    options.check(plan.names)
    # Where a batch-norm stood between two Transposes, they may now undo each other.
    finish = InOrder(
        CancelTransposesPass(),
        KeepZeroPaddingsPass(),
        TidyPass(folded=len(plan.folded), kept=len(plan.kept)),
    )
    model = finish(folded.model).model
    seconds = time.perf_counter() - start
    return Preview(
        loaded=loaded,
        original=original,
        model=model,
        plan=plan,
        before=size_of(original, len(plan.batchnorms), loaded.inputs),
        after=size_of(model, len(plan.kept), loaded.inputs),
        seconds=seconds,
        hazards=folded.hazards,
    )


def _normalized(loaded: Loaded) -> ir.Model:
    """The graph as the fold reads it, with what is known of its batch-norms noted on them."""
    graph = normalize(loaded.model)
    note_untracked(graph, loaded.untracked)
    return graph


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
