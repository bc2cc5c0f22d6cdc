"""`foldserve verify-signature`: what it says of a version, and its exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import repository
from repository import linear

from foldserve.command import main
from tests.signatures import Pair, chain_file, issue, pair


@pytest.fixture
def mine(tmp_path: Path) -> Pair:
    return pair(tmp_path)


@pytest.fixture
def models(tmp_path: Path, mine: Pair) -> Path:
    """Versions 1 and 10 of m; 10 is signed."""
    repository.publish(tmp_path / "models", "m", linear())
    mine.sign(repository.publish(tmp_path / "models", "m", linear(), 10))
    return tmp_path / "models"


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["verify-signature", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_signed_version(models: Path, mine: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (models / "m" / "10", models / "m"):  # the highest one is meant
        code, out, err = ask(capsys, folder, "--public-key", mine.public)
        assert (code, err) == (0, "")
        assert out.startswith("m version 10 is signed by key ")
        assert out.endswith("; its 2 files are as they were signed.\n")


def test_as_json(models: Path, mine: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(capsys, models / "m", "--public-key", mine.public, "--json")
    told = json.loads(out)
    assert code == 0
    assert told.pop("signer").startswith("key ")
    assert told == {
        "path": str(models / "m" / "10"),
        "model": "m",
        "version": 10,
        "verified": True,
        "files": ["model.json", "model.onnx"],
        "reason": None,
    }
    code, out, _ = ask(capsys, models / "m" / "1", "--public-key", mine.public, "--json")
    told = json.loads(out)
    assert code == 1
    assert (told["verified"], told["signer"], told["files"]) == (False, None, [])
    assert told["reason"] == "it is not signed: it has no model.sig"


def test_what_is_not_as_it_was_signed(
    models: Path, mine: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = models / "m" / "10"
    right = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(right[:-1] + b"!")
    code, out, err = ask(capsys, folder, "--public-key", mine.public)
    assert (code, err) == (1, "")
    assert out.startswith("m version 10 is not verified: sha256 of model.onnx is ")
    (folder / "model.onnx").write_bytes(right)
    assert ask(capsys, folder, "--public-key", pair(tmp_path, "other").public)[0] == 1
    shutil.copytree(folder, models / "m" / "11")
    code, out, _ = ask(capsys, models / "m", "--public-key", mine.public)
    assert code == 1
    assert "m version 11 is not verified: model.json says 'm' version 10" in out


def test_certificates(
    models: Path, tmp_path: Path, mine: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    from service.signing.signing import read_key

    root = issue(tmp_path, "root", authority=True)
    leaf = issue(tmp_path, "release", root)
    key = read_key(leaf.key_file, "--sign", None, chain_file(tmp_path, leaf))
    folder = models / "m" / "1"
    (folder / "model.sig").write_bytes(key.sign_version((folder / "model.json").read_bytes()))
    code, out, _ = ask(capsys, folder, "--certificate-chain", root.file)
    assert code == 0
    assert "is signed by certificate CN=release;" in out
    both = ("--certificate-chain", root.file, "--public-key", mine.public)
    assert ask(capsys, folder, *both)[0] == 0
    assert ask(capsys, models / "m", *both)[0] == 0
    assert ask(capsys, folder, "--public-key", mine.public)[0] == 1


def test_what_cannot_be_looked_at(
    models: Path, mine: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ("--public-key", mine.public)
    for words, why in {
        (models / "m",): "say who is trusted: --public-key FILE or --certificate-chain FILE",
        (models / "m", "--public-key", mine.private): "holds a private key",
        (models / "m", "--public-key", tmp_path / "none"): "there is no file",
        (models / "missing", *key): "there is no folder",
        (models, *key): "is not a models/NAME/VERSION and has no version",
        ("s3://bucket/models/m/1", *key): "s3://bucket/models/m/1 is an address",
    }.items():
        code, out, err = ask(capsys, *words)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert why in err
        assert err.count("\n") == 1
    with pytest.raises(SystemExit) as wrong:
        ask(capsys, models / "m", "--publik-key", mine.public)
    assert wrong.value.code == 2


@pytest.mark.slow
def test_the_converter_is_not_needed_and_the_extra_is_named(models: Path, mine: Pair) -> None:
    def run(*missing: str) -> subprocess.CompletedProcess[str]:
        program = "import sys\n" + "".join(f"sys.modules[{each!r}] = None\n" for each in missing)
        words = ["verify-signature", str(models / "m"), "--public-key", str(mine.public)]
        program += f"from foldserve.command import main\nsys.exit(main({words!r}))"
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )

    done = run("torch", "onnx", "rich", "onnxruntime", "numpy")
    assert (done.returncode, done.stderr) == (0, "")
    done = run("cryptography")
    assert done.returncode == 2
    assert done.stderr == (
        "error: signatures need the package cryptography: pip install 'foldserve[signing]'.\n"
    )
