"""New weights that wait in a file: the same numbers, no memory, no leftovers."""

from __future__ import annotations

import errno
import gc
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from converter import pipeline
from converter.errors import UserError
from converter.files import on_disk
from converter.files.on_disk import LARGE, SPOOLED, Spool, in_memory, store_for
from converter.files.onnx_file import encode
from patterns.graphs import Graph, fold
from tests.converter.published import loaded


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_large_tensors_lie_in_a_file_without_a_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, order: str
) -> None:
    monkeypatch.setattr(sys, "byteorder", order)  # twice swapped is not swapped
    spool = Spool()
    arrays = [np.random.default_rng(i).normal(size=(LARGE, 1 + i)).astype(dtype) for i in range(3)]
    arrays.append(arrays[2].T)
    tensors = [spool.store(array, f"w{i}") for i, array in enumerate(arrays)]
    assert list(folder.iterdir()) == []
    for index in (3, 0, 2, 1):
        tensor, array = tensors[index], arrays[index]
        assert isinstance(tensor, ir.LazyTensor)
        assert (tensor.name, tuple(tensor.shape.numpy())) == (f"w{index}", array.shape)
        assert tensor.numpy().dtype == dtype
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_small_tensors_stay_in_memory() -> None:
    assert not isinstance(Spool().store(np.ones(3, np.float32), "w"), ir.LazyTensor)


def test_the_file_goes_with_its_last_tensor() -> None:
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("no list of open files here")
    gc.collect()
    before = len(list(open_files.iterdir()))
    tensor = Spool().store(np.ones(LARGE), "w")
    assert len(list(open_files.iterdir())) == before + 1
    del tensor
    gc.collect()
    assert len(list(open_files.iterdir())) == before


def test_writing_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, rest, at: real(fd, rest[:100_000], at))
    array = np.random.default_rng(0).normal(size=LARGE)
    np.testing.assert_array_equal(Spool().store(array, "w"), array)


def test_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="no room for the folded weights") as error:
        Spool().store(np.ones(LARGE), "w")
    assert "TMPDIR" in error.value.hint


def test_only_for_large_models() -> None:
    assert store_for(SPOOLED - 1) is in_memory
    assert store_for(SPOOLED) is not in_memory


def deep() -> Graph:
    """A shared weight, on maps large enough for a copy, a chain that folds in two rounds, and a
    Gemm."""
    g = Graph("float32")
    shared = g.weight(64, 64, 3, 3, name="shared")
    y = g.input("x", "N", 64, 32, 32)
    for _ in range(2):
        y = g.bn(g.op("Conv", y, shared, pads=[1, 1, 1, 1]), 64)
    y = g.op("Flatten", g.op("GlobalAveragePool", y))
    y = g.op("Gemm", g.bn(y, 64), g.weight(64, 300), g.weight(300))
    g.output(y, shape=["N", 300])
    return g


def test_a_fold_gives_the_same_bytes() -> None:
    usual = fold(deep())
    spooled = fold(deep(), store=Spool().store)
    assert any(
        isinstance(value.const_value, ir.LazyTensor)
        for value in spooled.model.graph.initializers.values()
    )
    for one, other in zip(encode(usual.model), encode(spooled.model), strict=True):
        assert bytes(one) == bytes(other)


def test_a_large_model_is_proven_with_its_weights_on_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_disk, "SPOOLED", 1)
    monkeypatch.setattr("converter.files.onnx_file.MAPPED", 1)
    result = pipeline.fold(loaded(deep()))
    assert result.proof.passed
    assert not result.plan.kept
    weights = result.model.graph.initializers.values()
    assert any(isinstance(value.const_value, ir.LazyTensor) for value in weights)
    assert list(folder.iterdir()) == [], "what the proof wrote is gone"
