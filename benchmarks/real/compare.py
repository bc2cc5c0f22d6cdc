"""Answers of the service beside those of the original, and a report in the few words of a row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

# An answer may be so far from the original's, relative to the output's largest number, at least:
# two runs in float32 that round differently.
FLOOR = 1e-4
# Both have errors of their own, as the proof measured them; on other inputs they may be larger.
SLACK = 8.0


def original(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What onnxruntime computes with the un-folded file, as it comes; outputs that are no tensors
    are left out."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {item.name: item.type for item in session.get_inputs()}
    given = {name: array for name, array in feeds.items() if name in wanted}
    names = [item.name for item in session.get_outputs()]
    found = session.run(names, given)
    return {k: v for k, v in zip(names, found, strict=True) if isinstance(v, np.ndarray)}


def limit(report: dict[str, Any]) -> dict[str, float]:
    """By output, how far an answer may be off, relative to its largest number."""
    allowed: dict[str, float] = {}
    for measured in report["proof"]["measurements"]:
        errors = [measured[key] or 0.0 for key in ("error_original", "error_folded")]
        relative = SLACK * sum(errors) / (measured["max_abs"] or 1.0)
        name = measured["output"]
        allowed[name] = max(allowed.get(name, FLOOR), relative)
    return allowed


def answers(
    got: dict[str, np.ndarray], wanted: dict[str, np.ndarray], allowed: dict[str, float]
) -> dict[str, Any]:
    """The largest error relative to the output's largest number, and whether all is right.

    Numbers that are not finite must be so in both. Whole numbers and booleans must be equal.
    """
    worst, problems, left_out = 0.0, [], []
    for name, expected in wanted.items():
        if name not in got:
            left_out.append(name)
            continue
        answer = got[name]
        if answer.shape != expected.shape:
            problems.append(f"{name} has shape {answer.shape}, not {expected.shape}")
            continue
        if expected.dtype.kind not in "f":
            if expected.dtype.name == "bfloat16":
                expected = expected.astype(np.float32)
            elif not np.array_equal(answer.astype(expected.dtype), expected):
                problems.append(f"{name} has other whole numbers")
                continue
        error = _error(answer, expected)
        worst = max(worst, error)
        if error > allowed.get(name, FLOOR):
            problems.append(f"{name} is off by {error:.1e} of its largest number")
    if not set(wanted) & set(got):
        problems.append("no output of the original was answered")
    return {
        "error": float(f"{min(worst, 1e30):.3g}"),
        "right": not problems,
        "problems": problems,
        "left_out": left_out,
    }


def _error(answer: np.ndarray, expected: np.ndarray) -> float:
    wide, truth = answer.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(truth)
    if not np.array_equal(finite, np.isfinite(wide)):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = float(np.abs(truth[finite]).max())
    difference = float(np.abs(wide[finite] - truth[finite]).max())
    return difference / largest if largest else (float("inf") if difference else 0.0)


def describe(report: dict[str, Any]) -> dict[str, Any]:
    """Counts, reasons and the verdict of a report of `converter fold --json`."""
    plan, proof = report["plan"], report["proof"]
    maps = plan["scale_shifts"]
    kept = [d for d in plan["decisions"] if not d["folded"]]
    reasons = Counter(d.get("code", "stays") for d in kept)
    first = {d.get("code", "stays"): d.get("reason", "") for d in reversed(kept)}
    return {
        "kind": report["source"]["kind"],
        "batchnorms": plan["batchnorms"],
        "folded": plan["folded"],
        "maps": len(maps),
        "maps_folded": sum(d["folded"] for d in maps),
        "reasons": {code: [count, first[code][:300]] for code, count in reasons.most_common()},
        "proven": proof["passed"],
        "why": _why(proof),
        **_certificate(report["certificate"]),
        "notes": [str(note)[:300] for note in proof["notes"]],
        "dynamic_batch": report["source"]["dynamic_batch"],
    }


def _certificate(found: dict[str, Any]) -> dict[str, Any]:
    """The keys of a certificate that the table shows, as in rows of the zoo."""
    told = {
        "certified": found["certified"],
        "certificate": found["sentence"][:500],
        "certify_seconds": round(found["seconds"], 2),
    }
    if found["certified"]:
        told["certified_weights"] = found["figures"]["weights"]
        told["largest_move"] = round(found["figures"]["largest_move"], 3)
    return told


def _why(proof: dict[str, Any]) -> str:
    """The reason of a proof that did not pass, as the report has it."""
    if proof["passed"]:
        return ""
    if proof["failure"]:
        return str(proof["failure"])[:400]
    for measured in (*proof["measurements"], *proof.get("parts", ()), *proof["framework"]):
        if not measured["passed"]:
            where = ", ".join(filter(None, (measured[k] for k in ("output", "inputs", "part"))))
            error = measured.get("error_folded", measured.get("error_framework"))
            above = f"{where}: error {error}, allowed {measured['allowed']}"
            return f"{proof['conclusion']} {measured['problem'] or above}"[:400]
    return str(proof["conclusion"])
