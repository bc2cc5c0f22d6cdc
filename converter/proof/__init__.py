"""Prove that a folded graph computes what the original did: `verify` and its parts."""

from converter.evaluation.oracle import Oracle, OracleError
from converter.proof.examples import data_shapes, load_data
from converter.proof.invariance import Invariance
from converter.proof.measure import Measurement, Verdict
from converter.proof.verdict import Proof
from converter.proof.verification import verify

__all__ = [
    "Invariance",
    "Measurement",
    "Oracle",
    "OracleError",
    "Proof",
    "Verdict",
    "data_shapes",
    "load_data",
    "verify",
]
