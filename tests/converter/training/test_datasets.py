"""Data sets that people bring: what is read from them, and what is refused with which words."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from converter.errors import UserError
from converter.sources import checkpoint
from converter.training import TrainOptions, datasets, fashion, npz, train
from converter.training.data import Dataset, pixels
from converter.training.progress import Progress
from service.codecs.images import rows
from service.manifest import TensorSpec

RNG = np.random.default_rng(0)


def bytes_of(*shape: int) -> npt.NDArray[np.uint8]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


# --- .npz ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((20, 7, 9), (1, 7, 9)),
        ((20, 7, 9, 3), (3, 7, 9)),
        ((20, 7, 9, 1), (1, 7, 9)),
        ((20, 3, 7, 9), (3, 7, 9)),
        ((20, 5), (1, 1, 5)),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float64])
def test_shapes_and_types(
    path: Path, shape: tuple[int, ...], expected: tuple[int, ...], kind: Any
) -> None:
    x = bytes_of(*shape).astype(kind)
    np.savez(path, x=x, y=np.arange(20)[:, None] % 4)
    data = datasets.load(str(path))
    assert data.train.images.shape == (16, *expected)
    assert data.test.images.shape == (4, *expected)
    assert data.train.images.dtype == (torch.float32 if kind is np.float64 else torch.uint8)
    assert data.labels == ["0", "1", "2", "3"]
    assert data.task.input_shape == expected
    assert (data.preprocessing is None) == (kind is np.float64)
    # Every image is there, channels first, with its label.
    back = x if x.ndim != 4 or shape[1] == 3 else x.transpose(0, 3, 1, 2)
    known = {row.reshape(-1).tobytes(): i % 4 for i, row in enumerate(back.astype(np.float32))}
    for split in (data.train, data.test):
        for image, label in zip(split.images.float().numpy(), split.labels, strict=True):
            assert known[image.reshape(-1).tobytes()] == int(label)


def test_the_keys_of_keras(path: Path) -> None:
    x, y = bytes_of(30, 28, 28), np.arange(30) % 3
    np.savez_compressed(path, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    data = npz.load(path)
    assert np.array_equal(data.train.images[:, 0].numpy(), x[:20])
    assert np.array_equal(data.test.labels.numpy(), y[20:])


def test_fortran_order(path: Path) -> None:
    x = bytes_of(12, 4, 5)
    np.savez(path, x_train=np.asfortranarray(x), y_train=np.arange(12) % 2, x_test=x,
             y_test=np.arange(12) % 2)  # fmt: skip
    data = npz.load(path)
    assert torch.equal(data.train.images, data.test.images)


def test_floats_reach_the_network_as_they_are_and_bytes_as_parts_of_one() -> None:
    x = torch.tensor([0.5, -2.0])
    assert pixels(x) is x
    assert pixels(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"x": bytes_of(20, 4, 4)}, "holds x"),
        ({"x": bytes_of(9, 4, 4), "y": np.arange(9) % 2}, "has 9 images"),
        ({"x": bytes_of(20, 4, 4), "y": np.arange(19) % 2}, "20 images and 19 labels"),
        ({"x": bytes_of(20, 4, 4), "y": np.arange(20) % 2 - 1}, "goes from -1 to 0"),
        ({"x": bytes_of(20, 4, 4), "y": np.arange(20) / 20}, "is float64 of shape"),
        ({"x": bytes_of(20, 4, 4), "y": np.zeros((20, 10), int)}, "is int64 of shape"),
        ({"x": bytes_of(20, 4, 4), "y": np.zeros(20, int)}, "go up to 0"),
        ({"x": bytes_of(20, 4, 4), "y": np.arange(20) * 10**9}, "goes from 0 to"),
        ({"x": bytes_of(20, 4, 4).astype(int) * 2, "y": np.arange(20) % 2}, "'x' of"),
        ({"x": np.full((20, 4, 4), np.nan), "y": np.arange(20) % 2}, "NaN or infinity in 20"),
        ({"x": np.full((20, 4, 4), "a"), "y": np.arange(20) % 2}, "is of type <U1"),
        ({"x": bytes_of(20, 4, 4, 5), "y": np.arange(20) % 2}, "has shape"),
        ({"x": bytes_of(20), "y": np.arange(20) % 2}, "has shape"),
        ({"x": bytes_of(20, 0, 4), "y": np.arange(20) % 2}, "has shape"),
        ({"x": bytes_of(20, 2, 2000), "y": np.arange(20) % 2}, "has shape"),
    ],
)
def test_arrays_that_are_no_data_set(path: Path, content: dict[str, Any], why: str) -> None:
    np.savez(path, **content)
    with pytest.raises(UserError, match=why):
        npz.load(path)


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (bytes_of(20, 4, 4), np.arange(20) % 2 * 7, r"6 of 8 classes .* \(1, 2, 3, 4, 5, \.\.\.\)"),
        (bytes_of(20, 4, 4) / 1.0 + 1, np.arange(20) % 2, "pixels go up to .* floats reach"),
        (bytes_of(20, 4) / 1.0 + 1, np.arange(20) % 2, "features go up to .* floats reach"),
        (bytes_of(20, 4, 4) % 2, np.arange(20) % 2, "pixels go up to 1, and integers are divided"),
        (bytes_of(20, 4, 4), np.arange(20) % 2, None),
        (RNG.standard_normal((20, 4, 4)), np.arange(20) % 2, None),
    ],
)
def test_what_is_seldom_meant_is_said(path: Path, x: Any, y: Any, why: str | None) -> None:
    np.savez(path, x=x, y=y)
    said: list[str] = []

    class Listener(Progress):
        def say(self, sentence: str) -> None:
            said.append(sentence)

    datasets.load(str(path), progress=Listener())
    if why is None:
        assert said == []
    else:
        (note,) = said
        assert re.search(why, note)


def test_objects_are_not_unpickled(path: Path) -> None:
    np.savez(path, x=np.array([print], dtype=object), y=np.arange(20), allow_pickle=True)
    with pytest.raises(UserError, match="Python objects"):
        npz.load(path)


def header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (header("(99999999999, 28, 28)"), "claims"),
        (header("(20, 28, 28)"), "its size is not that of its shape"),
        (b"nothing", "is not an array"),
        (b"", "is not an array"),
    ],
)
def test_an_array_that_claims_more_than_there_is(path: Path, content: bytes, why: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", content)
    with pytest.raises(UserError, match=why):
        npz.load(path)


def test_no_archive(path: Path) -> None:
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"it is no \.npz"):
        npz.load(path)


# --- a folder of pictures -----------------------------------------------------------------------


def picture(path: Path, size: tuple[int, int] = (9, 7), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(bytes_of(size[1], size[0], 3))
    image.convert(mode).save(path)


def folder_of(root: Path, count: int = 6, mode: str = "RGB") -> Path:
    for name in ("cat", "dog"):
        for number in range(count):
            picture(root / name / f"{number}.png", mode=mode)
    return root


def test_a_folder_of_pictures_is_read_as_the_service_reads_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    data = datasets.load(str(folder))
    assert data.labels == ["cat", "dog"]
    assert (len(data.train), len(data.test)) == (10, 2)
    assert data.task.input_shape == (3, 7, 9)
    how = data.preprocessing
    assert how is not None
    spec = TensorSpec(name="x", dtype="float32", shape=["batch", 3, 7, 9])
    known = {}
    for number, name in enumerate(data.labels):
        for path in (folder / name).iterdir():
            row = rows([path.read_bytes()], how, spec, 10**6)[0]
            known[(row * 255).round().astype(np.uint8).tobytes()] = (number, row)
    for split in (data.train, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            number, row = known[image.numpy().tobytes()]
            assert number == int(label)
            assert np.array_equal(pixels(image).numpy(), row)


def test_gray_pictures_have_one_channel_and_train_and_test_may_be_apart(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 4, mode="L")
    folder_of(tmp_path / "test", 2, mode="L")
    data = datasets.load(str(tmp_path))
    assert data.train.images.shape == (8, 1, 7, 9)
    assert data.test.images.shape == (4, 1, 7, 9)
    assert data.preprocessing is not None
    assert data.preprocessing.channels == "L"


def test_pictures_of_several_sizes_need_one_to_be_given(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    picture(folder / "dog" / "large.jpg", (40, 30))
    with pytest.raises(UserError, match="30 by 40, others are 7 by 9") as raised:
        datasets.load(str(folder))
    assert "--image-size 7" in raised.value.hint
    data = datasets.load(str(folder), image_size=(8, 12))
    assert data.task.input_shape == (3, 8, 12)


def test_a_folder_without_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 0 sub-folders"):
        datasets.load(str(tmp_path))
    folder_of(tmp_path)
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "notes.txt").write_text("none yet")
    with pytest.raises(UserError, match="bird holds no picture"):
        datasets.load(str(tmp_path))


def test_other_classes_in_train_and_test(tmp_path: Path) -> None:
    folder_of(tmp_path / "train")
    folder_of(tmp_path / "test")
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "fox")
    with pytest.raises(UserError, match="dog, fox is in one only"):
        datasets.load(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\nrest"])
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes) -> None:
    folder = folder_of(tmp_path)
    (folder / "cat" / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.png"):
        datasets.load(str(folder))


def test_a_picture_that_breaks_off_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    whole = (folder / "cat" / "0.png").read_bytes()
    (folder / "cat" / "bad.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"bad\.png"):
        datasets.load(str(folder))


def test_large_pictures_must_be_made_smaller(tmp_path: Path) -> None:
    folder = tmp_path
    for name in ("a", "b"):
        for number in range(5):
            picture(folder / name / f"{number}.png", (1100, 2))
    with pytest.raises(UserError, match="2 by 1100, more than 1024"):
        datasets.load(str(folder))


# --- names --------------------------------------------------------------------------------------


def test_fashion_is_called_so_only_with_its_own_bytes(
    subset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = datasets.load("fashion-mnist", subset)
    assert data.labels[9] == "Ankle boot"
    assert data.description == "1000 training and 500 test images in MNIST's format"
    assert data.attribution == ""
    stems = list(fashion.COMPRESSED_SHA256)
    found = {s: hashlib.sha256((subset / f"{s}.gz").read_bytes()).hexdigest() for s in stems}
    monkeypatch.setattr(fashion, "COMPRESSED_SHA256", found)
    named = datasets.load("fashion-mnist", subset)
    assert named.description == "Fashion-MNIST"
    assert "Zalando" in named.attribution


def test_mnist_is_not_taken_for_fashion(
    subset: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(fashion.mnist, "load", lambda _: replace(data, description="MNIST"))
    with pytest.raises(UserError, match="holds MNIST, not Fashion-MNIST"):
        datasets.load("fashion-mnist", subset)


@pytest.mark.parametrize(
    ("which", "changes", "why"),
    [
        ("imagenet", {}, "no data set 'imagenet'"),
        ("data.npz", {}, "no data set 'data.npz'"),
        ("mnist", {"image_size": (8, 8)}, "have one size"),
        ("data.npz", {"data_dir": Path()}, "--data-dir is for mnist and fashion-mnist"),
    ],
)
def test_what_does_not_go_together(which: str, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        datasets.load(which, **changes)


def test_a_network_fits_its_data_and_the_checkpoint_tells(path: Path, tmp_path: Path) -> None:
    np.savez(path, x=bytes_of(60, 12, 10, 3), y=np.arange(60) % 4)
    options = TrainOptions(
        arch="cnn",
        arch_args={"width": 4, "hidden": 8},
        dataset=str(path),
        output=tmp_path / "net.pt",
        epochs=1,
        batch_size=16,
        threads=1,
    )
    train(options)
    found = checkpoint.read(options.output)
    assert found.arguments == {"width": 4, "hidden": 8, "input_shape": [3, 12, 10], "classes": 4}
    assert found.input_shape == [3, 12, 10]
    assert found.labels == ["0", "1", "2", "3"]
    assert found.preprocessing["channels"] == "RGB"
    assert found.module()(torch.rand(2, 3, 12, 10)).shape == (2, 4)


def test_the_digest_is_that_of_the_images_and_labels(data: Dataset) -> None:
    from dataclasses import replace

    first = datasets.digest(data)
    assert first == datasets.digest(replace(data, description=""))
    labels = data.test.labels.clone()
    labels[0] += 1
    other = replace(data, test=replace(data.test, labels=labels))
    assert first != datasets.digest(other)
