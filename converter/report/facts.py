"""The report of a fold as plain data: what `--json` writes and what the tables show."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from converter.folding import Decision, Plan, Refusal
from converter.pipeline import FoldResult, Preview
from converter.proof import Measurement, Proof, Verdict
from converter.proof.conclusion import conclusion
from converter.report import FORMAT
from converter.report.advice import advise
from converter.report.certificate import describe_certificate
from converter.report.reasons import groups, warnings
from converter.sources.loaded import Loaded

# The exit codes of `fold` and `verify`.
EXIT_CODES: dict[Verdict, int] = {"equal": 0, "differs": 1, "unmeasured": 3}


def describe_source(loaded: Loaded) -> dict[str, Any]:
    return {
        "file": str(loaded.path),
        "kind": loaded.kind,
        "inputs": [
            {"name": item.name, "dtype": item.dtype, "shape": list(item.shape)}
            for item in loaded.inputs
        ],
        "dynamic_batch": loaded.dynamic_batch,
        "notes": loaded.notes,
        "warnings": loaded.warnings,
    }


def describe_plan(plan: Plan) -> dict[str, Any]:
    """`decisions` are for batch-norms, `scale_shifts` for other constant scales and shifts."""
    return {
        "batchnorms": len(plan.batchnorms),
        "folded": len(plan.folded),
        "kept": len(plan.kept),
        "decisions": [describe_decision(decision) for decision in plan.batchnorms],
        "scale_shifts": [describe_decision(decision) for decision in plan.scale_shifts],
        "reasons": [
            asdict(group) | {"count": len(group.names)} for group in groups(plan.batchnorms)
        ],
        "merges": [
            {"into": merge.name, "branches": [branch.name for branch in merge.branches]}
            for merge in plan.merges
        ],
    }


def describe_decision(decision: Decision) -> dict[str, Any]:
    """One batch-norm: `code`, `reason` and `hint` if it stays; `into` and `path` if it folds."""
    site, outcome = decision.site, decision.outcome
    common = {
        "name": site.name,
        "kind": site.kind,
        "ops": [node.op_type for node in site.nodes],
        "channels": site.channels,
        "folded": decision.folded,
        "warnings": [str(hazard) for hazard in site.warnings],
        "hazards": [asdict(hazard) for hazard in site.warnings],
    }
    if isinstance(outcome, Refusal):
        return common | {
            "code": outcome.code,
            "reason": outcome.sentence,
            "hint": outcome.hint,
            "forward": None
            if outcome.behind is None
            else {
                "code": outcome.behind.code,
                "reason": outcome.behind.sentence,
                "hint": outcome.behind.hint,
            },
        }
    return common | {
        "direction": outcome.direction,
        "into": list(outcome.into),
        "path": list(outcome.path),
        "stays": decision.stays,
    }


def describe_proof(proof: Proof) -> dict[str, Any]:
    """Errors are maxima of |y - float64|; a number that is not finite is given as null."""
    invariance, excused = proof.invariance, set(proof.excused)
    return {
        "passed": proof.passed,
        "verdict": proof.verdict,
        "conclusion": conclusion(proof),
        "unmeasured": list(proof.unmeasured),
        "rests_on": list(proof.rests_on),
        "ran": [
            asdict(ran) | {"covered": ran.covered or bool(proof.certificate)} for ran in proof.ran
        ],
        "failure": proof.failure,
        "unchanged": proof.unchanged,
        "rule": "folded <= 2*original + 4*u*max|y|",
        "measurements": [_describe(m, "folded", m in excused) for m in proof.measurements],
        "parts": [_describe(m, "folded", m in excused) for m in proof.parts],
        "framework": [_describe(m, "framework") for m in proof.framework],
        "batch_invariance": None
        if invariance is None
        else {
            "holds": invariance.holds,
            "difference": _finite(invariance.difference),
            "allowed": _finite(invariance.allowed),
            "problem": invariance.problem,
        },
        "notes": list(proof.notes),
    }


def _describe(m: Measurement, who: str, excused: bool = False) -> dict[str, Any]:
    return {
        "output": m.output,
        "inputs": m.inputs,
        "max_abs": _finite(m.magnitude),
        "error_original": _finite(m.reference_error),
        f"error_{who}": _finite(m.candidate_error),
        "allowed": _finite(m.allowed),
        "passed": m.passed,
        "verdict": m.verdict,
        "excused": excused,
        "problem": m.problem,
        "part": m.part,
    }


def describe_preview(preview: Preview) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "source": describe_source(preview.loaded),
        "plan": describe_plan(preview.plan),
        "warnings": describe_warnings(preview.plan),
        "hazards": [asdict(hazard) for hazard in preview.hazards],
        "advice": [asdict(hazard) for hazard in advise(preview.original)],
        "before": asdict(preview.before),
        "after": asdict(preview.after),
    }


def describe_warnings(plan: Plan) -> list[dict[str, Any]]:
    """The warnings about batch-norms by kind, each different sentence once."""
    return [
        {
            "code": kind.code,
            "sentences": [
                {"sentence": text, "names": list(names)} for text, names in kind.sentences
            ],
        }
        for kind in warnings(plan.decisions)
    ]


def describe_fold(result: FoldResult) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "source": describe_source(result.loaded),
        "plan": describe_plan(result.plan),
        "warnings": describe_warnings(result.plan),
        "hazards": [asdict(hazard) for hazard in result.hazards],
        "advice": [asdict(hazard) for hazard in advise(result.original)],
        "proof": describe_proof(result.proof),
        "certificate": describe_certificate(result.certificate, measured=True, plan=result.plan),
        "before": asdict(result.before),
        "after": asdict(result.after),
        "fold_seconds": round(result.seconds, 4),
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
