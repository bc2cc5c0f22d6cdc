"""The contract of converter and service, filled in from a fold: model.json and selftest.npz."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir
from pydantic import ValidationError

from converter.errors import UserError
from converter.folding import Decision, Refusal
from converter.pipeline import FoldResult
from converter.publishing import curves
from converter.publishing.servable import Served
from converter.sources.inputs import required_inputs
from service.certificate import KEY, Certificate
from service.manifest import Curve, DType, FileEntry, Manifest, SelfTest, TensorSpec


def manifest(
    result: FoldResult,
    name: str,
    version: int,
    files: dict[str, FileEntry],
    self_test: SelfTest | None,
    served: Served,
    certificate: Certificate,
) -> Manifest:
    """The content of model.json for a fold.

    Args:
        result: a fold whose proof passed.
        name, version: of the model in its repository.
        files: of the version, besides model.json, with their sizes and sha256.
        self_test: what `write_selftest` returned.
        served: what the service returns from the model.
        certificate: what `certificate_of` returned.

    Raises:
        UserError: these values do not make a valid manifest.
    """
    loaded, proof = result.loaded, result.proof
    invariance = proof.invariance
    try:
        return Manifest(
            name=name,
            version=version,
            description=loaded.description,
            files=files,
            inputs=inputs(result),
            outputs=served.outputs,
            left_out={**loaded.left_out, **served.left_out},
            dynamic_batch=loaded.dynamic_batch and served.by_rows,
            batch_invariant=proof.batch_invariant,
            classification=loaded.classification,
            preprocessing=loaded.preprocessing,
            self_test=self_test,
            metrics=loaded.metrics,
            curves=_curves(loaded.path),
            provenance={
                "source": loaded.path.name,
                "kind": loaded.kind,
                "batchnorms": {
                    "folded": len(result.plan.folded),
                    "kept": {
                        decision.site.name: str(decision.outcome) for decision in result.plan.kept
                    },
                    "each": [_fate(decision) for decision in result.plan.batchnorms],
                },
                "before": asdict(result.before),
                "after": asdict(result.after),
                "proof": {
                    "max_error_original": max(m.reference_error for m in proof.measurements),
                    "max_error_folded": max(m.candidate_error for m in proof.measurements),
                    "not_covered": [ran.name for ran in proof.uncovered],
                    "batch_invariance_difference": invariance.difference if invariance else None,
                    **({"unchanged": proof.unchanged} if proof.unchanged else {}),
                },
                KEY: certificate.model_dump(mode="json"),
            },
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"this model cannot be described to the service: {where}: {first['msg']}.",
            "Nothing was published. Write the model with --output instead.",
        ) from error


def inputs(result: FoldResult) -> list[TensorSpec]:
    """The inputs of a request; an input with a default value among the weights keeps that value."""
    return [_spec(value) for value in required_inputs(result.model)]


def write_selftest(result: FoldResult, path: Path, served: Served) -> SelfTest | None:
    """Write inputs, and the outputs in float64 for them, to `path`, fsynced.

    Whole numbers that onnxruntime decides differently from float64 (the argmax of two equal scores)
    test nothing, nor does an output that is NaN or infinite throughout (a pitch where there is no
    voice): they are left out.

    Returns:
        How far each output may be off: other hardware may round differently, within a thousandth
        of the largest number (TF32 keeps 10 bits). None if no output is left; then nothing is
        written.
    """
    proof = result.proof
    types = {value.name: value.dtype for value in result.model.graph.outputs}
    arrays = {f"input:{name}": array for name, array in proof.sample.items()}
    atol = {}
    outputs = {spec.name for spec in served.outputs}
    for name, truth in proof.truth.items():
        dtype = types[name]
        expected = truth.astype(dtype.numpy()) if dtype is not None else truth
        if expected.dtype.kind == "O":
            expected = expected.astype(str)  # so that it is not pickled
        mine = [
            m for m in proof.measurements if m.output == name and m.inputs == proof.sampled
        ] or [m for m in proof.measurements if m.output == name]
        floats = expected.dtype.kind == "f"
        if floats:
            tells = not expected.size or bool(np.isfinite(expected).any())
        else:
            tells = all(m.candidate_error == 0 for m in mine)
        if name not in outputs or not tells:
            continue
        arrays[f"output:{name}"] = expected
        if floats:
            atol[name] = max(max(100.0 * m.allowed, 1e-3 * m.magnitude) for m in mine)
    if len(arrays) == len(proof.sample):
        return None
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    return SelfTest(atol=atol)


def _curves(path: Path) -> list[Curve]:
    """The curves of the training, if they belong to these weights; otherwise `fold` says so."""
    try:
        return curves.read(path)
    except curves.CurvesUnusable:
        return []


def _fate(decision: Decision) -> dict[str, Any]:
    """What became of a batch-norm: where it went, or, in a sentence, why it stays."""
    outcome = decision.outcome
    where = (
        str(outcome)
        if isinstance(outcome, Refusal)
        else f"{outcome.direction} into {' and '.join(outcome.into)}"
    )
    return {"name": decision.site.name, "folded": decision.folded, "where": where}


def _spec(value: ir.Value) -> TensorSpec:
    dtype = cast(DType, value.dtype.numpy().name if value.dtype is not None else "float32")
    shape: list[int | str] = [
        dim if isinstance(dim, int) else dim.value or ("batch" if axis == 0 else f"axis_{axis}")
        for axis, dim in enumerate(value.shape or ())
    ]
    return TensorSpec(name=value.name or "", dtype=dtype, shape=shape)
