"""Random graphs for property tests."""

from __future__ import annotations

import onnx_ir as ir
from hypothesis import strategies as st

from patterns.random_graphs import RandomGraph


def models() -> st.SearchStrategy[ir.Model]:
    return st.builds(
        lambda seed, size: RandomGraph(seed).model(size),
        st.integers(0, 2**32 - 1),
        st.integers(5, 14),
    )
