"""foldserve.Predictor: a model in a process of one's own, checked as the service checks it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import repository as r
from onnx import TensorProto

import foldserve
from foldserve import InvalidInput, ModelUnusable, PredictionFailed, Predictor
from tests import signatures

ROOT = Path(__file__).parents[2]
MNIST = ROOT / "models" / "mnist"


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """models/animals with version 1 and a newer version 2 of other weights."""
    test = {"x": np.ones((2, 4), np.float32)}
    r.publish(tmp_path, "animals", r.linear(seed=1), 1, test=test)
    r.publish(tmp_path, "animals", r.linear(), 2, test=test, batch_invariant=True)
    return tmp_path / "animals"


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


# --- which model -------------------------------------------------------------------------


def test_the_shipped_model_reads_a_seven() -> None:
    asked = np.asarray(json.loads((MNIST / "example.json").read_text())["inputs"], np.float32)
    with foldserve.Predictor(MNIST) as digits:
        scores = digits.predict(asked)
        assert (scores.shape, scores.dtype) == ((1, 10), np.float32)
        assert (digits.name, digits.version) == ("mnist", 1)
        assert digits.labels == [*"0123456789"]
        (told,) = digits.classify(asked)
        assert (told["label"], told["index"]) == ("7", 7)
        assert repr(digits).startswith("<Predictor mnist version 1: ")


@pytest.mark.parametrize(
    ("below", "version", "seed"),
    [("", 2, 0), ("1", 1, 1), ("2", 2, 0), ("1/model.onnx", 1, 1)],
    ids=["model folder: the newest", "version folder", "version 2", "its model.onnx"],
)
def test_a_path_means_a_version(linear: Path, below: str, version: int, seed: int) -> None:
    x = rows(3)
    predictor = Predictor(str(linear / below))
    assert predictor.version == version
    assert predictor.manifest.files, "its manifest was read"
    expected = r.reference(r.linear(seed=seed), {"x": x})["scores"]
    np.testing.assert_array_equal(predictor.predict(x), expected)


def test_the_newest_version_is_the_highest_number(tmp_path: Path) -> None:
    for version in (2, 10):
        r.bare(tmp_path, "m", r.linear(seed=version), version)
    assert Predictor(tmp_path / "m").version == 10


def test_a_version_that_fails_its_check_is_no_reason_to_take_an_older_one(linear: Path) -> None:
    with (linear / "2" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelUnusable, match=r"^animals version 2 cannot be used: model\.onnx has"):
        Predictor(linear)


def test_a_version_under_another_name_says_itself_what_it_is(linear: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(linear / "2", tmp_path / "elsewhere" / "build")
    predictor = Predictor(copied)
    assert (predictor.name, predictor.version) == ("animals", 2)


def test_a_lone_file_has_the_contract_of_its_graph(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    onnx.save(r.linear(), file)
    with Predictor(file) as net:
        assert (net.name, net.labels) == ("net", None)
        assert net.outputs["scores"].shape == ["batch", 3]
        x = rows(5)
        np.testing.assert_array_equal(net(x), r.reference(r.linear(), {"x": x})["scores"])
        with pytest.raises(ModelUnusable, match="has no labels"):
            net.classify(x)


def test_weights_beside_a_lone_file_are_read_and_those_elsewhere_are_not(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    onnx.save(
        r.linear(), here / "net.onnx", save_as_external_data=True, location="w.bin",
        size_threshold=0,
    )  # fmt: skip
    assert Predictor(here / "net.onnx").predict(rows(1)).shape == (1, 3)
    (here / "w.bin").rename(tmp_path / "w.bin")
    (here / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelUnusable, match=r"^net\.onnx cannot be used: .* link out of"):
        Predictor(here / "net.onnx")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("nowhere", "no such file or folder"),
        ("", "holds models, and a predictor has one: name it, for example"),
        ("animals/1/model.json", "is not an .onnx file"),
        ("empty", "holds no model: neither model.onnx nor folders of versions"),
        ("broken.onnx", "broken.onnx cannot be used: broken.onnx is damaged"),
    ],
)
def test_a_path_without_a_model(linear: Path, path: str, sentence: str) -> None:
    (linear.parent / "empty").mkdir()
    (linear.parent / "broken.onnx").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelUnusable) as caught:
        Predictor(linear.parent / path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("said", ["{", "[]", "{}", '{"name": "m", "version": 1e999}'])
def test_a_manifest_of_a_copied_version_that_says_nothing_is_a_refusal(
    linear: Path, tmp_path: Path, said: str
) -> None:
    copied = shutil.copytree(linear / "2", tmp_path / "elsewhere" / "build")
    (copied / "model.json").write_text(said)
    with pytest.raises(ModelUnusable, match=r"^build version 1 cannot be used: model\.json is not"):
        Predictor(copied)


def test_an_address_is_told_apart_from_a_folder() -> None:
    with pytest.raises(ModelUnusable, match="is an address"):
        Predictor("s3://bucket/models/mnist")


# --- the checks of the service -----------------------------------------------------------


def test_a_failed_self_test_is_not_loaded(tmp_path: Path) -> None:
    test = {"x": np.ones((1, 4), np.float32)}
    r.publish(tmp_path, "m", r.linear(), test=test, off_by=0.5)
    with pytest.raises(ModelUnusable, match=r"self-test failed: output 'scores' is off by 0\.5"):
        Predictor(tmp_path / "m")


def test_a_folder_of_another_model_is_not_loaded(linear: Path) -> None:
    linear.rename(linear.parent / "plants")
    with pytest.raises(ModelUnusable, match="says 'animals' version 2, but lies in the folder of"):
        Predictor(linear.parent / "plants")


def test_a_signature_can_be_required(linear: Path, tmp_path: Path) -> None:
    key = signatures.pair(tmp_path)
    key.sign(linear / "2")
    keys = key.public
    assert Predictor(linear, require_signature=keys).signer
    with pytest.raises(ModelUnusable, match="is not signed"):
        Predictor(linear / "1", require_signature=keys)
    with pytest.raises(ModelUnusable, match="require_signature"):
        Predictor(linear, require_signature=tmp_path / "no-keys.pem")


def test_cuda_is_required_or_refused(linear: Path) -> None:
    try:
        assert Predictor(linear, device="cuda").provider == "CUDAExecutionProvider"
    except ModelUnusable as error:
        assert "cuda" in str(error)  # noqa: PT017  whether there is one is the machine's matter


# --- inputs and outputs ------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_any_number_of_rows(linear: Path, count: int) -> None:
    x = rows(count)
    expected = r.reference(r.linear(), {"x": x})["scores"]
    np.testing.assert_array_equal(Predictor(linear).predict(x), expected)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_parts_of_a_batch_are_joined_again(linear: Path, count: int) -> None:
    x = rows(count)
    expected = r.reference(r.linear(), {"x": x})["scores"]
    got = Predictor(linear, batch_size=4).predict(x)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    assert got.shape == expected.shape


def test_rows_that_may_depend_on_each_other_are_not_run_apart(linear: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"model\.json does not say batch_invariant"):
        Predictor(linear / "1", batch_size=4)
    with pytest.raises(ModelUnusable, match="a run has one row at least"):
        Predictor(linear, batch_size=0)


@pytest.fixture
def pair(tmp_path: Path) -> Predictor:
    r.publish(tmp_path, "pair", r.pair())
    return Predictor(tmp_path / "pair")


def test_several_inputs_and_outputs_go_by_name(pair: Predictor) -> None:
    a, b = np.ones((3, 2), np.float32), np.full((3, 2), -2, np.float32)
    for outputs in (
        pair.predict({"a": a, "b": b}),
        pair.predict(a=a, b=b),
        pair.run({"a": a, "b": b}),
    ):
        assert list(outputs) == ["y", "positive"]
        np.testing.assert_array_equal(outputs["y"], a + b)
        assert not outputs["positive"].any()
    with pytest.raises(InvalidInput, match="The model has the inputs 'a', 'b': give them by name"):
        pair.predict(a)
    with pytest.raises(InvalidInput, match="by position or by name, not both"):
        pair.predict({"a": a}, b=b)


@pytest.mark.parametrize(
    ("value", "code", "sentence"),
    [
        (np.ones((1, 4)), "wrong_type", "Input 'x' is float64, expected float32. Convert it first"),
        (np.ones((1, 4), int), "wrong_type", "Input 'x' is int64, expected float32."),
        (np.ones((1, 5), np.float32), "wrong_shape", "expected shape (batch, 4), received (1, 5)"),
        (np.ones(4, np.float32), "wrong_rank", "expected shape (batch, 4), received (4,)"),
        (np.ones((0, 4), np.float32), "empty_batch", "axis 0 (batch) is empty"),
        ([[1.0, 2.0, 3.0, 4.0]], "wrong_type", "is a list, expected a numpy array of float32"),
        (np.array([["a"] * 4]), "wrong_type", "Input 'x' is string, expected float32"),
        (np.ones((1, 4), object), "wrong_type", "an array of Python objects, expected float32"),
        (np.ma.ones((1, 4), np.float32), "wrong_type", "is a MaskedArray, expected"),
        ({"y": np.ones((1, 4), np.float32)}, "unknown_input", "no input 'y'; it has 'x'"),
        ({}, "missing_input", "The input 'x' is missing; the model has 'x'."),
        (None, "missing_input", "The input 'x' is missing; the model has 'x'."),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_what_is_wrong_is_said(linear: Path, value: object, code: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Predictor(linear).predict(value)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert sentence in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_inputs_that_disagree_about_their_rows(pair: Predictor) -> None:
    with pytest.raises(InvalidInput, match="has size 2 on axis 0") as caught:
        pair.predict(a=np.ones((3, 2), np.float32), b=np.ones((2, 2), np.float32))
    assert caught.value.code == "batch_mismatch"


def test_arrays_of_any_layout_give_the_same(linear: Path) -> None:
    x = rows(6)
    predictor = Predictor(linear)
    expected = predictor.predict(x)
    wide = np.zeros((12, 8), np.float32)
    wide[::2, ::2] = x
    for same in (np.asfortranarray(x), wide[::2, ::2], x.astype(">f4"), x[::-1].copy()[::-1]):
        np.testing.assert_array_equal(predictor.predict(same), expected)
    frozen = x.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(predictor.predict(frozen), expected)


def test_an_answer_belongs_to_the_caller(linear: Path) -> None:
    predictor, x = Predictor(linear), rows(2)
    first = predictor.predict(x)
    kept = first.copy()
    predictor.predict(-x)
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # it may be written to
    np.testing.assert_array_equal(predictor.predict(x), kept)


def test_strings_of_either_kind(tmp_path: Path) -> None:
    r.publish(tmp_path, "echo", r.elementwise("Identity", TensorProto.STRING))
    echo = Predictor(tmp_path / "echo")
    for texts in (np.array([["a", "é"]]), np.array([["a", "é"]], object)):
        np.testing.assert_array_equal(echo.predict(texts), np.array([["a", "é"]], object))
    with pytest.raises(InvalidInput, match="holds a NoneType at position 1, expected str"):
        echo.predict(np.array([["a", None]], object))


def test_a_value_that_the_graph_refuses_is_the_inputs_fault(tmp_path: Path) -> None:
    r.publish(tmp_path, "rows", r.embedding())
    table = Predictor(tmp_path / "rows")
    assert table.predict(np.array([4])).tolist() == [[8.0, 9.0]]
    with pytest.raises(InvalidInput, match="its Gather node refused the input") as caught:
        table.predict(np.array([5]))
    assert caught.value.code == "input_refused"


def test_not_a_number_comes_as_it_is(linear: Path) -> None:
    assert np.isnan(Predictor(linear).predict(np.full((1, 4), np.nan, np.float32))).all()


# --- pictures ----------------------------------------------------------------------------


def test_pictures_become_the_input_as_in_the_service(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    model = r.elementwise("Identity", TensorProto.FLOAT, ("batch", 1, 2, 2))
    how = {"height": 2, "width": 2, "channels": "L", "mean": [0.5], "std": [0.25]}
    r.publish(tmp_path, "image", model, preprocessing=how)
    pixels = np.array([[0, 255], [51, 102]], np.uint8)
    file = tmp_path / "p.png"
    pil.fromarray(pixels).save(file)
    image = Predictor(tmp_path / "image")
    made = image.preprocess(file, file.read_bytes())
    expected = ((pixels / 255 - 0.5) / 0.25).astype(np.float32)
    assert (made.shape, made.dtype) == ((2, 1, 2, 2), np.float32)
    np.testing.assert_allclose(image.predict(made), np.stack([expected[None]] * 2), atol=1e-6)
    with pytest.raises(InvalidInput, match="neither PNG nor JPEG"):
        image.preprocess(b"GIF89a")
    with pytest.raises(InvalidInput, match="2 x 2 pixels, 3 more are read"):
        image.preprocess(file, max_pixels=3)
    with pytest.raises(InvalidInput, match="no picture"):
        image.preprocess()


def test_a_model_without_preprocessing_takes_no_pictures(linear: Path) -> None:
    with pytest.raises(ModelUnusable, match="has no `preprocessing`"):
        Predictor(linear).preprocess(b"")


# --- threads, the end, and what is imported ----------------------------------------------


def test_many_threads_at_a_time_get_their_own_answers(linear: Path) -> None:
    predictor = Predictor(linear)
    inputs = [rows(1 + seed % 5, seed) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(predictor.predict, inputs))
    reference = r.Reference(r.linear())
    for x, answer in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(answer, reference({"x": x})["scores"])


def test_after_the_end_it_says_so(linear: Path) -> None:
    with Predictor(linear) as predictor:
        predictor.predict(rows(1))
    predictor.close()  # a second time does nothing
    with pytest.raises(PredictionFailed, match="The predictor of 'animals' is closed"):
        predictor.predict(rows(1))


def test_a_failed_run_keeps_its_cause(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> dict[str, np.ndarray]:
        raise OSError("the disk is gone")

    predictor = Predictor(linear)
    monkeypatch.setattr(predictor, "_run", broken)
    with pytest.raises(PredictionFailed, match="could not be run on this input") as caught:
        predictor.predict(rows(1))
    assert isinstance(caught.value.__cause__, OSError)


def test_it_needs_no_server_and_no_torch() -> None:
    program = (
        "import sys, foldserve\n"
        "assert 'numpy' not in sys.modules and 'service' not in sys.modules\n"
        f"foldserve.Predictor({str(MNIST)!r})\n"
        "heavy = {'torch', 'onnx', 'fastapi', 'starlette', 'uvicorn', 'converter'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
        "from logging import getLogger\n"
        "print(getLogger().handlers, getLogger('foldserve').handlers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("[]\n[] []\n", "")


def test_a_program_with_a_service_of_its_own_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("")
    program = "import service, foldserve\ntry:\n    foldserve.Predictor\n"
    program += "except ImportError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert "This program has a package `service` of its own" in done.stdout


def test_what_there_is_not_is_an_attribute_error() -> None:
    assert {"Predictor", "InvalidInput"} <= set(dir(foldserve))
    with pytest.raises(AttributeError, match="no attribute 'Predict'"):
        _ = foldserve.Predict
