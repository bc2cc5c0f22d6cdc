"""What is done to one case, in three stages, each in a process of its own.

1. make: build a network with random weights, save its state_dict (networks only);
2. fold: `converter fold FILE ... --publish`, as a user runs it; what the un-folded model computes
   for some inputs is kept beside it;
3. ask:  a real service with the published version, asked through JSON and V2, and compared.

    python -m benchmarks.real.stages STAGE CASE FOLDER FILE
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real import compare
from benchmarks.real.asking import NotServedError, Server, peak_megabytes, through_json, through_v2
from benchmarks.real.case import Case

FEEDS, OTHERS, FRAMEWORK = "feeds.npz", "others.npz", "framework.npz"
UNFOLDED, REPORT, MODELS = "unfolded.onnx", "report.json", "models"
# Other seeds than that of the proof: the service is asked what the proof has not seen.
SEEDS = {FEEDS: 11, OTHERS: 12}
AT_ONCE = 4


def make(case: Case, folder: Path, file: Path) -> dict[str, Any]:
    """Build the network and save its weights as `file`."""
    from benchmarks.real import networks

    folder.mkdir(parents=True, exist_ok=True)
    return networks.write(case, file)


def fold(case: Case, folder: Path, file: Path) -> dict[str, Any]:
    """Run the command, and say what it said."""
    from converter import cli
    from converter.commands import loading

    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / MODELS, ignore_errors=True)
    for name in (REPORT, FEEDS, OTHERS, UNFOLDED, FRAMEWORK):
        (folder / name).unlink(missing_ok=True)
    words = [*case.words]
    if case.feeds:
        for name, seed in SEEDS.items():
            save(folder / name, _meant(case, seed))
        words += ["--data", str(folder / FEEDS)]
    load, beside = loading.load_from, 0.0

    def keeping(*args: Any, **options: Any) -> Any:
        nonlocal beside
        loaded = load(*args, **options)
        start = time.perf_counter()
        _keep(loaded, case, folder)
        beside = time.perf_counter() - start
        return loaded

    loading.load_from = keeping
    where = str(folder / MODELS / case.slug)
    start = time.perf_counter()
    code = cli.main(["fold", str(file), *words, "--publish", where, "--json", str(folder / REPORT)])
    seconds = time.perf_counter() - start - beside
    row = {"code": code, "seconds": round(seconds, 2), "fold_peak_mb": peak_megabytes()}
    report = folder / REPORT
    return row | (compare.describe(json.loads(report.read_text())) if report.is_file() else {})


def _keep(loaded: Any, case: Case, folder: Path) -> None:
    """What the answers are compared with, and the inputs if the case has none of its own."""
    from converter.files.onnx_file import write_onnx
    from converter.proof.examples import random_feeds

    if not case.feeds:
        batch = 2 if loaded.dynamic_batch else None
        for name, seed in SEEDS.items():
            save(folder / name, random_feeds(loaded.inputs, batch, seed))
    if "ONNX" not in loaded.kind:
        write_onnx(loaded.model, folder / UNFOLDED)
    if loaded.reference is not None:
        arrays = {f"input {k}": v for k, v in loaded.reference.inputs.items()}
        outputs = {f"output {k}": v for k, v in loaded.reference.outputs.items()}
        save(folder / FRAMEWORK, arrays | outputs)


def _meant(case: Case, seed: int) -> dict[str, np.ndarray]:
    from benchmarks.real import feeds

    made: dict[str, np.ndarray] = getattr(feeds, case.feeds)(np.random.default_rng(seed))
    return made


def ask(case: Case, folder: Path, file: Path) -> dict[str, Any]:
    """Ask the service what the file was made for, and hold the answers against the original."""
    original = folder / UNFOLDED if (folder / UNFOLDED).is_file() else file
    both = [load(folder / name) for name in SEEDS]
    truths = [compare.original(original, feeds) for feeds in both]
    expected = [("onnxruntime", both[0], truths[0])]
    if (folder / FRAMEWORK).is_file():
        kept = load(folder / FRAMEWORK)
        sides = {
            side: {k.partition(" ")[2]: v for k, v in kept.items() if k.startswith(side)}
            for side in ("input", "output")
        }
        expected.append(("the framework", sides["input"], sides["output"]))
    allowed = compare.limit(json.loads((folder / REPORT).read_text()))
    told: list[dict[str, Any]] = []
    try:
        with Server(folder / MODELS) as server:
            for who, inputs, outputs in expected:
                for how in (through_json, through_v2):
                    answer = how(server, case.slug, inputs)
                    told.append({"beside": who, "through": how.__name__})
                    told[-1] |= compare.answers(answer, outputs, allowed)
            # Requests of two kinds at the same time, which the service may run as one batch.
            with ThreadPoolExecutor(AT_ONCE) as pool:
                feeds = [both[turn % 2] for turn in range(2 * AT_ONCE)]
                given = pool.map(lambda inputs: through_v2(server, case.slug, inputs), feeds)
                for turn, answer in enumerate(given):
                    told.append({"beside": "onnxruntime", "through": "through_v2, at once"})
                    told[-1] |= compare.answers(answer, truths[turn % 2], allowed)
            peak = server.peak_megabytes()
    except NotServedError as error:
        return {"served": False, "said": str(error)[:400]}
    kinds = {(row["beside"], row["through"], *row["problems"]): row for row in told}
    return {
        "served": True,
        "error": max(row["error"] for row in told),
        "right": all(row["right"] for row in told),
        "asked": list(kinds.values()),
        "serve_peak_mb": peak,
    }


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, **arrays)


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


STAGES: dict[str, Callable[[Case, Path, Path], dict[str, Any]]] = {
    "make": make, "fold": fold, "ask": ask
}  # fmt: skip


def main(words: list[str] | None = None) -> int:
    stage, case, folder, file = sys.argv[1:] if words is None else words
    try:
        found = STAGES[stage](Case.from_json(case), Path(folder), Path(file))
    except Exception as error:  # noqa: BLE001  everything is a row
        import traceback

        text = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(str(error).split()))
        found = {"error_class": type(error).__name__, "sentence": text[:400]}
        found["trace"] = traceback.format_exc()[-1500:]
    print("\n" + json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
