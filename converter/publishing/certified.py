"""The certificate of a version, as model.json holds it: the claim, its figures, and of what it is.

It is bound to the files of the version. The graph is read back from them and must have the hash of
the graph that was certified; if writing has changed it, the file itself is certified.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from converter.certificate import Certified, NotCertified, certify
from converter.certificate.claim import claim
from converter.certificate.identity import checker_sha256, graph_sha256
from converter.errors import UserError
from converter.pipeline import FoldResult
from converter.proof.conclusion import conclusion
from converter.sources import onnx_
from service.certificate import BatchNorms, Certificate, Checked, Figures, Where


def certificate_of(result: FoldResult, model: Path, files: Mapping[str, str]) -> Certificate:
    """What is known of the graph in a file for every input; without the time that it took.

    Args:
        result: the fold.
        model: where its graph was written.
        files: sha256 of that file, and of those beside it with its weights, by their names.

    Raises:
        UserError: the proof rests on a certificate which the graph in the file does not get.
    """
    written, _ = onnx_.read(model)
    found, proof, graph = result.certificate, result.proof, graph_sha256(written)
    if graph != graph_sha256(result.model):
        found = certify(result.loaded.model, written)
        proof = replace(proof, certificate=found)
        if not proof.passed:
            raise UserError(
                f"the graph as it was written is not certified: {found}",
                "Nothing was published. Write the model with --output, and look at that file with "
                "verify --certify.",
            )
    folded, kept = len(result.plan.folded), len(result.plan.kept)
    return Certificate(
        certified=isinstance(found, Certified),
        verdict=conclusion(proof),
        sentence=f"{claim(found, folded + kept, kept)}."
        if isinstance(found, Certified)
        else f"Not certified: {found.reason.rstrip('.')}.",
        batchnorms=BatchNorms(folded=folded, kept=kept),
        figures=_figures(found) if isinstance(found, Certified) else None,
        where=_where(found) if isinstance(found, NotCertified) else None,
        original=Checked(graph=graph_sha256(result.loaded.model), files=_files(result.loaded.path)),
        folded=Checked(graph=graph, files=dict(files)),
        checker=checker_sha256(),
    )


def _figures(found: Certified) -> Figures:
    return Figures(
        weights=found.weights,
        largest_move=found.largest_move,
        roundings=found.roundings,
        sizes=[dict(sizes) for sizes in found.sizes],
    )


def _where(found: NotCertified) -> Where | None:
    if not (found.value or found.op):
        return None
    return Where(
        value=found.value,
        op=found.op,
        channel=found.channel,
        expected=_finite(found.expected),
        found=_finite(found.found),
    )


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else number


def _files(source: Path) -> dict[str, str]:
    """The sha256 of the file that was loaded; of a folder there is none."""
    if not source.is_file():
        return {}
    with source.open("rb") as file:
        return {source.name: hashlib.file_digest(file, "sha256").hexdigest()}
