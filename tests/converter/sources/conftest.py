"""What the tests of the sources share: checking a loaded graph against the original module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from converter.sources import Loaded


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """The graph gives what the module gives, at batch 1, 2 and 5."""

    def check(loaded: Loaded, module: nn.Module, batches: Sequence[int] = (1, 2, 5)) -> None:
        generator = np.random.default_rng(7)
        content = ir.to_proto(loaded.model).SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        assert loaded.dynamic_batch or len(batches) == 1
        for batch in batches:
            feeds: dict[str, Any] = {}
            for given in loaded.inputs:
                shape = (batch, *given.example[1:])
                if given.dtype.startswith("int"):
                    feeds[given.name] = generator.integers(0, given.upper or 2, shape)
                else:
                    feeds[given.name] = generator.standard_normal(shape).astype(given.dtype)
            with torch.no_grad():
                expected = module(*(torch.from_numpy(value) for value in feeds.values()))
            tensors = [expected] if isinstance(expected, torch.Tensor) else list(expected)
            for mine, theirs in zip(session.run(None, feeds), tensors, strict=True):
                assert mine.shape == tuple(theirs.shape)
                near(mine, theirs.numpy())
        if loaded.reference is not None:
            outputs = session.run(list(loaded.reference.outputs), loaded.reference.inputs)
            for mine, theirs in zip(outputs, loaded.reference.outputs.values(), strict=True):
                near(mine, theirs)

    def near(mine: Any, theirs: Any) -> None:
        """A small number beside large ones carries their rounding."""
        largest = max(1.0, float(np.abs(theirs).max(initial=0.0)))
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * largest)

    return check


@pytest.fixture
def op_types() -> Callable[[Loaded], list[str]]:
    return lambda loaded: [node.op_type for node in loaded.model.graph]
