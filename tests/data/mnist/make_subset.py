"""Cut the committed subset out of the original files of MNIST.

    python tests/data/mnist/make_subset.py FOLDER_WITH_THE_FOUR_FILES

The first 100 training and the first 50 test images of each digit, in the files' own order,
unchanged, as gzip-compressed IDX files beside this script. The same input gives the same bytes
with the same zlib.
"""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converter.training import idx, mnist

HERE = Path(__file__).parent
PER_DIGIT = {"train": 100, "t10k": 50}


def first_of_each_digit(labels: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.intp]:
    """The places of the first `count` of each digit, ascending."""
    places = [np.flatnonzero(labels == digit)[:count] for digit in range(10)]
    return np.sort(np.concatenate(places))


def to_idx(values: npt.NDArray[np.uint8]) -> bytes:
    """Unsigned bytes of any rank as an IDX file, see `converter.training.idx`."""
    header = struct.pack(">HBB", 0, idx.UNSIGNED_BYTE, values.ndim)
    return header + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def main(source: Path) -> None:
    for prefix, count in PER_DIGIT.items():
        images = idx.read(mnist.find(source, f"{prefix}-images-idx3-ubyte"), rank=3).values
        labels = idx.read(mnist.find(source, f"{prefix}-labels-idx1-ubyte"), rank=1).values
        chosen = first_of_each_digit(labels, count)
        for kind, values in (("images-idx3", images[chosen]), ("labels-idx1", labels[chosen])):
            packed = gzip.compress(to_idx(values), compresslevel=9, mtime=0)
            (HERE / f"{prefix}-{kind}-ubyte.gz").write_bytes(packed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
