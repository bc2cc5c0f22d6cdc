"""`verify`: prove that two ONNX files compute the same.

What measures brings torch and onnxruntime along, which take seconds to import: where nothing is
measured they are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from converter.certificate import ROUNDINGS, certify
from converter.certificate.identity import graph_sha256
from converter.commands import limits
from converter.commands.options.verify import Verify
from converter.commands.output import write_json
from converter.errors import UserError
from converter.report import FORMAT
from converter.report.certificate import describe_certificate, show_certificate
from converter.report.console import terminal, working
from converter.sources import onnx_
from converter.sources.detect import format_of

NOT_CERTIFIED = 3


def run(asked: Verify) -> int:
    """0: equal. 1: not equal. 3: it could not be measured, or certified, whether they are.

    Raises:
        UserError: the input is at fault (exit code 2).
    """
    if asked.roundings is not None and not asked.certify:
        raise UserError("--roundings is what a certificate allows.", "Add --certify.")
    if asked.certify == "only":
        return _certify_only(asked)
    from converter.commands.measuring import loaded, measured
    from converter.report.facts import EXIT_CODES, describe_proof
    from converter.report.terminal import show_proof

    console = terminal()
    with limits.memory(asked.proving.max_memory), working(f"loading {asked.original}") as progress:
        original, candidate = loaded(asked)
        found = None
        if asked.certify:
            progress("certifying for every input")
            found = certify(original.model, candidate.model, asked.roundings or ROUNDINGS)
        proof = measured(asked, original, candidate, found, progress)
    show_proof(console, proof, ("A", "B"))
    report = {"proof": describe_proof(proof)}
    if found is not None:
        told = describe_certificate(found, measured=True)
        report["certificate"] = told | _graphs(asked, original.model, candidate.model)
    _write(asked, report)
    return EXIT_CODES[proof.verdict]


def _certify_only(asked: Verify) -> int:
    """0: certified. 3: not certified, which does not say that they differ."""
    proving, sizes = asked.proving, asked.sizes
    if proving.data or proving.seed or sizes.input_shape or sizes.input_value:
        raise UserError(
            "--certify=only measures nothing: --data, --seed, --input-shape and --input-value have "
            "no use.",
            "With --certify it is measured as well.",
        )
    console = terminal()
    with limits.memory(asked.proving.max_memory), working(f"reading {asked.original}") as progress:
        original, candidate = _read(asked.original), _read(asked.candidate)
        progress("certifying for every input")
        found = certify(original, candidate, asked.roundings or ROUNDINGS)
    show_certificate(console, found, measured=False)
    told = describe_certificate(found, measured=False)
    _write(asked, {"certificate": told | _graphs(asked, original, candidate)})
    return 0 if found else NOT_CERTIFIED


def _graphs(asked: Verify, original: ir.Model, candidate: ir.Model) -> dict[str, Any]:
    """Which graphs the certificate is of, if that is written down; all weights are read for it."""
    if asked.json is None:
        return {}
    return {"graphs": {"original": _sha256(original), "candidate": _sha256(candidate)}}


def _sha256(model: ir.Model) -> str | None:
    try:
        return graph_sha256(model)
    except ValueError:
        return None


def _read(path: Path) -> ir.Model:
    kind = format_of(path)
    if kind.loader != "onnx_":
        raise UserError(
            f"{path} is {kind.what}; verify compares two ONNX files.",
            "`fold` proves its own result for other formats.",
        )
    return onnx_.read(path)[0]


def _write(asked: Verify, report: dict[str, Any]) -> None:
    files = {"original": str(asked.original), "candidate": str(asked.candidate)}
    write_json(asked.json, {"format": FORMAT, **files, **report})
