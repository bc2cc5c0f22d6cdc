"""A version appears whole or not at all, and never in another's place."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.errors import UserError
from converter.pipeline import FoldResult, fold
from converter.publishing import versions as publishing
from converter.publishing.versions import publish
from service.manifest import MANIFEST_FILE, MODEL_FILE, SELFTEST_FILE
from service.models.folders import scan
from tests.converter.disk import watched
from tests.converter.published import (
    check_self_test,
    check_version,
    graph,
    loaded,
    result,
    versions,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_first_version(tmp_path: Path, proven: FoldResult) -> None:
    done = publish(proven, tmp_path / "models" / "net")
    assert done.path == tmp_path / "models" / "net" / "1"
    assert (done.version, done.fresh) == (1, True)
    assert names(done.path) == [MANIFEST_FILE, MODEL_FILE, SELFTEST_FILE]
    assert names(done.path.parent) == ["1"]
    check_self_test(done.path)


def test_the_manifest(tmp_path: Path, proven: FoldResult) -> None:
    manifest = check_version(publish(proven, tmp_path / "net").path)
    (image,), (logits,) = manifest.inputs, manifest.outputs
    assert (image.name, image.dtype, image.shape) == ("image", "float32", ["N", 3, 6, 6])
    assert (logits.name, logits.dtype, logits.shape) == ("logits", "float32", ["N", 4])
    assert manifest.dynamic_batch
    assert manifest.batch_invariant
    assert manifest.description == "four numbers of an image"
    assert manifest.classification is not None
    assert manifest.classification.labels == ["a", "b", "c", "d"]
    assert manifest.metrics == {"test_accuracy": 0.5}
    assert manifest.provenance["source"] == "net.pt"
    assert manifest.provenance["batchnorms"]["folded"] == 1
    assert list(manifest.provenance["batchnorms"]["kept"]) == ["bn2"]
    folded, kept = manifest.provenance["batchnorms"]["each"]
    assert (folded["name"], folded["folded"]) == ("bn1", True)
    assert folded["where"].startswith("backward into Conv")
    assert kept == {
        "name": "bn2",
        "folded": False,
        "where": manifest.provenance["batchnorms"]["kept"]["bn2"],
    }
    before, after = manifest.provenance["before"], manifest.provenance["after"]
    assert (before["batchnorms"], after["batchnorms"]) == (2, 1)
    assert after["bytes"] == manifest.files["model.onnx"].bytes
    assert "/home/someone" not in manifest.model_dump_json(), "nothing of the machine"


def test_versions_count_up(tmp_path: Path, proven: FoldResult) -> None:
    folder = tmp_path / "net"
    assert [publish(proven, folder).version for _ in range(3)] == [1, 2, 3]
    (folder / "notes").mkdir()
    (folder / "8").mkdir()
    (folder / "README.md").write_text("hello")
    assert publish(proven, folder).version == 9
    for version in (1, 2, 3, 9):
        check_version(folder / str(version))


def test_a_file_of_a_versions_name_counts(tmp_path: Path, proven: FoldResult) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "4").write_text("no folder")
    assert publish(proven, folder).version == 5
    assert (folder / "4").read_text() == "no folder"


def test_if_changed(tmp_path: Path, proven: FoldResult, another: FoldResult) -> None:
    folder = tmp_path / "net"
    first = publish(proven, folder, if_changed=True)
    again = publish(proven, folder, if_changed=True)
    assert (first.fresh, again.fresh, again.path) == (True, False, first.path)
    assert names(folder) == ["1"]
    assert publish(another, folder, if_changed=True).version == 2
    assert publish(proven, folder, if_changed=True).version == 3, "only the newest counts"
    assert publish(proven, folder).version == 4


def test_if_changed_folds_again_to_the_same(tmp_path: Path) -> None:
    publish(result(), tmp_path / "net")
    assert not publish(result(), tmp_path / "net", if_changed=True).fresh


@pytest.mark.parametrize("file", [MANIFEST_FILE, MODEL_FILE, SELFTEST_FILE])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_if_changed_does_not_trust_a_broken_version(
    tmp_path: Path, proven: FoldResult, file: str, how: str
) -> None:
    path = publish(proven, tmp_path / "net").path / file
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert publish(proven, tmp_path / "net", if_changed=True).version == 2
    check_version(tmp_path / "net" / "2")


def test_the_same_fold_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = (publish(result(), tmp_path / name / "net").path for name in ("a", "b"))
    for file in names(one):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_large_weights_are_listed(
    tmp_path: Path, proven: FoldResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.files.onnx_file.LARGEST_MESSAGE", 64)
    big = fold(loaded(graph_with_a_large_weight()))
    path = publish(big, tmp_path / "net").path
    (data,) = path.glob("model.onnx.*.data")
    assert data.name in check_version(path).files
    check_self_test(path)


def graph_with_a_large_weight():  # type: ignore[no-untyped-def]
    g = graph()
    g.outputs.clear()
    y = g.op("MatMul", "logits", g.weight(4, 400))
    g.output(y, shape=["N", 400])
    return g


@pytest.mark.parametrize("name", ["", ".hidden", "-dash", "a b", "ä", "net\n", "a" * 129, "a:b"])
def test_bad_names(tmp_path: Path, proven: FoldResult, name: str) -> None:
    folder = tmp_path / "models" / name if name else Path("/")
    with pytest.raises(UserError, match="is not a name for a model"):
        publish(proven, folder)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "name",
    [
        "net",
        "a" * 128,
        "Net_1.2-b",
        "0",
        "temp_forecast",
        "tmp-speech",
        "tmp",
        "model.bak",
        "n.part",
    ],
)
def test_good_names(tmp_path: Path, proven: FoldResult, name: str) -> None:
    check_version(publish(proven, tmp_path / name).path)
    assert list(scan(tmp_path)) == [(name, {1: tmp_path / name / "1"})], "the service sees it"


def test_no_version_follows_the_last_one(tmp_path: Path, proven: FoldResult) -> None:
    (tmp_path / "net" / ("9" * 17)).mkdir(parents=True)
    assert publish(proven, tmp_path / "net").version == 10**17
    last = tmp_path / "net" / ("9" * 18)
    last.mkdir()
    with pytest.raises(UserError, match="none after it can be served"):
        publish(proven, tmp_path / "net")
    assert names(tmp_path / "net") == ["1" + "0" * 17, "9" * 17, "9" * 18]


@pytest.mark.parametrize("place", ["file", "file/net"])
def test_a_file_in_the_folders_place(tmp_path: Path, proven: FoldResult, place: str) -> None:
    (tmp_path / "file").write_text("hello")
    with pytest.raises(UserError, match="cannot publish to"):
        publish(proven, tmp_path / place)
    assert (tmp_path / "file").read_text() == "hello"


def test_only_what_is_proven(tmp_path: Path, proven: FoldResult) -> None:
    failed = replace(proven, proof=replace(proven.proof, failure="wrong"))
    with pytest.raises(ValueError, match="proven"):
        publish(failed, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_only_what_can_be_served(tmp_path: Path) -> None:
    """The proof of a bfloat16 model was emulated: onnxruntime cannot run it."""
    emulated = fold(loaded(graph("bfloat16")))
    assert emulated.proof.passed
    with pytest.raises(UserError, match="would not serve this model: onnxruntime") as error:
        publish(emulated, tmp_path / "net")
    assert "float32" in error.value.hint
    assert not (tmp_path / "net").exists()


def test_what_the_proof_notes_is_no_obstacle(tmp_path: Path, proven: FoldResult) -> None:
    noted = replace(proven, proof=replace(proven.proof, notes=("output 'y' is 0 on all inputs.",)))
    assert publish(noted, tmp_path / "net").fresh


def test_what_is_published_is_on_the_disk(
    tmp_path: Path, proven: FoldResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, then the folder with them, then the rename, then the folder that now names it."""
    seen = watched(monkeypatch, "rename")
    publish(proven, tmp_path / "net")
    events = [f"{what} {path.name}" for what, path in seen]
    assert events[-4:] == [f"fsync {MANIFEST_FILE}", "fsync version", "rename 1", "fsync net"]
    assert f"fsync {SELFTEST_FILE}" in events


@pytest.mark.parametrize("step", ["write_onnx", "write_selftest", "_entry", "manifest", "_write"])
def test_a_crash_at_any_step_leaves_no_version(
    tmp_path: Path, proven: FoldResult, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    publish(proven, tmp_path / "net")

    def crash(*_: object) -> None:
        raise RuntimeError("crash")

    monkeypatch.setattr(publishing, step, crash)
    with pytest.raises(RuntimeError, match="crash"):
        publish(proven, tmp_path / "net")
    assert names(tmp_path / "net") == ["1"]


def test_a_full_disk(tmp_path: Path, proven: FoldResult, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing, "_write", full)
    with pytest.raises(UserError, match="No space left on device") as error:
        publish(proven, tmp_path / "net")
    assert "room" in error.value.hint
    assert names(tmp_path) == [], "nor the folder of the model"


def _start(target: Callable[..., None], *args: object) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()  # type: ignore[no-untyped-call]
    return process  # type: ignore[return-value]


def _publish_often(proven: FoldResult, folder: Path, times: int) -> None:
    for _ in range(times):
        publish(proven, folder)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_publishers_at_the_same_time(tmp_path: Path, proven: FoldResult) -> None:
    """Four processes, five versions each: twenty versions, one after the other, each whole."""
    folder = tmp_path / "net"
    processes = [_start(_publish_often, proven, folder, 5) for _ in range(4)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert versions(folder) == list(range(1, 21))
    for version in versions(folder):
        check_version(folder / str(version))
    assert len(names(folder)) == 20, "nothing else is left"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_at_any_moment(tmp_path: Path, proven: FoldResult) -> None:
    """kill -9 while it publishes without end: every version that is there is whole."""
    folder = tmp_path / "net"
    publish(proven, folder)
    delays = random.Random(0)
    for _ in range(20):
        process = _start(_publish_often, proven, folder, 10_000)
        time.sleep(delays.uniform(0.0, 0.08))
        process.kill()
        process.join()
        assert process.exitcode == -9
    for version in versions(folder):
        check_version(folder / str(version))
    assert publish(proven, folder).version == max(versions(folder))


def test_the_self_test_holds_numbers_of_the_oracle(tmp_path: Path, proven: FoldResult) -> None:
    path = publish(proven, tmp_path / "net").path
    with np.load(path / SELFTEST_FILE) as arrays:
        stored = arrays["output:logits"]
    np.testing.assert_array_equal(stored, proven.proof.truth["logits"].astype(np.float32))
    atol = json.loads((path / MANIFEST_FILE).read_text())["self_test"]["atol"]["logits"]
    assert 1e-4 * np.abs(stored).max() < atol < 1e-2 * np.abs(stored).max()


def _age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    for each in (*path.rglob("*"), path):
        os.utime(each, (then, then), follow_symlinks=False)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_a_killed_publisher_left_goes_after_a_day(
    tmp_path: Path, proven: FoldResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "net"
    with monkeypatch.context() as patched:
        patched.setattr(publishing, "_versions", lambda _: os._exit(9))  # all but the rename
        process = _start(publish, proven, folder)
        process.join()
    assert process.exitcode == 9
    (left,) = names(folder)
    assert publish(proven, folder).version == 1
    assert names(folder) == sorted(["1", left]), "it may be another publisher at work"
    _age(folder / left, hours=25)
    assert publish(proven, folder).version == 2
    assert names(folder) == ["1", "2"]


def test_what_is_not_ours_stays(tmp_path: Path, proven: FoldResult) -> None:
    """Other names, links, and a folder that somebody wrote into an hour ago."""
    folder = tmp_path / "net"
    others = [".publish-abc", ".publish-ABCDEFGH", ".tmp-abcd1234", "x.publish-abcd1234", "notes"]
    for name in (*others, ".publish-abcd1234/version"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("theirs")
        _age(folder / name, hours=25)
    _age(folder / ".publish-abcd1234", hours=25)
    _age(folder / ".publish-abcd1234" / "version" / "file", hours=1)
    (tmp_path / "elsewhere").mkdir()
    (folder / ".publish-link0000").symlink_to(tmp_path / "elsewhere")
    os.utime(folder / ".publish-link0000", (0, 0), follow_symlinks=False)
    before = names(folder)
    publish(proven, folder)
    assert names(folder) == sorted([*before, "1"])
    assert (tmp_path / "elsewhere").is_dir()
    _age(folder / ".publish-abcd1234", hours=25)
    publish(proven, folder)
    assert names(folder) == sorted(["1", "2", *(n for n in before if n != ".publish-abcd1234")])
