"""Prove that a folded graph computes what the original did: `verify` and what it is made of."""

from converter.proof.examples import load_data
from converter.proof.measure import Measurement
from converter.proof.oracle import Oracle, OracleError
from converter.proof.verify import Invariance, Proof, verify

__all__ = ["Invariance", "Measurement", "Oracle", "OracleError", "Proof", "load_data", "verify"]
