"""Every op of opsets 11 to 23 that onnxruntime runs on the CPU in float32, against the oracle.

The schemas are walked: an op that has neither a case nor a row in `uncovered.WITHOUT` fails, and so
does a case for which onnxruntime never ran.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import defs
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from converter.evaluation.uncovered import DIFFERENT, WITHOUT
from converter.proof.recorder import Recorder
from docs import oracle
from tests.converter.evaluation.sweep import elementwise, layers, places, sequences, windows
from tests.converter.evaluation.sweep.net import Array, Net

FIRST, LAST = 11, 23
SEEDS = range(8)
CASES = {
    **elementwise.CASES, **layers.CASES, **places.CASES, **sequences.CASES, **windows.CASES,
}  # fmt: skip
REJECTED = (
    errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.NotImplemented,
    errors.RuntimeException,
)  # fmt: skip
# What float32 may be away, relative to the largest number: sums of a few hundred products.
ROUNDING = 3e-5


def opsets_of(op: str) -> list[int]:
    """The first opset, from `FIRST` on, of each version of an op that is not deprecated."""
    versions = sorted(
        (schema.since_version, schema.deprecated)
        for schema in defs.get_all_schemas_with_history()
        if schema.domain == "" and schema.name == op and schema.since_version <= LAST
    )
    if not versions:  # it came later
        return []
    ends = [since for since, _ in versions[1:]] + [LAST + 1]
    return [
        max(FIRST, since)
        for (since, deprecated), end in zip(versions, ends, strict=True)
        if end > FIRST and not deprecated
    ]


OPS = [
    op
    for op in sorted({s.name for s in defs.get_all_schemas_with_history() if s.domain == ""})
    if opsets_of(op)
]


def difference(op: str, truth: Any, found: Any) -> str:
    """What is wrong with a result, "" if nothing is."""
    one, other = np.asarray(truth), np.asarray(found)
    if one.shape != other.shape:
        return f"shape {one.shape}, in onnxruntime {other.shape}"
    if other.dtype.kind != "f":
        if one.dtype != other.dtype:
            return f"type {one.dtype}, in onnxruntime {other.dtype}"
        # A sum that lies between two integers may be rounded to either.
        apart = np.abs(one.astype(np.int64) - other.astype(np.int64))
        near = op == "QLinearConv" and apart.max(initial=0) <= 1 and apart.mean() < 0.1
        return "" if near or not apart.any() else f"{apart.astype(bool).mean():.0%} differ"
    a, b = one.astype(float), other.astype(float)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return "NaN or infinity elsewhere"
    scale = float(np.abs(a[finite]).max(initial=0.0))
    worst = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    return "" if worst <= ROUNDING * scale else f"{worst / max(scale, 1e-300):.1e} away"


def run(net: Net) -> dict[str, Array] | None:
    """In onnxruntime; None where it has no kernel, or takes the case for wrong."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = ort.InferenceSession(
            net.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return dict(zip(net.outputs, session.run(net.outputs, net.feeds), strict=True))
    except REJECTED:
        return None


def test_every_op_has_a_case_or_a_reason() -> None:
    assert not set(OPS) - set(CASES) - set(WITHOUT)
    assert not set(CASES) & set(WITHOUT)
    assert not (set(CASES) | set(WITHOUT)) - set(OPS)


@pytest.mark.parametrize("op", sorted(CASES))
def test_the_oracle_says_what_onnxruntime_computes(op: str) -> None:
    ran = 0
    for opset in opsets_of(op):
        for seed in SEEDS:
            net = Net(opset, seed)
            CASES[op](net)
            results = run(net)
            if results is None:
                continue
            ran += 1
            truth = Recorder(ir.from_proto(net.model())).run(net.feeds)
            for index, (name, found) in enumerate(results.items()):
                if op == "Dropout" and opset < 12 and index == 1:
                    assert not found.any()  # else the row in DIFFERENT is no longer true
                    assert truth[name].all()
                    continue
                problem = difference(op, truth[name], found)
                assert not problem, f"opset {opset}, seed {seed}, output {index}: {problem}"
    assert ran >= len(SEEDS) // 2, "onnxruntime runs it not at all"


def test_the_page_is_written_from_the_table() -> None:
    assert oracle.PAGE.read_text(encoding="utf-8") == oracle.page()
    assert set(DIFFERENT) <= set(CASES)
