"""The format of signatures, against the package model-signing, whose format it is."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_signing
import pytest
import repository
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from service.models import signed
from service.models.bundle import Rejected
from service.signing import envelope, statement
from service.signing.keys import Trust, read_trust
from service.signing.names import LONGEST_SIGNATURE_BYTES, Unverified
from service.signing.signing import read_key
from tests import signatures
from tests.signatures import Issued, Pair, issue, pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return repository.publish(tmp_path / "models", "m", repository.linear(), 3)


@pytest.fixture
def mine(tmp_path: Path) -> Pair:
    return pair(tmp_path)


def read(folder: Path, trust: Trust) -> signed.Signed:
    return signed.read(folder, "m", 3, trust, hold=False)


def theirs_verify(folder: Path, public: Path) -> None:
    """Raises what model-signing raises."""
    model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public).verify(
        folder, folder / "model.sig"
    )


def theirs_sign(folder: Path, private: Path) -> None:
    how = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig"])
    model_signing.signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(
        how
    ).sign(folder, folder / "model.sig")


# --- both ways ----------------------------------------------------------------------------


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_what_is_signed_here_is_accepted_there(
    folder: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    mine = pair(tmp_path, curve=curve)
    mine.sign(folder)
    theirs_verify(folder, mine.public)
    assert read(folder, mine.trust).manifest.version == 3


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_what_is_signed_there_is_accepted_here(
    folder: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    mine = pair(tmp_path, curve=curve)
    theirs_sign(folder, mine.private)
    assert read(folder, mine.trust).manifest.version == 3


def test_their_command_line_accepts_it(folder: Path, mine: Pair) -> None:
    mine.sign(folder)
    flags = ["--signature", str(folder / "model.sig"), "--public_key", str(mine.public)]
    words = [sys.executable, "-m", "model_signing", "verify", "key", *flags, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "model.onnx").write_bytes(b"other")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1


def test_a_chain_of_certificates_both_ways(folder: Path, tmp_path: Path) -> None:
    root = issue(tmp_path, "root", authority=True)
    middle = issue(tmp_path, "middle", root, authority=True, path_length=0)
    leaf = issue(tmp_path, "leaf", middle)
    chain = signatures.chain_file(tmp_path, leaf, middle)
    trust = read_trust(root.file, "--roots")
    key = read_key(leaf.key_file, "--sign", None, chain)
    (folder / "model.sig").write_bytes(key.sign_version((folder / "model.json").read_bytes()))
    assert read(folder, trust).signer == "certificate CN=leaf"
    verifier = model_signing.verifying.Config().use_certificate_verifier(
        certificate_chain=[root.file]
    )
    verifier.verify(folder, folder / "model.sig")

    (folder / "model.sig").unlink()
    model_signing.signing.Config().use_certificate_signer(
        private_key=leaf.key_file, signing_certificate=leaf.file, certificate_chain=[middle.file]
    ).set_hashing_config(
        model_signing.hashing.Config().set_ignored_paths(paths=["model.sig"])
    ).sign(folder, folder / "model.sig")
    assert read(folder, trust).signer == "certificate CN=leaf"


# --- what both refuse -----------------------------------------------------------------------


def bundle(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes, Pair], bytes]:
    """Change the file, not what is signed."""

    def changed(signature: bytes, _: Pair) -> bytes:
        told = signatures.bundle_of(signature)
        change(told)
        return json.dumps(told).encode()

    return changed


def says(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes, Pair], bytes]:
    """Change what is signed, and sign it rightly."""

    def changed(signature: bytes, mine: Pair) -> bytes:
        told = signatures.statement_of(signature)
        change(told)
        return signatures.signed(told, mine.signing)

    return changed


def forged(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes, Pair], bytes]:
    """Change what is signed, and leave the signature."""

    def changed(signature: bytes, _: Pair) -> bytes:
        told, inside = signatures.bundle_of(signature), signatures.statement_of(signature)
        change(inside)
        payload = base64.b64encode(json.dumps(inside).encode()).decode()
        told["dsseEnvelope"]["payload"] = payload
        return json.dumps(told).encode()

    return changed


def first_resource(told: dict[str, Any]) -> dict[str, Any]:
    return told["predicate"]["resources"][0]  # type: ignore[no-any-return]


ZEROS = "0" * 64
HOSTILE: dict[str, Callable[[bytes, Pair], bytes]] = {
    "empty": lambda *_: b"",
    "no JSON": lambda *_: b"\x00\xff" * 100,
    "cut off": lambda s, _: s[: len(s) // 2],
    "a list": lambda s, _: b"[" + s + b"]",
    "a number": lambda *_: b"7",
    "deep": lambda *_: b'{"mediaType":' * 3000,
    "another media type": bundle(lambda b: b.update(mediaType="text/plain")),
    "another payload type": bundle(lambda b: b["dsseEnvelope"].update(payloadType="text/plain")),
    "no signature": bundle(lambda b: b["dsseEnvelope"].update(signatures=[])),
    "an empty signature": bundle(lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="")),
    "no base64": bundle(lambda b: b["dsseEnvelope"].update(payload="*")),
    "no envelope": bundle(lambda b: b.pop("dsseEnvelope")),
    "no material": bundle(lambda b: b.pop("verificationMaterial")),
    "of another key, it says": bundle(
        lambda b: b["verificationMaterial"].update(publicKey={"hint": ZEROS})
    ),
    "a digest altered": forged(lambda t: first_resource(t).update(digest=ZEROS)),
    "a file taken out": forged(lambda t: t["predicate"]["resources"].pop()),
    "another predicate": says(lambda t: t.update(predicateType="https://slsa.dev/provenance/v1")),
    "another statement": says(lambda t: t.update(_type="https://in-toto.io/Statement/v0.1")),
    "two subjects": says(lambda t: t.update(subject=t["subject"] * 2)),
    "a wrong root digest": says(lambda t: t["subject"][0].update(digest={"sha256": ZEROS})),
    "another method": says(lambda t: t["predicate"]["serialization"].update(method="tensors")),
    "one file too few": says(
        lambda t: (t["predicate"]["resources"].pop(), signatures.consistent(t))
    ),
    "one file too many": says(
        lambda t: (
            t["predicate"]["resources"].append(
                {"name": "z.txt", "algorithm": "sha256", "digest": ZEROS}
            ),
            signatures.consistent(t),
        )
    ),
    "another digest": says(
        lambda t: (first_resource(t).update(digest=ZEROS), signatures.consistent(t))
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_both_refuse(folder: Path, mine: Pair, name: str) -> None:
    mine.sign(folder)
    theirs_verify(folder, mine.public)
    read(folder, mine.trust)
    path = folder / "model.sig"
    path.write_bytes(HOSTILE[name](path.read_bytes(), mine))
    with pytest.raises(Exception):  # noqa: B017, PT011  theirs are of many kinds
        theirs_verify(folder, mine.public)
    with pytest.raises(Rejected) as reason:
        read(folder, mine.trust)
    assert len(str(reason.value)) < 400
    assert (
        "model.sig" in str(reason.value)
        or "is signed" in str(reason.value)
        or ("is not signed" in str(reason.value))
    )


def test_both_refuse_another_key(folder: Path, tmp_path: Path, mine: Pair) -> None:
    other = pair(tmp_path, "other")
    other.sign(folder)
    with pytest.raises(ValueError, match="Key mismatch"):
        theirs_verify(folder, mine.public)
    with pytest.raises(Rejected, match=r"is of the key .* which is not trusted"):
        read(folder, mine.trust)
    told = signatures.bundle_of((folder / "model.sig").read_bytes())
    hint = signatures.bundle_of(mine.signing.sign("m/3", {}))["verificationMaterial"]
    told["verificationMaterial"] = hint  # it says that it is of the right one
    (folder / "model.sig").write_text(json.dumps(told))
    with pytest.raises(Exception):  # noqa: B017, PT011
        theirs_verify(folder, mine.public)
    with pytest.raises(Rejected, match="was altered, or is not of a key that is trusted"):
        read(folder, mine.trust)


# --- what is refused here only: narrower than the format --------------------------------------

NARROWER: dict[str, tuple[Callable[[bytes, Pair], bytes], str]] = {
    "blake2": (
        says(lambda t: t["predicate"]["serialization"].update(hash_type="blake2")),
        "something else than the sha256 of files",
    ),
    "shards": (
        says(lambda t: t["predicate"]["serialization"].update(method="shards")),
        "something else than the sha256 of files",
    ),
    "a path": (
        says(lambda t: (first_resource(t).update(name="../x"), signatures.consistent(t))),
        "not a plain file name",
    ),
    "a name twice": (
        says(
            lambda t: (
                t["predicate"]["resources"].append(dict(first_resource(t))),
                signatures.consistent(t),
            )
        ),
        "a second time",
    ),
    "itself": (
        says(lambda t: (first_resource(t).update(name="model.sig"), signatures.consistent(t))),
        "must not list 'model.sig'",
    ),
    "two signatures": (
        bundle(lambda b: b["dsseEnvelope"].update(signatures=b["dsseEnvelope"]["signatures"] * 2)),
        "at most 1 item",
    ),
    "an unknown key": (bundle(lambda b: b.update(more=1)), "Extra inputs"),
    "keyless": (
        bundle(lambda b: b.update(verificationMaterial={"certificate": {"rawBytes": "AA=="}})),
        "keyless, which is not supported",
    ),
    "key and chain": (
        bundle(
            lambda b: b["verificationMaterial"].update(
                x509CertificateChain={"certificates": [{"rawBytes": "AA=="}]}
            )
        ),
        "neither a key nor a chain of certificates, or both",
    ),
    "a chain, though keys are trusted": (
        bundle(
            lambda b: b.update(
                verificationMaterial={
                    "x509CertificateChain": {"certificates": [{"rawBytes": "AA=="}]}
                }
            )
        ),
        "no root certificate is trusted",
    ),
    "huge": (lambda s, _: s + b" " * LONGEST_SIGNATURE_BYTES, "is larger than"),
}


@pytest.mark.parametrize("name", NARROWER)
def test_refused_here(folder: Path, mine: Pair, name: str) -> None:
    change, why = NARROWER[name]
    mine.sign(folder)
    path = folder / "model.sig"
    path.write_bytes(change(path.read_bytes(), mine))
    with pytest.raises(Rejected, match=why):
        read(folder, mine.trust)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_garbage_is_refused_with_a_sentence(text: bytes) -> None:
    with pytest.raises(Unverified):
        envelope.parse(text)
    with pytest.raises(Unverified):
        statement.digests(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.data())
def test_json_that_is_no_signature_is_refused_with_a_sentence(data: st.DataObject) -> None:
    """A right file in which some value, anywhere, is replaced by another one."""
    key = _key()
    told = signatures.bundle_of(key.sign("m/3", {"model.json": ZEROS}))
    places = list(_places(told))
    place = data.draw(st.sampled_from(places))
    value = data.draw(JSON)
    changed = copy.deepcopy(told)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    if inner[place[-1]] == value:
        return
    inner[place[-1]] = value
    trust = Trust(keys=(key.key.public_key(),))
    if place[-1] in {"keyid", "tlogEntries"} or place == ["verificationMaterial", "publicKey"]:
        accepted = {"keyid": str, "tlogEntries": list}.get(str(place[-1]), dict)
        if isinstance(value, accepted):
            return  # it says nothing that is believed
    if place[-1] == "hint" and not value and not isinstance(value, (bool, int, list, dict)):
        return  # without a hint each key is tried
    with pytest.raises(Unverified):
        trust.verify(json.dumps(changed).encode())


def _places(told: Any, before: tuple[Any, ...] = ()) -> Any:
    steps = told.items() if isinstance(told, dict) else enumerate(told)
    for step, inner in steps:
        yield [*before, step]
        if isinstance(inner, (dict, list)):
            yield from _places(inner, (*before, step))


def _key() -> Any:
    from service.signing.signing import SigningKey

    return SigningKey(ec.derive_private_key(7, ec.SECP256R1()))


# --- certificates -----------------------------------------------------------------------------


def signed_by(leaf: Issued, chain: Path | None, folder: Path) -> None:
    key = read_key(leaf.key_file, "--sign", None, chain)
    (folder / "model.sig").write_bytes(key.sign_version((folder / "model.json").read_bytes()))


def test_what_certificates_must_be(folder: Path, tmp_path: Path) -> None:
    root = issue(tmp_path, "root", authority=True)
    trust = read_trust(root.file, "--roots")
    stranger = issue(tmp_path, "stranger", authority=True)
    plain = issue(tmp_path, "plain", root)  # no authority
    short = issue(tmp_path, "short", root, authority=True, path_length=0)
    deeper = issue(tmp_path, "deeper", short, authority=True)
    chains = {
        "of a stranger": [issue(tmp_path, "a", stranger)],
        "of a stranger who brings his root": [issue(tmp_path, "b", stranger), stranger],
        "issued by one who may not": [issue(tmp_path, "c", plain), plain],
        "too long a path": [issue(tmp_path, "d", deeper), deeper, short],
        "without what is between": [issue(tmp_path, "e", short)],
        "signed by itself": [issue(tmp_path, "f")],
    }
    for what, certificates in chains.items():
        signed_by(certificates[0], signatures.chain_file(tmp_path, *certificates), folder)
        with pytest.raises(Rejected, match="does not lead to a root that is trusted"):
            pytest.fail(f"{what} was accepted: {read(folder, trust)}")
    for certificates in (
        [issue(tmp_path, "g", root)],
        [issue(tmp_path, "h", root, usage=["code"])],
        [issue(tmp_path, "i", short), short],
    ):
        signed_by(certificates[0], signatures.chain_file(tmp_path, *certificates), folder)
        assert read(folder, trust).signer.startswith("certificate CN=")


def test_a_certificate_for_something_else(folder: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    from service.signing.signing import SigningKey

    root = issue(tmp_path, "root", authority=True)
    leaf = issue(tmp_path, "leaf", root, usage=())
    text = (folder / "model.json").read_bytes()
    (folder / "model.sig").write_bytes(SigningKey(leaf.key, (leaf.certificate,)).sign_version(text))
    with pytest.raises(Rejected, match="is not for signing"):
        read(folder, read_trust(root.file, "--roots"))
    # A certificate of a key that did not sign.
    other = issue(tmp_path, "other", root)
    (folder / "model.sig").write_bytes(
        SigningKey(leaf.key, (other.certificate,)).sign_version(text)
    )
    with pytest.raises(Rejected, match="its certificate did not sign this"):
        read(folder, read_trust(root.file, "--roots"))
    # RSA, which the format does not have.
    key = rsa.generate_private_key(65537, 2048)
    odd = issue(tmp_path, "odd", root, key=key)
    told = signatures.bundle_of((folder / "model.sig").read_bytes())
    der = odd.certificate.public_bytes(serialization.Encoding.DER)
    told["verificationMaterial"]["x509CertificateChain"]["certificates"] = [
        {"rawBytes": base64.b64encode(der).decode()}
    ]
    (folder / "model.sig").write_text(json.dumps(told))
    with pytest.raises(Rejected, match=r"not of an elliptic-curve key|does not lead to a root"):
        read(folder, read_trust(root.file, "--roots"))
    told["verificationMaterial"]["x509CertificateChain"]["certificates"] = [{"rawBytes": "AA=="}]
    (folder / "model.sig").write_text(json.dumps(told))
    with pytest.raises(Rejected, match=r"a certificate in model\.sig is damaged"):
        read(folder, read_trust(root.file, "--roots"))


def test_what_was_signed_stays_signed_when_the_certificate_expires(
    folder: Path, tmp_path: Path
) -> None:
    root = issue(tmp_path, "root", authority=True)
    leaf = issue(tmp_path, "leaf", root, days=1)  # over since January 2026
    signed_by(leaf, signatures.chain_file(tmp_path, leaf), folder)
    assert read(folder, read_trust(root.file, "--roots")).signer == "certificate CN=leaf"
