"""What is done to one architecture, in three stages, each in a process of its own.

1. export: build it, export it un-folded, evaluate that in float64;
2. peers:  let the other tools simplify the file, count what they leave, check what they compute;
3. fold:   fold the file and prove it.

The first two do not depend on the folding engine: what they give lies in the architecture's
folder under `.cache/zoo` and is used again when the engine has changed.

    python -m benchmarks.zoo.stages STAGE NAME FOLDER [PEER ...]

A stage prints one line of JSON, `{"error": ...}` with a class and a sentence if it failed.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import PEERS, batchnorms_in

MODEL, EXPORT, TRUTH, REFERENCE, RIVALS = (
    "model.onnx",
    "export.json",
    "truth.npz",
    "reference.npz",
    "peers.json",
)
RIVAL_NAMES = ("onnxruntime", "onnxslim", "onnxscript", "aimet-onnx")
_ROUNDOFF = 2.0**-24
# A peer's result is called wrong beyond this many times what the proof allows ours.
LENIENCY = 10.0


def export(name: str, folder: Path) -> dict[str, Any]:
    """Write the un-folded file, and what float64 and onnxruntime say that it computes."""
    from benchmarks.zoo.networks import network
    from converter.normalize import normalize
    from converter.onnx_file import write_onnx
    from converter.proof.examples import random_feeds
    from converter.proof.oracle import Oracle
    from converter.proof.runtime import runner
    from converter.sources import LoadOptions
    from converter.sources.module import from_module

    net = network(name)
    start = time.perf_counter()
    loaded = from_module(
        net.module, path=Path(name), kind="", options=LoadOptions(input_shapes=net.shapes)
    )
    seconds = time.perf_counter() - start
    folder.mkdir(parents=True, exist_ok=True)
    # Peers choke on the exporters' unevaluated constants: all get the normalized graph.
    original = normalize(loaded.model)
    write_onnx(original, folder / MODEL)
    if loaded.reference is not None:
        _save(folder / REFERENCE, loaded.reference.inputs, loaded.reference.outputs)
    feeds = random_feeds(loaded.inputs, 2 if loaded.dynamic_batch else None, 0)
    truth = Oracle(loaded.model).run(feeds)
    got = runner(original, optimize=False).run(feeds)
    _save(folder / TRUTH, feeds, truth)
    return {
        "input": [list(shape.sizes) for shape in net.shapes],
        "statistics": "of random inputs, perturbed" if net.settled else "random",
        "export_seconds": round(seconds, 2),
        "dynamic_batch": loaded.dynamic_batch,
        "exporter": "TorchScript" if any("TorchScript" in n for n in loaded.notes) else "dynamo",
        "notes": [note[:300] for note in (*loaded.notes, *loaded.warnings)],
        "batchnorms": batchnorms_in(folder / MODEL),
        "megabytes": round((folder / MODEL).stat().st_size / 1e6, 1),
        "errors": {key: _error(got[key], truth[key]) for key in truth},
        "sensitivity": _sensitivity(truth),
    }


def peers(name: str, folder: Path, *rivals: str) -> dict[str, Any]:
    """How many batch-norms each peer leaves, and whether its file still computes the same."""
    del name
    made = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
    feeds, truth = _load(folder / TRUTH)
    found: dict[str, Any] = {}
    for rival in rivals or RIVAL_NAMES:
        peer, target = PEERS[rival], folder / f"{rival}.onnx"
        if not peer.python.is_file():
            continue
        outcome = peer.run(folder / MODEL, target, seconds=180.0)
        row: dict[str, Any] = {
            "version": peer.version(),
            "seconds": round(outcome.seconds, 2),
        }
        if outcome.error:
            row["error"] = outcome.error
        else:
            row["left"] = batchnorms_in(target)
            row |= _judge(target, feeds, truth, made["errors"])
        for path in folder.glob(f"{rival}.onnx*"):
            path.unlink()
        found[rival] = row
    return {"peers": found}


def _judge(
    path: Path, feeds: dict[str, Any], truth: dict[str, Any], errors: dict[str, float]
) -> dict[str, Any]:
    """The largest error relative to what is allowed for ours; right up to `LENIENCY` of it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        got = session.run(list(truth), feeds)
    except Exception as error:  # noqa: BLE001  onnxruntime has no common base class
        return {"right": False, "problem": " ".join(str(error).split())[:200]}
    worst = 0.0
    for (key, expected), result in zip(truth.items(), got, strict=True):
        if result.shape != expected.shape:
            return {"right": False, "problem": f"{key} has shape {result.shape}"}
        if expected.dtype.kind != "f":
            worst = max(worst, 0.0 if np.array_equal(result, expected) else np.inf)
            continue
        allowed = 2 * errors[key] + 4 * _ROUNDOFF * float(np.abs(expected).max(initial=0.0))
        error = _error(result, expected)
        worst = max(worst, error / allowed if allowed else (np.inf if error else 0.0))
    finite = float(worst) if np.isfinite(worst) else 1e30
    return {"right": finite <= LENIENCY, "error_ratio": round(finite, 3)}


def fold(name: str, folder: Path) -> dict[str, Any]:
    """Fold the exported file and prove it, as `converter fold` does."""
    from converter.pipeline import fold as fold_loaded
    from converter.sources import LoadOptions, load
    from converter.sources.loaded import Reference

    loaded = load(folder / MODEL, LoadOptions())
    loaded.path = Path(name)
    if (folder / REFERENCE).is_file():
        loaded = replace(loaded, reference=Reference(*_load(folder / REFERENCE)))
    start = time.perf_counter()
    result = fold_loaded(loaded)
    whole = time.perf_counter() - start
    return describe(result) | {
        "exact": exact(loaded),
        "fold_seconds": round(result.seconds, 3),
        "proof_seconds": round(whole - result.seconds, 2),
    }


def exact(loaded: Any) -> float:
    """The largest difference between original and folded where both are float64 throughout,
    relative to the largest number: the algebra alone, without float32's rounding.

    The graph's weights are widened before it is folded, so nothing is rounded to float32.
    """
    import onnx_ir as ir

    from converter.folding import fold_graph
    from converter.normalize import normalize
    from converter.proof.examples import random_feeds
    from converter.proof.oracle import Oracle

    wide = normalize(loaded.model)
    for graph in (wide.graph, *wide.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
                array = value.const_value.numpy().astype(np.float64)
                value.const_value = ir.tensor(array, name=value.name)
                value.dtype = ir.DataType.DOUBLE
    feeds = random_feeds(loaded.inputs, 2 if loaded.dynamic_batch else None, 0)
    truth, folded = Oracle(wide).run(feeds), Oracle(fold_graph(wide).model).run(feeds)
    worst = 0.0
    for key, expected in truth.items():
        largest = float(np.abs(expected).max(initial=0.0)) if expected.dtype.kind == "f" else 1.0
        worst = max(worst, _error(folded[key], expected) / (largest or 1.0))
    return _digits(worst)


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
        "max_abs": _digits(worst.magnitude if worst else 0.0),
        "error_original": _digits(worst.reference_error if worst else 0.0),
        "error_folded": _digits(worst.candidate_error if worst else 0.0),
        "batch_invariant": proof.batch_invariant,
    }


def judge(proof: Any) -> tuple[str, str]:
    """ "proven", "wrong" (the folded graph differs) or "not proven" (it cannot be said)."""
    if proof.passed:
        return "proven", ""
    if proof.failure:
        return "not proven", str(proof.failure)[:300]
    differing = [m for m in proof.measurements if not m.passed]
    if any(not m.problem or "folded" in m.problem for m in differing):
        bad = next(m for m in differing if not m.problem or "folded" in m.problem)
        return "wrong", bad.problem or (
            f"{bad.output}, {bad.inputs}: error {bad.candidate_error:.2g}, "
            f"allowed {bad.allowed:.2g}"
        )
    if differing:
        return "not proven", differing[0].problem
    bad = next(m for m in proof.framework if not m.passed)
    return "not proven", (
        f"the exported file is not what torch computes: error {bad.candidate_error:.2g}, "
        f"allowed {bad.allowed:.2g}"
    )


def nodes_of(model: Any, op_type: str = "BatchNormalization") -> int:
    """How many nodes of a type a graph has, counted in the graph and its bodies."""
    import onnx_ir as ir

    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return sum(node.op_type == op_type and node.domain == "" for node in nodes)


def peak_megabytes() -> int:
    """Of this process. Not ru_maxrss, which it takes over from the one that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


def _sensitivity(truth: dict[str, Any]) -> float:
    """How much two random samples differ in the output, relative to the largest number.

    Near zero the network says the same to everything, and its row proves little.
    """
    found = 0.0
    for array in truth.values():
        if array.dtype.kind == "f" and array.ndim and len(array) > 1 and np.isfinite(array).all():
            largest = float(np.abs(array).max(initial=0.0))
            found = max(found, float(np.abs(array[0] - array[1]).max()) / largest if largest else 0)
    return _digits(found)


def _error(got: Any, expected: Any) -> float:
    if expected.dtype.kind != "f":
        return 0.0
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.asarray(got, np.float64) - expected).max(initial=0.0)
    return float(difference) if np.isfinite(difference) else 1e30


def _digits(number: float) -> float:
    return float(f"{number:.3g}") if np.isfinite(number) else 1e30


def _save(path: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    arrays = {f"input {k}": v for k, v in inputs.items()}
    np.savez(path, **arrays, **{f"output {k}": v for k, v in outputs.items()})


def _load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"input": {}, "output": {}}
    with np.load(path) as arrays:
        for key, array in arrays.items():
            kind, _, name = key.partition(" ")
            found[kind][name] = array
    return found["input"], found["output"]


STAGES: dict[str, Callable[..., dict[str, Any]]] = {"export": export, "peers": peers, "fold": fold}


def innermost(error: BaseException) -> BaseException:
    """The exporters wrap errors in errors: the innermost one tells."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def main(words: Sequence[str] | None = None) -> int:
    stage, name, folder, *more = sys.argv[1:] if words is None else words
    try:
        found = STAGES[stage](name, Path(folder), *more)
    except Exception as error:  # noqa: BLE001  everything is a row
        cause = innermost(error)
        text = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(str(error).split()))
        found = {"error": {"class": type(cause).__name__, "sentence": text[:400]}}
        if stage == "fold":
            import traceback

            found["error"]["trace"] = traceback.format_exc()[-1500:]
    found["peak_mb"] = peak_megabytes()
    print("\n" + json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
