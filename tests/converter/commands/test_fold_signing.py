"""`fold --sign`: mistakes are found before the work, and what is published is signed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter.cli import main
from converter.commands import loading
from service.models import signed
from tests.signatures import chain_file, issue, pair

CHECKPOINT = Path(__file__).parents[3] / "models" / "mnist" / "checkpoint.pt"


def test_mistakes_are_found_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_from", None)  # it is not come to
    mine = pair(tmp_path)
    leaf = issue(tmp_path, "leaf")
    publish = ["--publish", str(tmp_path / "net")]
    for words, why in {
        ("--sign", str(mine.private)): "--sign goes with --publish",
        (*publish, "--sign-chain", str(leaf.file)): "--sign-chain goes with --sign",
        (*publish, "--sign", str(mine.public)): "holds no private key",
        (*publish, "--sign", str(tmp_path / "none")): "there is no file",
        (*publish, "--sign", str(mine.private), "--sign-chain", str(leaf.file)): "must be that of",
    }.items():
        assert main(["fold", str(CHECKPOINT), *words]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert why in said
        assert "Traceback" not in said
    assert not (tmp_path / "net").exists()


@pytest.mark.slow
def test_it_is_signed_with_certificates(tmp_path: Path) -> None:
    root = issue(tmp_path, "root", authority=True)
    leaf = issue(tmp_path, "leaf", root)
    words = ["--publish", str(tmp_path / "net"), "--json", str(tmp_path / "report.json")]
    words += ["--sign", str(leaf.key_file), "--sign-chain", str(chain_file(tmp_path, leaf))]
    assert main(["fold", str(CHECKPOINT), *words]) == 0
    from service.signing.keys import read_trust

    (written,) = json.loads((tmp_path / "report.json").read_bytes())["written"]
    trust = read_trust(root.file, "--roots")
    found = signed.read(Path(written), "net", 1, trust, hold=False)
    assert found.signer == "certificate CN=leaf"
    assert "certificate" in found.manifest.provenance, "what it says of the fold is signed, too"
