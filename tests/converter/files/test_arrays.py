"""Arrays of .npz and .npy files: what numpy writes is read, and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from converter.errors import UserError
from converter.files import arrays

ARRAYS = {
    "flat": np.arange(6, dtype=np.int16),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "swapped": np.arange(4, dtype=">f8"),
    "words": np.array(["a", "bc"]),
}


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_an_npz_is_read_as_numpy_reads_it(tmp_path: Path, write) -> None:
    write(tmp_path / "a.npz", **ARRAYS)
    found = arrays.load(tmp_path / "a.npz")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_an_npy_has_one_array_without_a_name(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "a.npy", ARRAYS[name])
    (found,) = arrays.load(tmp_path / "a.npy").items()
    assert found[0] == ""
    np.testing.assert_array_equal(found[1], ARRAYS[name])


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", good=np.arange(3), bad=np.array([None]))
    with arrays.opened(tmp_path / "a.npz") as found:
        assert found["good"].tolist() == [0, 1, 2]
        with pytest.raises(UserError, match=r"'bad' of .* holds Python objects"):
            found["bad"]
        with pytest.raises(KeyError):
            found["other"]


def test_an_array_may_be_too_large(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(100))
    with (
        arrays.opened(tmp_path / "a.npz", largest=799) as found,
        pytest.raises(UserError, match="claims 800 bytes, 799 are read"),
    ):
        found["x"]


def test_what_is_no_array_in_an_archive_is_passed_over(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(2))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("README.txt", "hello")
    assert list(arrays.load(tmp_path / "a.npz")) == ["x"]


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken"])
def test_other_files_are_refused_with_the_hint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"it is no \.npz and no \.npy") as raised:
        arrays.load(tmp_path / "a.npz", "give another")
    assert raised.value.hint == "give another"


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(1000))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz"):
        arrays.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        arrays.load(tmp_path / "a.npz")
