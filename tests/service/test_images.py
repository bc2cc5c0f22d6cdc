"""Pictures as the body of a prediction: the same numbers as torchvision's transforms give."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest
import repository
import torch
from onnx import TensorProto
from PIL import Image
from test_predict_route import refused

from patterns.networks import declare_torchvision_operators
from service.codecs import images, multipart
from service.errors import ImageTooLarge, InvalidImage, WrongType
from service.manifest import Preprocessing, TensorSpec

declare_torchvision_operators()
from torchvision.transforms import v2 as transforms  # noqa: E402

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SPEC = TensorSpec(name="x", dtype="float32", shape=["batch", 3, 32, 24])
WHOLE = 40_000_000


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth enough to be a picture, random enough to tell every mistake."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, len(mode)), np.uint8)
    small = Image.fromarray(noise[:, :, 0] if len(mode) == 1 else noise, mode=None)
    return small.resize((width, height), Image.Resampling.BICUBIC)


def file(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def torchvision(image: Image.Image, *steps) -> np.ndarray:
    chain = [
        *steps, transforms.PILToTensor(), transforms.ToDtype(torch.float32, scale=True),
        transforms.Normalize(MEAN, STD),
    ]  # fmt: skip
    return transforms.Compose(chain)(image)[None].numpy()


@pytest.mark.parametrize("size", [(24, 32), (97, 61), (61, 97), (10, 12), (300, 20)])
def test_resizing_is_that_of_torchvision(size: tuple[int, int]):
    image = picture(*size)
    how = Preprocessing(height=32, width=24, mean=MEAN, std=STD)
    got = images.rows([file(image)], how, SPEC, WHOLE)
    expected = torchvision(image, transforms.Resize((32, 24)))
    np.testing.assert_allclose(got, expected, atol=2e-6)
    crop = how.model_copy(update={"resize": "crop", "resize_shorter": 40})
    got = images.rows([file(image)], crop, SPEC, WHOLE)
    expected = torchvision(image, transforms.Resize(40), transforms.CenterCrop((32, 24)))
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_crop_without_a_size_scales_as_little_as_covers():
    how = Preprocessing(height=32, width=24, resize="crop", scale=1.0)
    image = picture(48, 128)
    got = images.rows([file(image)], how, SPEC, WHOLE)[0]
    expected = np.asarray(image.resize((24, 64), Image.Resampling.BILINEAR))[16:48]
    np.testing.assert_array_equal(got, expected.transpose(2, 0, 1).astype(np.float32))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "I;16"])
@pytest.mark.parametrize("size", [(301, 97), (97, 301), (40, 30)])
def test_bands_are_no_other_picture(mode: str, size: tuple[int, int], monkeypatch):
    """Of each kind, whatever is seen through, cut into bands of some rows or not."""
    channels = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 4), np.uint8)
    image = Image.fromarray(channels).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    given = file(image, **({"transparency": 3} if mode == "P" else {}))
    for how in (
        Preprocessing(height=32, width=24, scale=1.0),
        Preprocessing(height=32, width=24, scale=1.0, resize="crop", resize_shorter=40),
    ):
        whole = images.rows([given], how, SPEC, WHOLE)
        monkeypatch.setattr(images, "_BAND_PIXELS", 1000)
        banded = images.rows([given], how, SPEC, WHOLE)
        monkeypatch.undo()
        assert np.abs(banded - whole).max() <= (1 if size[1] > size[0] else 0)


def test_what_a_picture_takes_is_counted_before_it_is_decoded():
    how = Preprocessing(height=32, width=24)
    told: list[int] = []
    wide = picture(40, 30)
    exif = wide.getexif()
    exif[0x0112] = 6
    pictures = [file(wide), file(wide.convert("L")), file(wide, "JPEG"), file(wide, exif=exif)]
    pictures += [file(wide, "JPEG", progressive=True)]
    images.rows(pictures, how, SPEC, WHOLE, told.append)
    rows = 2 * 5 * 3 * 32 * 24 * 4  # of all pictures, before they are one tensor and then
    coefficients = 40 * 30 * 3 * 2
    assert [size - rows for size in told] == [4800, 1200, 4800, 4800, 9600, 4800 + coefficients]

    class Full(Exception):
        pass

    def refuse(size: int) -> None:
        raise Full

    with pytest.raises(Full):
        images.rows([file(wide)[:200]], how, SPEC, WHOLE, refuse)  # broken, had it been read


def test_a_thread_of_pixels_is_not_blown_up():
    how = Preprocessing(height=224, width=224, resize="crop", resize_shorter=256)
    with pytest.raises(InvalidImage, match="too narrow"):
        images.rows([file(picture(10_000, 1))], how, SPEC, WHOLE)


@pytest.mark.parametrize("dtype", ["int8", "bool"])
def test_a_dtype_that_cannot_hold_a_pixel(dtype: str):
    spec = SPEC.model_copy(update={"dtype": dtype})
    with pytest.raises(WrongType, match="not made for pixels"):
        images.rows([file(picture(4, 4))], Preprocessing(height=4, width=4), spec, WHOLE)


def test_channels_layout_and_dtype():
    image = picture(24, 32)
    rgb = np.asarray(image)
    plain = Preprocessing(height=32, width=24, scale=1.0)
    for update, expected in (
        ({}, rgb.transpose(2, 0, 1)),
        ({"channels": "BGR"}, rgb[:, :, ::-1].transpose(2, 0, 1)),
        ({"layout": "HWC"}, rgb),
        ({"channels": "L"}, np.asarray(image.convert("L"))[None]),
    ):
        how = plain.model_copy(update=update)
        for dtype in ("float32", "float16", "uint8", "int64"):
            spec = SPEC.model_copy(update={"dtype": dtype})
            got = images.rows([file(image)], how, spec, WHOLE)
            assert got.dtype == dtype
            np.testing.assert_array_equal(got[0], expected.astype(dtype))


def test_every_kind_of_picture_becomes_plain_pixels():
    how = Preprocessing(height=6, width=5, scale=1.0)
    gray = picture(5, 6, "L")
    for image in (gray, gray.convert("1"), gray.convert("P"), gray.convert("LA")):
        got = images.rows([file(image)], how, SPEC, WHOLE)[0]
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(got, expected)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    got = images.rows([file(deep)], how, SPEC, WHOLE)[0, 0]
    np.testing.assert_array_equal(got, np.asarray(gray))
    clear = Image.new("RGBA", (5, 6), (10, 20, 30, 0))
    assert images.rows([file(clear)], how, SPEC, WHOLE).min() == 255
    cmyk = picture(5, 6).convert("CMYK")
    assert images.rows([file(cmyk, "JPEG")], how, SPEC, WHOLE).shape == (1, 3, 6, 5)


def test_a_photograph_is_turned_upright():
    image = picture(6, 5)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    how = Preprocessing(height=6, width=5, scale=1.0)
    got = images.rows([file(image, "PNG", exif=exif)], how, SPEC, WHOLE)[0]
    turned = np.asarray(image.transpose(Image.Transpose.ROTATE_270)).transpose(2, 0, 1)
    np.testing.assert_array_equal(got, turned)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it has that many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def vision(start, tmp_path_factory: pytest.TempPathFactory):
    root: Path = tmp_path_factory.mktemp("vision")
    model = repository.elementwise("Neg", TensorProto.FLOAT, ("batch", 3, 6, 5))
    how = {"height": 6, "width": 5, "mean": MEAN, "std": STD}
    repository.publish(root, "vision", model, preprocessing=how)
    repository.publish(root, "blind", model)
    flags = ("--default-model", "vision", "--max-image-pixels", "10000")
    with start(root, *flags, "--queue-capacity-samples", "8").client() as client:
        yield client


def answered(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return -np.float32(response.json()["outputs"]["y"])


def test_a_file_is_a_row(vision: httpx.Client):
    image = picture(30, 20)
    expected = torchvision(image, transforms.Resize((6, 5)))
    headers = {"content-type": "image/png"}
    got = answered(vision.post("/predict", content=file(image), headers=headers))
    np.testing.assert_allclose(got, expected, atol=2e-6)
    jpeg = file(image, "JPEG", quality=90)
    expected = torchvision(Image.open(io.BytesIO(jpeg)), transforms.Resize((6, 5)))
    headers = {"content-type": "image/jpeg"}
    got = answered(vision.post("/predict", content=jpeg, headers=headers))
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_several_files_are_rows_in_order(vision: httpx.Client):
    pictures = [picture(30, 20, seed=seed) for seed in range(3)]
    parts = [
        ("image", ("a.png", file(pictures[0]), "image/png")),
        ("image", ("b.jpg", file(pictures[1], "JPEG"), "image/jpeg")),
        ("other", ("c", file(pictures[2]), "application/octet-stream")),
    ]
    got = answered(vision.post("/predict", files=parts))
    jpeg = Image.open(io.BytesIO(file(pictures[1], "JPEG")))
    expected = [
        torchvision(image, transforms.Resize((6, 5))) for image in (pictures[0], jpeg, pictures[2])
    ]
    np.testing.assert_allclose(got, np.concatenate(expected), atol=2e-6)


GOOD = file(picture(5, 6))


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "invalid_image"),
        (b"GIF89a", 400, "invalid_image"),
        (GOOD[:40], 400, "invalid_image"),
        (GOOD[:-30], 400, "invalid_image"),
        (b"\xff\xd8\xff" + GOOD, 400, "invalid_image"),
        (bomb(30_000, 30_000), 413, "image_too_large"),
        (bomb(2**31 - 1, 2**31 - 1), 413, "image_too_large"),
        (bomb(0, 5), 400, "invalid_image"),
        (file(picture(101, 100)), 413, "image_too_large"),
    ],
)
def test_bad_files(vision: httpx.Client, content: bytes, status: int, code: str):
    headers = {"content-type": "image/png"}
    refused(vision.post("/predict", content=content, headers=headers), status, code)


def test_bad_multipart_bodies(vision: httpx.Client):
    def post(content: bytes, kind: str = "multipart/form-data; boundary=b") -> httpx.Response:
        return vision.post("/predict", content=content, headers={"content-type": kind})

    part = b"--b\r\ncontent-type: image/png\r\n\r\n" + GOOD + b"\r\n"
    assert post(part + b"--b--\r\n").status_code == 200
    assert post(b"preamble\r\n" + part + b"--b--").status_code == 200
    refused(post(part, "multipart/form-data"), 400, "invalid_body")
    refused(post(part), 400, "invalid_body")
    refused(post(b"--b--"), 400, "invalid_body")
    refused(post(b""), 400, "invalid_body")
    refused(post(b"--b\r\nno end of headers\r\n--b--"), 400, "invalid_body")
    refused(post(b"--b\r\n\r\nabc\r\n--b--"), 400, "invalid_image")
    refused(post(part * 9 + b"--b--"), 413, "too_many_samples")
    # Each is small enough, but not all of them together.
    large = b"--b\r\n\r\n" + file(picture(90, 90)) + b"\r\n"
    refused(post(large * 2 + b"--b--"), 413, "image_too_large")


def test_a_model_without_preprocessing(vision: httpx.Client):
    headers = {"content-type": "image/png"}
    response = vision.post("/models/blind/predict", content=GOOD, headers=headers)
    refused(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("cut", range(0, len(GOOD), 7))
def test_a_damaged_file_is_refused_or_read(cut: int):
    how = Preprocessing(height=6, width=5)
    for damaged in (GOOD[:cut], GOOD[:cut] + b"\xff" + GOOD[cut + 1 :]):
        with contextlib.suppress(InvalidImage, ImageTooLarge):
            assert images.rows([damaged], how, SPEC, WHOLE).shape == (1, 3, 6, 5)


def test_parts_may_hold_anything_but_the_boundary():
    content = b"\r\n--\r\n\r\n-b\r\n"
    body = b'--x\r\na: "b"\r\n\r\n' + content + b"\r\n--x--"
    assert multipart.contents(body, 'multipart/form-data; boundary="x"', 5) == [content]
