"""What is done to one architecture, in three stages, each in a process of its own.

1. export:  build it, export it un-folded, evaluate that in float64;
2. peers:   let the other tools simplify the file, count what they leave, check what they compute;
3. fold:    fold the file, prove and certify it;
4. certify: fold the file and certify it, where only the checker of certificates has changed.

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
from benchmarks.zoo.judging import certificate, describe, error_of, exact, sensitivity
from benchmarks.zoo.names import EXPORT, EXPORTERS, MODEL, REFERENCE, RIVAL_NAMES, TRUTH, USER

_ROUNDOFF = 2.0**-24
# A peer's result is called wrong beyond this many times what the proof allows ours.
LENIENCY = 10.0


def export(name: str, folder: Path, exporter: str = EXPORTERS[0]) -> dict[str, Any]:
    """Write the un-folded files, and what float64 and onnxruntime say that they compute.

    `exporter` "TorchScript" takes what `converter fold` falls back to before torch.export: it
    needs a tenth of the time.
    """
    from benchmarks.zoo import exporters
    from benchmarks.zoo.networks import network
    from converter.evaluation.normalize import normalize
    from converter.evaluation.oracle import Oracle
    from converter.evaluation.runtime import runner
    from converter.files.onnx_file import write_onnx
    from converter.proof.examples import random_feeds
    from converter.sources import LoadOptions
    from converter.sources.module import from_module

    net = network(name)
    start = time.perf_counter()
    options = LoadOptions(input_shapes=net.shapes)
    with exporters.first(exporter):
        loaded = from_module(net.module, path=Path(name), kind="", options=options)
    seconds = time.perf_counter() - start
    folder.mkdir(parents=True, exist_ok=True)
    write_onnx(loaded.model, folder / USER)
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
        "asked": exporter,
        "notes": [note[:300] for note in (*loaded.notes, *loaded.warnings)],
        "batchnorms": batchnorms_in(folder / MODEL),
        "megabytes": round((folder / MODEL).stat().st_size / 1e6, 1),
        "errors": {key: error_of(got[key], truth[key]) for key in truth},
        "sensitivity": sensitivity(truth),
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
    """The largest error relative to what is allowed for ours; right up to `LENIENCY` of it.

    Without onnxruntime's optimisations: they have been seen to break a right file of a peer's
    (a padding fused into a 2x2 convolution of hgnetv2), and the peer is not to blame for that.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
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
        error = error_of(result, expected)
        worst = max(worst, error / allowed if allowed else (np.inf if error else 0.0))
    finite = float(worst) if np.isfinite(worst) else 1e30
    return {"right": finite <= LENIENCY, "error_ratio": round(finite, 3)}


def fold(name: str, folder: Path) -> dict[str, Any]:
    """Fold the exporter's own file, prove and certify it, as `converter fold` does."""
    from converter.pipeline import fold as fold_loaded
    from converter.sources.loaded import Reference

    loaded = _users(name, folder)
    if (folder / REFERENCE).is_file():
        loaded = replace(loaded, reference=Reference(*_load(folder / REFERENCE)))
    start = time.perf_counter()
    result = fold_loaded(loaded)
    whole = time.perf_counter() - start
    row = describe(result) | certificate(result.certificate)
    difference, _ = exact(loaded)
    # What stays by default may go with an option; its algebra is checked as well.
    other = exact(loaded, through_relu=True) if row["left"] else (difference, 0)
    return row | {
        "exact": max(difference, other[0]),
        "left_through_relu": other[1],
        "fold_seconds": round(result.seconds, 3),
        "proof_seconds": round(whole - result.seconds - result.certificate.seconds, 2),
    }


def certify(name: str, folder: Path) -> dict[str, Any]:
    """Fold the exporter's own file, and certify that against it."""
    from converter.certificate import certify as certified
    from converter.pipeline import preview

    loaded = _users(name, folder)
    return certificate(certified(loaded.model, preview(loaded).model))


def _users(name: str, folder: Path) -> Any:
    """The file as a user has it from the exporter."""
    from converter.sources import LoadOptions, load

    loaded = load(folder / USER, LoadOptions())
    loaded.path = Path(name)
    return loaded


def peak_megabytes() -> int:
    """Of this process. Not ru_maxrss, which it takes over from the one that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


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


STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "export": export,
    "peers": peers,
    "fold": fold,
    "certify": certify,
}


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
        if stage in {"fold", "certify"}:
            import traceback

            found["error"]["trace"] = traceback.format_exc()[-1500:]
    found["peak_mb"] = peak_megabytes()
    print("\n" + json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
