"""The IDX parser: what it reads, and every way a file can lie to it."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converter.errors import UserError
from converter.training import idx


def encode(values: npt.NDArray[np.uint8]) -> bytes:
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return struct.pack(">HBB", 0, 8, values.ndim) + sizes + values.tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
GOOD = encode(IMAGES)
PACKED = gzip.compress(GOOD, mtime=0)  # the names of tests must not change with the time


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_the_content_and_its_checksum_do_not_depend_on_compression(
    path: Path, pack: type[bytes]
) -> None:
    path.write_bytes(pack(GOOD))
    content = idx.read(path, rank=3)
    assert content.values.dtype == np.uint8
    assert np.array_equal(content.values, IMAGES)
    assert content.sha256 == hashlib.sha256(GOOD).hexdigest()


@settings(deadline=None)  # it writes files
@given(values=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0)))
def test_what_was_encoded_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, values: npt.NDArray[np.uint8]
) -> None:
    path = tmp_path_factory.mktemp("idx") / "values"
    path.write_bytes(encode(values))
    assert np.array_equal(idx.read(path, rank=values.ndim).values, values)


@settings(deadline=None)
@given(data=st.binary(max_size=64), packed=st.booleans())
def test_arbitrary_bytes_are_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / "values"
    path.write_bytes(gzip.compress(data) if packed else data)
    try:
        content = idx.read(path, rank=1)
    except UserError:
        return
    assert data == encode(content.values)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "ends after 0 of the 16 bytes"),
        (GOOD[:3], "ends after 3 of the 16 bytes"),
        (GOOD[:15], "ends after 15 of the 16 bytes"),
        (GOOD[:-1], "ends after 23 of the 24 bytes"),
        (GOOD + b"\0", "goes on after the 24 bytes"),
        (b"\1" + GOOD[1:], "starts with 01000803, not with 00000803"),
        (b"\0\0\x09\x03" + GOOD[4:], "starts with 00000903"),
        (b"\0\0\x08\x01" + GOOD[4:], "starts with 00000801"),
        (b"<!DOCTYPE html><html>", "starts with 3c21444f"),
        (PACKED[:-9], "is a damaged gzip file"),
        (PACKED[:12], "is a damaged gzip file"),
        (b"\x1f\x8b", "is a damaged gzip file"),
        (b"\x1f\x8b" + bytes(30), "is a damaged gzip file"),
        (PACKED + b"garbage", "is a damaged gzip file"),
        (PACKED[:-8] + bytes(8), "is a damaged gzip file"),
        (PACKED + gzip.compress(b"more", mtime=0), "goes on after the 24 bytes"),
        (gzip.compress(GOOD[:-1], mtime=0), "ends after 23 of the 24 bytes"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        idx.read(path, rank=3)
    assert str(path) in raised.value.message
    assert why in raised.value.message
    assert "get it again" in raised.value.hint


def test_a_size_beyond_all_bounds_is_refused_from_the_header_alone(path: Path) -> None:
    path.write_bytes(struct.pack(">HBB3I", 0, 8, 3, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF))
    with pytest.raises(UserError, match="claims 79228162458924105385300197375 bytes"):
        idx.read(path, rank=3)


def test_memory_grows_with_the_file_not_with_its_claim(path: Path) -> None:
    claimed = (1 << 14, 1 << 8, 1 << 8)  # 1 GiB, just within the bound
    path.write_bytes(struct.pack(">HBB3I", 0, 8, 3, *claimed) + bytes(100))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="ends after 100 of the 1073741824 bytes"):
            idx.read(path, rank=3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_gzip_bomb_is_read_no_further_than_its_header_says(path: Path) -> None:
    path.write_bytes(gzip.compress(GOOD + bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="goes on after the 24 bytes"):
            idx.read(path, rank=3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        idx.read(tmp_path / "absent", rank=3)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        idx.read(tmp_path, rank=3)
