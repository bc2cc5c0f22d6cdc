"""What a proof is run on: seeded random inputs, and files of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converter.errors import UserError
from converter.proof import load_data
from converter.proof.examples import batches, random_feeds, rows
from converter.sources.loaded import Input

IMAGE = Input("image", ("N", 3, 4), (1, 3, 4), "float32")
MASK = Input("mask", ("N", 4), (1, 4), "bool")
FIXED = Input("fixed", (2, 5), (2, 5), "float16")


def test_random_inputs_have_their_shapes_and_types() -> None:
    found = random_feeds((IMAGE, MASK, FIXED), 5, seed=0)
    assert {name: (a.shape, a.dtype) for name, a in found.items()} == {
        "image": ((5, 3, 4), np.dtype("float32")),
        "mask": ((5, 4), np.dtype("bool")),
        "fixed": ((2, 5), np.dtype("float16")),
    }
    assert len(np.unique(found["mask"])) == 2


def test_a_fixed_batch_is_kept() -> None:
    assert random_feeds((FIXED,), None, seed=0)["fixed"].shape == (2, 5)
    assert list(batches(dynamic=True)) == [1, 2, 5]
    assert list(batches(dynamic=False)) == [None]


def test_bfloat16() -> None:
    found = random_feeds((Input("x", ("N", 9), (1, 9), "bfloat16"),), 2, seed=0)["x"]
    assert found.dtype == ml_dtypes.bfloat16
    assert len(np.unique(found.astype(float))) > 10


@pytest.mark.parametrize(
    ("upper", "values"), [(None, {0, 1}), (1, {0}), (2, {0, 1}), (9, set(range(9)))]
)
def test_indices_stay_within_their_table(upper: int | None, values: set[int]) -> None:
    item = Input("tokens", ("N", 400), (1, 400), "int64", upper)
    assert set(random_feeds((item,), 2, seed=0)["tokens"].ravel().tolist()) == values


def test_the_seed_and_the_batch_make_the_numbers() -> None:
    def draw(batch: int, seed: int) -> bytes:
        return random_feeds((IMAGE,), batch, seed)["image"][:1].tobytes()

    assert draw(2, 0) == draw(2, 0)
    assert len({draw(2, 0), draw(5, 0), draw(2, 1)}) == 3


def test_rows_one_by_one() -> None:
    given = random_feeds((IMAGE, FIXED), 5, seed=0)
    found = list(rows(given, (IMAGE, FIXED)))
    assert len(found) == 5
    np.testing.assert_array_equal(np.concatenate([f["image"] for f in found]), given["image"])
    assert all(f["fixed"] is given["fixed"] for f in found)


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_an_npz_by_name(tmp_path: Path) -> None:
    given = {"image": np.ones((7, 3, 4)), "mask": np.ones((7, 4), bool), "more": np.zeros(1)}
    found = load_data(save(tmp_path / "a.npz", **given), (IMAGE, MASK))
    assert set(found) == {"image", "mask"}
    assert found["image"].dtype == np.float32


@pytest.mark.parametrize("name", ["data.npy", "data.npz"])
def test_a_single_input_needs_no_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, np.ones((100, 3, 4)))
    else:
        save(path, anything=np.ones((100, 3, 4)))
    assert load_data(path, (IMAGE,))["image"].shape == (64, 3, 4), "64 rows prove enough"


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"image": np.ones((7, 3, 5))}, r"shape \(7, 3, 5\), the model wants \('N', 3, 4\)"),
        ({"image": np.ones((3, 4))}, "shape"),
        ({"image": np.ones((0, 3, 4))}, "shape"),
        ({"a": np.ones(1), "b": np.ones(1)}, "no array 'image', only 'a', 'b'"),
        ({}, "only none"),
        ({"image": np.full((2, 3, 4), "word")}, "numbers"),
        ({"image": np.ones((2, 3, 4), dtype=complex)}, "numbers"),
        ({"image": np.full((2, 3, 4), None)}, "holds Python objects"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_data(save(tmp_path / "a.npz", **arrays), (IMAGE,))


@pytest.mark.parametrize("content", [b"", b"no numpy", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_files_that_are_none(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read|is not an array"):
        load_data(path, (IMAGE,))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_data(tmp_path / "nothing.npz", (IMAGE,))


def test_a_cut_npz(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", image=np.ones((7, 3, 4)))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="cannot be read"):
        load_data(path, (IMAGE,))
