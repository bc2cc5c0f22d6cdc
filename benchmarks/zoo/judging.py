"""What a row says of a fold: counts, reasons, errors, and a verdict."""

from __future__ import annotations

from typing import Any

import numpy as np


def exact(loaded: Any, *, through_relu: bool = False) -> tuple[float, int]:
    """The largest difference between original and folded where both are float64 throughout,
    relative to the largest number: the algebra alone, without float32's rounding. And how many
    batch-norms that fold leaves.

    The graph's weights are widened before it is folded, so nothing is rounded to float32.
    """
    import onnx_ir as ir

    from converter.evaluation.normalize import normalize
    from converter.evaluation.oracle import Oracle
    from converter.folding import FoldOptions, fold_graph
    from converter.proof.examples import random_feeds

    wide = normalize(loaded.model)
    # A type is set, never changed: the loaded model may hold the same object.
    double = ir.TensorType(ir.DataType.DOUBLE)
    for graph in (wide.graph, *wide.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
                array = value.const_value.numpy().astype(np.float64)
                value.const_value = ir.tensor(array, name=value.name)
                value.type = double
        # A constant that the fold makes has the type of the values around it.
        for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
            if value.dtype == ir.DataType.FLOAT:
                value.type = double
    feeds = random_feeds(loaded.inputs, 2 if loaded.dynamic_batch else None, 0)
    folded = fold_graph(wide, FoldOptions(through_relu=through_relu)).model
    truth, got = Oracle(wide).run(feeds), Oracle(folded).run(feeds)
    worst = 0.0
    for key, expected in truth.items():
        largest = float(np.abs(expected).max(initial=0.0)) if expected.dtype.kind == "f" else 1.0
        worst = max(worst, error_of(got[key], expected) / (largest or 1.0))
    return digits(worst), nodes_of(folded)


def describe(result: Any) -> dict[str, Any]:
    """A `FoldResult` in the few numbers that a row keeps."""
    from converter.folding import Refusal

    kinds = {"batch-norm": [0, 0], "scale-shift": [0, 0]}
    reasons: dict[str, list[Any]] = {}
    for decision in result.plan.decisions:
        kind = getattr(decision.site, "kind", "batch-norm")
        kinds[kind][0] += 1
        kinds[kind][1] += decision.folded
        if isinstance(decision.outcome, Refusal) and kind == "batch-norm":
            entry = reasons.setdefault(decision.outcome.code, [0, ""])
            entry[0] += 1
            entry[1] = entry[1] or f"{decision.site.name}: {decision.outcome}"[:400]
    proof = result.proof
    worst = max(
        proof.measurements,
        key=lambda m: m.candidate_error / m.allowed if m.allowed else 0.0,
        default=None,
    )
    verdict, why = judge(proof)
    return {
        "left": nodes_of(result.model),
        "sites": kinds["batch-norm"],
        "scale_shifts": kinds["scale-shift"],
        "reasons": reasons,
        "merges": len(result.plan.merges),
        "branches": sum(len(merge.branches) for merge in result.plan.merges),
        "nodes": [result.before.nodes, result.after.nodes],
        "parameters": [result.before.parameters, result.after.parameters],
        "verdict": verdict,
        "why": why,
        "max_abs": digits(worst.magnitude if worst else 0.0),
        "error_original": digits(worst.reference_error if worst else 0.0),
        "error_folded": digits(worst.candidate_error if worst else 0.0),
        "batch_invariant": proof.batch_invariant,
    }


def certificate(found: Any) -> dict[str, Any]:
    """What `converter.certificate.certify` returned, in the keys of a row."""
    from converter.certificate.claim import claim

    told = {
        "certified": bool(found),
        "certificate": f"{claim(found)}." if found else str(found)[:500],
        "certify_seconds": round(found.seconds, 2),
    }
    if found:
        told |= {"certified_weights": found.weights, "largest_move": round(found.largest_move, 3)}
    return told


def judge(proof: Any) -> tuple[str, str]:
    """ "proven", "wrong" (the folded graph differs) or "not proven" (it cannot be said)."""
    if proof.passed:
        return "proven", ""
    if proof.failure:
        said = str(proof.failure)[:300]
        return ("wrong" if proof.failed == "differs" else "not proven"), said
    for bad in (*proof.measurements, *proof.parts):
        if bad.verdict == "differs":
            where = ", ".join(filter(None, (bad.output, bad.part, bad.inputs)))
            return "wrong", bad.problem or (
                f"{where}: error {bad.candidate_error:.2g}, allowed {bad.allowed:.2g}"
            )
    for bad in proof.framework:
        if bad.verdict == "differs":
            return "not proven", (
                f"the exported file is not what torch computes: error {bad.candidate_error:.2g}, "
                f"allowed {bad.allowed:.2g}"
            )
    problems = [m.problem for m in proof.measurements if m.problem]
    return "not proven", next(iter([*proof.random, *problems]), "there is nothing to measure")


def nodes_of(model: Any, op_type: str = "BatchNormalization") -> int:
    """How many nodes of a type a graph has, counted in the graph and its bodies."""
    import onnx_ir as ir

    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return sum(node.op_type == op_type and node.domain == "" for node in nodes)


def sensitivity(truth: dict[str, Any]) -> float:
    """How much two random samples differ in the output, relative to the largest number.

    Near zero the network says the same to everything, and its row proves little.
    """
    found = 0.0
    for array in truth.values():
        if array.dtype.kind == "f" and array.ndim and len(array) > 1 and np.isfinite(array).all():
            largest = float(np.abs(array).max(initial=0.0))
            found = max(found, float(np.abs(array[0] - array[1]).max()) / largest if largest else 0)
    return digits(found)


def error_of(got: Any, expected: Any) -> float:
    if expected.dtype.kind != "f":
        return 0.0
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.asarray(got, np.float64) - expected).max(initial=0.0)
    return float(difference) if np.isfinite(difference) else 1e30


def digits(number: float) -> float:
    return float(f"{number:.3g}") if np.isfinite(number) else 1e30
