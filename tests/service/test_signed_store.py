"""Signatures and models from a store: what is not signed is not even fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import repository
from repository import linear

from service.models import policy
from service.models.bundle import UNFETCHED_FILE
from service.models.signed import Trust
from service.signing.names import LONGEST_SIGNATURE_BYTES
from service.store import mirror as mirroring
from service.store.access import Store
from service.store.mirror import Mirror
from tests.signatures import Pair, pair

X = np.zeros((1, 4), np.float32)


@pytest.fixture
def mine(tmp_path: Path) -> Pair:
    return pair(tmp_path)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mirroring, "_FIRST_PAUSE_S", 0)
    return tmp_path / "remote"


def put(remote: Path, key: Pair | None, version: int, **changes: object) -> Path:
    folder = repository.publish(remote, "m", linear(), version, test={"x": X}, **changes)
    return key.sign(folder) if key else folder


def follow(remote: Path, trust: Trust | None, wanted: str = "latest") -> Mirror:
    store = Store(f"file://{remote}", attempts=1)
    return Mirror(store, remote.parent / "mirror", policy.parse(wanted), trust=trust)


def here(mirror: Mirror) -> dict[int, list[str]]:
    """Of each version that is mirrored the names of its files."""
    return {
        int(folder.name): sorted(path.name for path in folder.iterdir())
        for folder in sorted((mirror.folder / "m").iterdir())
    }


WHOLE = ["model.json", "model.onnx", "model.sig", "selftest.npz"]


def test_a_signed_version_comes_with_its_signature(remote: Path, mine: Pair) -> None:
    put(remote, mine, 1)
    mirror = follow(remote, mine.trust)
    assert mirror.refresh()
    assert here(mirror) == {1: WHOLE}
    assert not mirror.refresh()


def test_what_is_not_signed_is_not_fetched(
    remote: Path, mine: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(remote, mine, 1)
    put(remote, None, 2)
    put(remote, pair(tmp_path, "other"), 3)
    shutil.copytree(remote / "m" / "1", remote / "m" / "4")
    (put(remote, mine, 5) / "model.sig").write_bytes(b"{}")
    with (put(remote, mine, 6) / "model.sig").open("ab") as file:
        file.truncate(LONGEST_SIGNATURE_BYTES * 100)
    asked: list[tuple[str, int]] = []
    read = Store.read

    def counted(self: Store, path: str, start: int, end: int) -> bytes:
        content = read(self, path, start, end)
        asked.append((path, len(content)))
        return content

    monkeypatch.setattr(Store, "read", counted)
    mirror = follow(remote, mine.trust)
    mirror.refresh()
    assert here(mirror) == {1: WHOLE, **{key: [UNFETCHED_FILE] for key in range(2, 7)}}
    reasons = [
        (mirror.folder / "m" / str(version) / UNFETCHED_FILE).read_text() for version in range(2, 7)
    ]
    for reason, expected in zip(
        reasons,
        [
            "it is not signed: it has no model.sig",
            "which is not trusted",
            "says 'm' version 1, but lies in the folder of 'm' version 4",
            "model.sig is not a signature",
            "model.sig is larger than",
        ],
        strict=True,
    ):
        assert expected in reason
    models = {path for path, _ in asked if path.endswith("model.onnx")}
    assert models == {"m/1/model.onnx"}
    assert max(size for _, size in asked) <= LONGEST_SIGNATURE_BYTES + 1


def test_it_is_tried_again_once_it_is_signed(remote: Path, mine: Pair) -> None:
    """model.json stays what it was, so nothing of the manifest says that it is new."""
    folder = put(remote, None, 1)
    mirror = follow(remote, mine.trust)
    mirror.refresh()
    assert here(mirror) == {1: [UNFETCHED_FILE]}
    mine.sign(folder)
    assert mirror.refresh()
    assert here(mirror) == {1: WHOLE}


def test_what_was_fetched_before_signatures_were_required(remote: Path, mine: Pair) -> None:
    put(remote, mine, 1)
    before = follow(remote, None)
    before.refresh()
    assert here(before) == {1: [name for name in WHOLE if name != "model.sig"]}
    mirror = follow(remote, mine.trust)
    mirror.refresh({"m": (frozenset(), frozenset({1}))})  # the service has rejected it
    assert here(mirror) == {1: WHOLE}


def test_what_is_spoilt_here_comes_again(remote: Path, mine: Pair) -> None:
    put(remote, mine, 1)
    mirror = follow(remote, mine.trust)
    mirror.refresh()
    for name in WHOLE:
        path = mirror.folder / "m" / "1" / name
        right = path.read_bytes()
        path.write_bytes(right[:-1] + b"!")
        mirror.refresh({"m": (frozenset(), frozenset({1}))})
        assert path.read_bytes() == right


def test_only_what_is_signed_says_which_versions_are_wanted(remote: Path, mine: Pair) -> None:
    put(remote, mine, 1)
    put(remote, mine, 2)
    put(remote, mine, 3, serving={"version_policy": "specific:1,3"})
    put(remote, None, 4, serving={"version_policy": "all"})
    mirror = follow(remote, mine.trust)
    mirror.refresh()
    assert here(mirror) == {1: WHOLE, 3: WHOLE, 4: [UNFETCHED_FILE]}


def test_the_signature_is_no_file_of_the_manifest(remote: Path) -> None:
    folder = put(remote, None, 1)
    (folder / "model.sig").write_bytes(b"{}")
    repository.seal(folder)
    mirror = follow(remote, None)
    mirror.refresh()
    reason = (mirror.folder / "m" / "1" / UNFETCHED_FILE).read_text()
    assert "lists 'model.sig', which is not a name for a file here" in reason
