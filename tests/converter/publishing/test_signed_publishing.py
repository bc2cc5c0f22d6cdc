"""fold --publish --sign: what is published is signed, and whoever asks for it accepts it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from converter.errors import UserError
from converter.pipeline import FoldResult
from converter.publishing.signing import signing_key
from converter.publishing.versions import publish
from service.manifest import MANIFEST_FILE, MODEL_FILE, SELFTEST_FILE
from service.models import policy, signed
from service.signing.keys import read_trust
from service.signing.names import SIGNATURE_FILE
from service.store.access import Store
from service.store.mirror import Mirror
from tests import s3, signatures
from tests.signatures import Pair, chain_file, issue, pair


@pytest.fixture
def mine(tmp_path: Path) -> Pair:
    return pair(tmp_path)


def names(folder: Path | str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_version_is_signed_whole(tmp_path: Path, proven: FoldResult, mine: Pair) -> None:
    done = publish(proven, tmp_path / "net", key=signing_key(mine.private))
    assert names(done.path) == sorted([MANIFEST_FILE, MODEL_FILE, SIGNATURE_FILE, SELFTEST_FILE])
    found = signed.read(Path(done.path), "net", 1, mine.trust, hold=False)
    assert SIGNATURE_FILE not in found.manifest.files
    statement = signatures.statement_of((Path(done.path) / SIGNATURE_FILE).read_bytes())
    assert statement["subject"][0]["name"] == "net/1"
    listed = {each["name"] for each in statement["predicate"]["resources"]}
    assert listed == {MANIFEST_FILE, MODEL_FILE, SELFTEST_FILE}


def test_without_a_key_nothing_changes(tmp_path: Path, proven: FoldResult) -> None:
    done = publish(proven, tmp_path / "net")
    assert names(done.path) == [MANIFEST_FILE, MODEL_FILE, SELFTEST_FILE]


def test_the_number_is_signed_that_it_gets(
    tmp_path: Path, proven: FoldResult, mine: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else takes version 1 in the moment before the rename."""
    taken: list[Path] = []
    rename = Path.rename

    def slow(self: Path, target: Path) -> Path:
        if not taken and target.name == "1":
            taken.append(target)
            raise OSError(errno.ENOTEMPTY, "taken")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", slow)
    done = publish(proven, tmp_path / "net", key=signing_key(mine.private))
    assert (done.version, len(taken)) == (2, 1)
    assert signed.read(Path(done.path), "net", 2, mine.trust, hold=False).manifest.version == 2


def test_if_changed_asks_for_the_signature_too(
    tmp_path: Path, proven: FoldResult, mine: Pair
) -> None:
    folder, key = tmp_path / "net", signing_key(mine.private)
    other = signing_key(pair(tmp_path, "other").private)
    assert publish(proven, folder, if_changed=True).fresh
    assert publish(proven, folder, if_changed=True, key=key).version == 2
    assert not publish(proven, folder, if_changed=True, key=key).fresh
    assert not publish(proven, folder, if_changed=True).fresh  # signed is no worse
    assert publish(proven, folder, if_changed=True, key=other).version == 3
    (folder / "3" / SIGNATURE_FILE).write_bytes(b"garbage")
    assert publish(proven, folder, if_changed=True, key=other).version == 4


def test_a_chain_of_certificates(tmp_path: Path, proven: FoldResult) -> None:
    root = issue(tmp_path, "root", authority=True)
    leaf = issue(tmp_path, "leaf", root)
    key = signing_key(leaf.key_file, chain_file(tmp_path, leaf))
    done = publish(proven, tmp_path / "net", key=key)
    trust = read_trust(root.file, "--roots")
    assert signed.read(Path(done.path), "net", 1, trust, hold=False).signer == "certificate CN=leaf"
    assert not publish(proven, tmp_path / "net", if_changed=True, key=key).fresh
    bare = signing_key(leaf.key_file)
    assert publish(proven, tmp_path / "net", if_changed=True, key=bare).fresh


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
def test_to_a_store(
    tmp_path: Path, proven: FoldResult, mine: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in s3.environment(s3.server()).items():
        monkeypatch.setenv(key, value)
    address, key = f"s3://{s3.bucket()}/models/net", signing_key(mine.private)
    assert publish(proven, address).version == 1
    assert publish(proven, address, if_changed=True, key=key).version == 2
    assert not publish(proven, address, if_changed=True, key=key).fresh
    store = Store(address.removesuffix("/net"))
    mirror = Mirror(store, tmp_path / "mirror", policy.parse("all"), trust=mine.trust)
    mirror.refresh()
    fetched = tmp_path / "mirror" / "net"
    assert signed.read(fetched / "2", "net", 2, mine.trust, hold=False).manifest.version == 2
    assert "it is not signed" in (fetched / "1" / "unfetched.txt").read_text()
    assert not (fetched / "1" / MODEL_FILE).exists()


# --- keys -----------------------------------------------------------------------------------


def test_a_key_with_a_password(tmp_path: Path, mine: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.key"
    signatures.write_private(path, mine.signing.key, "hunter22")
    monkeypatch.delenv("SIGNING_KEY_PASSWORD", raising=False)
    with pytest.raises(UserError, match="needs its password in SIGNING_KEY_PASSWORD"):
        signing_key(path)
    monkeypatch.setenv("SIGNING_KEY_PASSWORD", "hunter23")
    with pytest.raises(UserError, match="SIGNING_KEY_PASSWORD is not its password") as wrong:
        signing_key(path)
    assert "hunter23" not in str(wrong.value)
    monkeypatch.setenv("SIGNING_KEY_PASSWORD", "hunter22")
    text = signing_key(path).sign("m/1", {"model.json": "0" * 64})
    assert mine.trust.verify(text).digests == {"model.json": "0" * 64}
    with pytest.raises(UserError, match="has no password; unset SIGNING_KEY_PASSWORD"):
        signing_key(mine.private)


def test_keys_that_cannot_sign(tmp_path: Path, mine: Pair) -> None:
    rsa_key, curve = tmp_path / "rsa.key", tmp_path / "curve.key"
    signatures.write_private(rsa_key, rsa.generate_private_key(65537, 2048))
    signatures.write_private(curve, ec.generate_private_key(ec.SECP256K1()))
    garbage, damaged = tmp_path / "garbage", tmp_path / "damaged.key"
    garbage.write_bytes(b"\x00" * 100)
    damaged.write_bytes(mine.private.read_bytes().replace(b"M", b"N"))
    large = tmp_path / "large.key"
    with large.open("wb") as file:
        file.truncate(2**33)
    for path, why in {
        tmp_path / "missing": "there is no file",
        tmp_path: "there is no file",
        mine.public: "holds no private key",
        rsa_key: "holds another key than an elliptic-curve key",
        curve: "holds another key than an elliptic-curve key",
        garbage: "is not a file of keys or certificates in PEM",
        damaged: "is damaged",
        large: "is larger than",
    }.items():
        with pytest.raises(UserError, match=f"--sign: .*{why}"):
            signing_key(path)


def test_chains_that_do_not_suit_the_key(tmp_path: Path, mine: Pair) -> None:
    root = issue(tmp_path, "root", authority=True)
    leaf = issue(tmp_path, "leaf", root, usage=())
    with pytest.raises(UserError, match=r"--sign-chain: the first certificate .* must be that of"):
        signing_key(mine.private, leaf.file)
    with pytest.raises(UserError, match=r"--sign-chain: .* is not for signing"):
        signing_key(leaf.key_file, leaf.file)
    with pytest.raises(UserError, match="--sign-chain: there is no file"):
        signing_key(leaf.key_file, tmp_path / "missing")
