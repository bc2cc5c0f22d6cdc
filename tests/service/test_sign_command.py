"""`foldserve sign`: a version that lies there is signed whole, or nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import repository
from repository import linear

from foldserve.command import main
from service.models import signed
from service.signing.keys import read_trust
from tests import signatures
from tests.signatures import Pair, chain_file, issue, pair


@pytest.fixture
def mine(tmp_path: Path) -> Pair:
    return pair(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return repository.publish(tmp_path / "models", "m", linear(), 3)


def sign(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["sign", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def signer(folder: Path, trust: signed.Trust) -> str:
    return signed.read(folder, "m", 3, trust, hold=False).signer


def test_a_version_is_signed(folder: Path, mine: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (folder, folder.parent):
        code, out, err = sign(capsys, path, "--key", mine.private)
        assert (code, out, err) == (0, "Signed m version 3.\n", "")
        assert signer(folder, mine.trust).startswith("key ")
        assert [each.name for each in folder.parent.iterdir()] == ["3"], "nothing is left beside"


def test_an_edited_manifest_is_signed_again(
    folder: Path, tmp_path: Path, mine: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    pair(tmp_path, "old").sign(folder)
    told = json.loads((folder / "model.json").read_bytes())
    told["serving"] = {"threads": 1}
    (folder / "model.json").write_text(json.dumps(told))
    assert sign(capsys, folder, "--key", mine.private)[0] == 0
    assert signer(folder, mine.trust).startswith("key ")


def test_with_certificates(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = issue(tmp_path, "root", authority=True)
    leaf = issue(tmp_path, "leaf", root)
    chain = chain_file(tmp_path, leaf)
    assert sign(capsys, folder, "--key", leaf.key_file, "--key-chain", chain)[0] == 0
    assert signer(folder, read_trust(root.file, "--roots")) == "certificate CN=leaf"


def test_what_is_not_a_whole_version_is_not_signed(
    folder: Path, tmp_path: Path, mine: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ("--key", mine.private)
    bare = repository.bare(tmp_path / "models", "bare", linear())
    altered = repository.publish(tmp_path / "models", "altered", linear())
    with (altered / "model.onnx").open("ab") as file:
        file.write(b"x")
    more = repository.publish(tmp_path / "models", "more", linear())
    (more / "notes.txt").write_text("hello")
    moved = repository.publish(tmp_path / "models", "moved", linear()).rename(
        tmp_path / "models" / "moved" / "2"
    )
    for words, why in {
        (bare, *key): "has no model.json, which ties a signature to name and version",
        (altered, *key): "is not a version that can be signed: model.onnx has ",
        (more, *key): "notes.txt is not listed in model.json: remove it",
        (moved, *key): "says 'moved' version 1, but lies in the folder of 'moved' version 2",
        (tmp_path / "missing", *key): "there is no folder",
        (folder, "--key", mine.public): "--key: ",
        (folder, *key, "--key-chain", mine.public): "--key-chain: the first certificate",
    }.items():
        code, out, err = sign(capsys, *words)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert why in err
        assert err.count("\n") == 1
    assert not list((tmp_path / "models").rglob("model.sig"))
    signatures.write_private(tmp_path / "locked", mine.signing.key, "a password")
    assert "SIGNING_KEY_PASSWORD" in sign(capsys, folder, "--key", tmp_path / "locked")[2]
