"""A signature is required: what was not signed, or is not as it was signed, is not served."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import repository
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from repository import linear

from service import device
from service.models import bundle, model, policy, signed
from service.models.bundle import Rejected
from service.models.check import check
from service.models.model import ServedModel
from service.models.registry import Registry
from service.models.runtime import Runtime
from service.models.signed import Trust
from tests.signatures import Pair, chain_file, issue, pair

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
CPU = device.choose("cpu")
Load = Callable[..., Registry]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def load(root: Path, mine: Pair) -> Iterator[Load]:
    made: list[Registry] = []

    def make(trust: Trust | None = mine.trust, rule: str = "latest") -> Registry:
        loader = partial(model.load, choice=CPU, threads=1, capacity_samples=8, trust=trust)
        made.append(Registry(root, loader, policy=policy.parse(rule), trust=trust))
        made[-1].load()
        return made[-1]

    yield make
    for registry in made:
        assert registry.close(timeout_s=30)


def put(root: Path, key: Pair | None, version: int, name: str = "m", **changes: object) -> Path:
    folder = repository.publish(root, name, linear(seed=version), version, test={"x": X}, **changes)
    return key.sign(folder) if key else folder


def served_seed(registry: Registry, seed: int) -> bool:
    """Whether the answers are those of `linear(seed)`."""
    got = repository.answer(registry.find("m"), {"x": X})["scores"]
    return bool(np.allclose(got, repository.reference(linear(seed=seed), {"x": X})["scores"]))


def weights_beside(root: Path, key: Pair, version: int, larger_by: int = 0) -> Path:
    """A signed version with its weights in model.onnx.data."""
    folder = put(root, None, version)
    keep_weights_beside(folder)
    with (folder / "model.onnx.data").open("ab") as file:
        file.write(os.urandom(larger_by))
    told = json.loads((folder / "model.json").read_bytes())
    repository.seal(folder, self_test=told["self_test"])
    return key.sign(folder)


large = partial(weights_beside, larger_by=3 * 2**20 + 5)


def keep_weights_beside(folder: Path, file: str = "model.onnx.data") -> None:
    proto = onnx.load(folder / "model.onnx")
    onnx.save_model(
        proto, folder / "model.onnx", save_as_external_data=True, location=file, size_threshold=0
    )


# --- what is right ------------------------------------------------------------------------


@pytest.mark.parametrize("make", [put, weights_beside, large])
def test_a_signed_version_is_served(root: Path, mine: Pair, load: Load, make) -> None:
    make(root, mine, 2)
    registry = load()
    assert registry.entries["m"].rejected == {}
    assert served_seed(registry, 2)
    served = registry.find("m")
    assert served.self_test_errors is not None
    told = served.describe()["signed_by"]
    assert str(told).startswith("key ")


def test_without_the_setting_signatures_are_not_looked_at(root: Path, mine: Pair, load) -> None:
    put(root, mine, 1)
    (put(root, mine, 2) / "model.sig").write_bytes(b"garbage")
    registry = load(trust=None)
    assert registry.find("m").version == 2
    assert "signed_by" not in registry.find("m").describe()


def test_a_graph_may_have_a_node_of_the_signatures_name(root: Path, mine: Pair, load) -> None:
    graph = linear(seed=1)
    graph.graph.node[0].name = "model.sigmoid"
    mine.sign(repository.publish(root, "m", graph))
    assert load(trust=None).find("m").version == 1


def test_weights_in_the_signature_are_refused(root: Path, mine: Pair, load) -> None:
    folder = put(root, None, 1)
    keep_weights_beside(folder, "model.sig")
    data = (folder / "model.sig").read_bytes()
    (folder / "model.sig").unlink()
    repository.seal(folder)
    (folder / "model.sig").write_bytes(data)
    reason = load(trust=None).entries["m"].rejected[1]
    assert "keeps weights in model.sig" in reason


def test_one_of_several_keys_is_enough(root: Path, tmp_path: Path, mine: Pair, load) -> None:
    """While keys are changed both are trusted."""
    from service.signing.keys import read_trust

    new = pair(tmp_path, "new")
    ca = issue(tmp_path, "ca", authority=True)
    both = tmp_path / "both.pem"
    both.write_bytes(
        b"# the old one\n" + mine.public.read_bytes() + new.public.read_bytes()
        + ca.file.read_bytes()
    )  # fmt: skip
    put(root, mine, 1)
    put(root, new, 2)
    leaf = issue(tmp_path, "leaf", ca)
    folder = put(root, None, 3)
    from service.signing.signing import read_key

    key = read_key(leaf.key_file, "--sign", None, chain_file(tmp_path, leaf))
    (folder / "model.sig").write_bytes(key.sign_version((folder / "model.json").read_bytes()))
    registry = load(read_trust(both, "--keys"), "all")
    assert list(registry.entries["m"].versions) == [3, 2, 1]
    assert list(load(new.trust, "all").entries["m"].versions) == [2]


# --- attacks: version 1 is signed and right, version 2 is what somebody made of it ------------


def flip(folder: Path, file: str, place: float = 0.5) -> None:
    content = bytearray((folder / file).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (folder / file).write_bytes(content)


def unsigned(folder: Path) -> None:
    (folder / "model.sig").unlink()


def extended(folder: Path) -> None:
    (folder / "notes.txt").write_text("hello")


def with_a_folder(folder: Path) -> None:
    (folder / "more").mkdir()


def shortened(folder: Path) -> None:
    (folder / "selftest.npz").unlink()


def a_signature_swapped(folder: Path) -> None:
    shutil.copy(folder.parent / "1" / "model.sig", folder)


def an_older_version_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "1", folder)


def renumbered(folder: Path) -> None:
    """An older version that now says that it is this one."""
    an_older_version_in_its_place(folder)
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace('"version": 1', '"version": 2'))


def another_model_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.parents[1] / "other" / "2", folder)


def no_manifest(folder: Path) -> None:
    (folder / "model.json").unlink()


def a_link(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "kept.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "kept.onnx")


def a_link_within(folder: Path) -> None:
    (folder / "other.onnx").symlink_to("model.onnx")


def a_linked_signature(folder: Path) -> None:
    (folder / "model.sig").rename(folder.parent / "kept.sig")
    (folder / "model.sig").symlink_to(folder.parent / "kept.sig")


def a_pipe(folder: Path) -> None:
    (folder / "selftest.npz").unlink()
    os.mkfifo(folder / "selftest.npz")


def a_huge_signature(folder: Path) -> None:
    with (folder / "model.sig").open("ab") as file:
        file.truncate(2**33)


def a_huge_manifest(folder: Path) -> None:
    with (folder / "model.json").open("ab") as file:
        file.truncate(2**33)


def grown(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.truncate(2**33)


def garbage(folder: Path) -> None:
    (folder / "model.sig").write_bytes(os.urandom(4096))


def other_content(folder: Path) -> None:
    """Another model, its hashes in model.json as they should be."""
    (folder / "model.onnx").write_bytes(linear(seed=9).SerializeToString())
    sig = (folder / "model.sig").read_bytes()
    unsigned(folder)
    repository.seal(folder)
    (folder / "model.sig").write_bytes(sig)


ATTACKS: dict[Callable[[Path], None], str] = {
    **{partial(flip, file=f): f for f in ("model.onnx", "model.json", "selftest.npz", "model.sig")},
    unsigned: "it is not signed: it has no model.sig",
    extended: "'notes.txt' is not signed",
    with_a_folder: "'more' is not a regular file",
    shortened: "selftest.npz is missing",
    a_signature_swapped: "sha256 of model.json",
    an_older_version_in_its_place: "says 'm' version 1, but lies in the folder of 'm' version 2",
    renumbered: "sha256 of model.json",
    another_model_in_its_place: "says 'other' version 2, but lies in the folder of 'm'",
    no_manifest: "it has no model.json",
    a_link: "'model.onnx' is a link",
    a_link_within: "'other.onnx' is a link",
    a_linked_signature: "'model.sig' is a link",
    a_pipe: "'selftest.npz' is not a regular file",
    a_huge_signature: "model.sig is larger than 1048576 bytes",
    a_huge_manifest: "model.json is larger than",
    grown: "model.onnx has 8589934592 bytes",
    garbage: "model.sig is not a signature",
    other_content: "sha256 of model.json",
}
# The files of the version are what they were, so it is not tried again.
UNSEEN = (with_a_folder, a_link, a_linked_signature)
names = [getattr(each, "__name__", "flip_" + str(why)) for each, why in ATTACKS.items()]


@pytest.mark.parametrize("attack", ATTACKS, ids=names)
def test_it_is_rejected_and_the_one_before_serves(
    root: Path, mine: Pair, load: Load, attack: Callable[[Path], None]
) -> None:
    """At the start of a server."""
    put(root, mine, 1)
    put(root, mine, 2, "other")
    attack(put(root, mine, 2))
    registry = load()
    entry = registry.entries["m"]
    assert list(entry.versions) == [1]
    assert ATTACKS[attack] in entry.rejected[2]
    assert str(root) not in entry.rejected[2]
    assert served_seed(registry, 1)


@pytest.mark.parametrize("attack", ATTACKS, ids=names)
def test_what_is_served_serves_on(
    root: Path, mine: Pair, load: Load, attack: Callable[[Path], None]
) -> None:
    """While a server runs: the version that it serves is spoilt, and a new one comes spoilt."""
    put(root, mine, 1)
    put(root, mine, 2, "other")
    folder = put(root, mine, 2)
    registry = load()
    assert served_seed(registry, 2)
    attack(folder)
    put(root, mine, 3)
    flip(root / "m" / "3", "model.onnx")
    registry.reload("m")
    entry = registry.entries["m"]
    assert list(entry.versions) == [2]
    assert "sha256 of model.onnx" in entry.rejected[3]
    if attack in UNSEEN:
        assert 2 not in entry.rejected
    else:
        assert ATTACKS[attack] in entry.rejected[2]
    assert served_seed(registry, 2)


def test_another_key(root: Path, tmp_path: Path, mine: Pair, load: Load) -> None:
    put(root, mine, 1)
    put(root, pair(tmp_path, "other"), 2)
    registry = load()
    assert list(registry.entries["m"].versions) == [1]
    assert "which is not trusted" in registry.entries["m"].rejected[2]


def test_a_bare_model_cannot_be_tied_to_a_name(root: Path, mine: Pair, load: Load) -> None:
    folder = repository.bare(root, "m", linear())
    digest = bundle.hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "model.sig").write_bytes(mine.signing.sign("m/1", {"model.onnx": digest}))
    assert "it has no model.json, which ties" in load().entries["m"].rejected[1]
    manifest = repository.seal(folder) / "model.json"
    (folder / "model.sig").write_bytes(mine.signing.sign("m/1", {"model.onnx": digest}))
    manifest.touch()
    assert "does not sign model.json" in load().entries["m"].rejected[1]


def test_a_signed_file_that_the_manifest_does_not_list(root: Path, mine: Pair, load: Load) -> None:
    folder = put(root, None, 1)
    (folder / "README.md").write_text("hello")
    digests = {
        path.name: bundle.hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()
    }
    (folder / "model.sig").write_bytes(mine.signing.sign("m/1", digests))
    assert (
        "'README.md' is signed, but model.json does not list it"
        in (load().entries["m"].rejected[1])
    )


def test_every_byte_of_every_small_file_counts(tmp_path: Path, mine: Pair) -> None:
    """One bit is flipped, in each byte of model.sig and model.json and in many of the others."""
    folder = put(tmp_path, mine, 1)
    for path in sorted(folder.iterdir()):
        right = path.read_bytes()
        step = 1 if path.suffix in {".sig", ".json"} else max(1, len(right) // 200)
        for place in range(0, len(right), step):
            for bit in (0, 5):
                wrong = bytearray(right)
                wrong[place] ^= 1 << bit
                path.write_bytes(wrong)
                with pytest.raises(Rejected, match=r"model\.|selftest"):
                    pytest.fail(f"{path.name} {place} {bit}: {read(folder, mine)}")
        path.write_bytes(right)
    assert read(folder, mine).manifest.version == 1


def read(folder: Path, key: Pair) -> signed.Signed:
    return signed.read(folder, "m", 1, key.trust, hold=False)


@settings(max_examples=60)
@given(data=st.data())
def test_any_change_of_a_file_is_seen(
    data: st.DataObject, mine: Pair, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = put(tmp_path_factory.mktemp("any"), mine, 1)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    right = path.read_bytes()
    start = data.draw(st.integers(0, len(right)))
    end = data.draw(st.integers(start, min(len(right), start + 50)))
    wrong = right[:start] + data.draw(st.binary(max_size=50)) + right[end:]
    path.write_bytes(wrong)
    if wrong == right or (path.suffix == ".sig" and wrong.split() == right.split()):
        assert read(folder, mine).manifest.version == 1  # JSON has white space that says nothing
        return
    with pytest.raises(Rejected, match=path.name):
        read(folder, mine)


@pytest.mark.parametrize("hold", [True, False])
def test_a_large_file_is_verified_to_its_last_byte(tmp_path: Path, mine: Pair, hold: bool) -> None:
    folder = large(tmp_path, mine, 1)
    found = signed.read(folder, "m", 1, mine.trust, hold=hold)
    right = (folder / "model.onnx.data").read_bytes()
    if found.held is not None:
        assert bytes(found.held.files["model.onnx.data"][:]) == right
        assert found.held.size_bytes == sum(
            path.stat().st_size for path in folder.iterdir() if path.suffix != ".sig"
        )
    for place in (0, 2**18 - 1, 2**18, len(right) // 2, len(right) - 1):
        wrong = bytearray(right)
        wrong[place] ^= 1
        (folder / "model.onnx.data").write_bytes(wrong)
        with pytest.raises(Rejected, match=r"sha256 of model\.onnx\.data"):
            signed.read(folder, "m", 1, mine.trust, hold=hold)


# --- who decides which versions are served ------------------------------------------------------


def test_only_what_is_signed_says_which_versions_are_served(
    root: Path, mine: Pair, load: Load
) -> None:
    put(root, mine, 1)
    put(root, mine, 2, serving={"version_policy": "all"})
    put(root, None, 3, serving={"version_policy": "specific:1"})
    entry = load().entries["m"]
    assert list(entry.versions) == [2, 1]
    assert list(entry.rejected) == [3]
    assert list(load(trust=None).entries["m"].versions) == [1]  # anybody says it then


# --- what was verified is what is loaded --------------------------------------------------------


@pytest.mark.parametrize("make", [put, weights_beside, large])
def test_files_that_are_changed_after_the_check_are_not_loaded(
    root: Path, mine: Pair, load: Load, monkeypatch: pytest.MonkeyPatch, make
) -> None:
    """Somebody swaps every file in the moment between the check and the loading."""
    make(root, mine, 2)
    check_folder = signed.read

    def swapped(folder: Path, *how: object, **more: object) -> signed.Signed:
        found = check_folder(folder, *how, **more)  # type: ignore[arg-type]
        for path in folder.iterdir():
            path.unlink()
        (folder / "model.onnx").write_bytes(linear(seed=9).SerializeToString())
        return found

    monkeypatch.setattr(signed, "read", swapped)
    registry = load()
    assert registry.entries["m"].rejected == {}
    assert served_seed(registry, 2)


def test_what_is_served_does_not_change_with_its_files(root: Path, mine: Pair, load: Load) -> None:
    """onnxruntime maps weights that it loads by a path: then a write may show in the answers."""
    graph = repository.graph(
        [helper.make_node("Add", ["x", "W"], ["y"])],
        [repository.value("x", TensorProto.FLOAT, ["batch", 4])],
        [repository.value("y", TensorProto.FLOAT, ["batch", 4])],
        {"W": np.ones(4, np.float32)},
    )
    folder = repository.bare(root, "m", graph)
    keep_weights_beside(folder)
    mine.sign(repository.seal(folder))
    served = load().find("m")
    with (folder / "model.onnx.data").open("r+b") as file:
        file.write(bytes((folder / "model.onnx.data").stat().st_size))
    np.testing.assert_array_equal(repository.answer(served, {"x": X})["y"], X + 1)


def test_the_bytes_are_let_go_once_the_version_is_loaded(root: Path, mine: Pair) -> None:
    held = signed.read(weights_beside(root, mine, 1), "m", 1, mine.trust, hold=True).held
    assert held is not None
    before = {name: sys.getrefcount(content) for name, content in held.files.items()}
    runtime = Runtime(held, CPU, 1)
    assert runtime.run({"x": X})["scores"].shape == (3, 3)
    assert {name: sys.getrefcount(content) for name, content in held.files.items()} == before


def test_a_file_is_read_once(root: Path, mine: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with weights beside the graph, and with a second session for requests that are alone."""
    folder = weights_beside(root, mine, 1)
    opened: list[str] = []
    real = os.open

    def counted(path: object, *how: object, **more: object) -> int:
        if str(path).startswith(str(folder)):
            opened.append(Path(str(path)).name)
        return real(path, *how, **more)  # type: ignore[arg-type]

    real_io = io.open

    def counted_io(path: object, *how: object, **more: object) -> object:
        if str(path).startswith(str(folder)):
            opened.append(Path(str(path)).name)
        return real_io(path, *how, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "open", counted)
    monkeypatch.setattr(io, "open", counted_io)  # by which pathlib opens
    loaded = model.load(folder, "m", 1, CPU, 2, 8, trust=mine.trust)
    assert sorted(opened) == sorted(
        ["model.json", "model.sig", "model.onnx", "model.onnx.data", "selftest.npz"]
    )
    assert isinstance(loaded, ServedModel)
    assert loaded.batcher.close(30)


def test_weights_that_no_signature_covers(root: Path, mine: Pair, load: Load) -> None:
    """Signed it may be: what model.onnx asks for outside of the version is not opened."""
    outside = root.parent / "outside.data"
    for version, location in enumerate(
        ["../../outside.data", "missing.data", str(outside), "./model.onnx.data"], 1
    ):
        folder = put(root, None, version)
        keep_weights_beside(folder)
        shutil.copy(folder / "model.onnx.data", outside)
        proto = onnx.load(folder / "model.onnx", load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "model.onnx").write_bytes(proto.SerializeToString())
        if location != "./model.onnx.data":
            (folder / "model.onnx.data").unlink()
        told = json.loads((folder / "model.json").read_bytes())
        repository.seal(folder, self_test=told["self_test"])
        mine.sign(folder)
    entry = load(rule="all").entries["m"]
    assert set(entry.rejected) == {1, 2, 3}
    for reason in entry.rejected.values():
        assert "are not among the signed files" in reason
        assert str(root.parent) not in reason
    assert list(entry.versions) == [4]  # the same file, said in another way


def test_an_older_onnxruntime_says_so(
    root: Path, mine: Pair, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cannot take weights from memory: refused, rather than read unchecked."""
    import onnxruntime

    weights_beside(root, mine, 1)
    monkeypatch.delattr(
        onnxruntime.SessionOptions, "add_external_initializers_from_files_in_memory"
    )
    assert "needs a newer onnxruntime" in load().entries["m"].rejected[1]


def test_the_check_of_publishers_is_the_same(root: Path, mine: Pair) -> None:
    folder = put(root, mine, 1)
    assert check(folder, "m", 1, CPU, trust=mine.trust).signer is not None
    assert check(folder, "m", 1, CPU).signer is None
    with pytest.raises(Rejected, match="version 1, but lies in the folder of 'm' version 2"):
        check(folder, "m", 2, CPU, trust=mine.trust)
