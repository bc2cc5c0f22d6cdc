"""Keys, certificates, and signed version folders for tests."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from service.signing import envelope, keys
from service.signing.keys import Trust, read_trust
from service.signing.signing import SigningKey, read_key

_PEM = serialization.Encoding.PEM
_BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass
class Pair:
    """A private key and its public one, as objects and as files."""

    private: Path
    public: Path
    signing: SigningKey
    trust: Trust

    def sign(self, folder: Path) -> Path:
        """Write model.sig into a version folder that has a model.json."""
        text = (folder / "model.json").read_bytes()
        (folder / "model.sig").write_bytes(self.signing.sign_version(text))
        return folder


def pair(folder: Path, name: str = "sign", curve: ec.EllipticCurve | None = None) -> Pair:
    """A new key, written to NAME.key and NAME.pub."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    write_private(private, key)
    public.write_bytes(
        key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return Pair(private, public, read_key(private, "--sign", None), read_trust(public, "--key"))


def write_private(
    path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: str | None = None
) -> None:
    how: Any = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    path.write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, how))


@dataclass
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any
    file: Path
    key_file: Path = field(default=Path())


def issue(
    folder: Path,
    name: str,
    by: Issued | None = None,
    *,
    authority: bool = False,
    path_length: int | None = None,
    usage: Sequence[str] = ("signature",),
    days: int = 365,
    key: Any = None,
) -> Issued:
    """A certificate in NAME.pem with its key in NAME.key, signed by itself if nobody is named.

    Args:
        usage: of `signature` (key usage digitalSignature) and `code` (codeSigning).
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = by.certificate.subject if by else subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_BEGIN + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(authority, path_length if authority else None), True)
    )
    if "signature" in usage or authority:
        builder = builder.add_extension(
            x509.KeyUsage("signature" in usage, *[False] * 4, authority, *[False] * 3), True
        )
    if "code" in usage:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False
        )
    made = builder.sign(by.key if by else key, hashes.SHA256())
    issued = Issued(made, key, folder / f"{name}.pem", folder / f"{name}.key")
    issued.file.write_bytes(made.public_bytes(_PEM))
    write_private(issued.key_file, key)
    return issued


def chain_file(folder: Path, *issued: Issued) -> Path:
    """One file of certificates, the signing one first."""
    path = folder / "chain.pem"
    path.write_bytes(b"".join(each.file.read_bytes() for each in issued))
    return path


# --- signature files as nobody honest writes them -----------------------------------------


def bundle_of(signature: bytes) -> dict[str, Any]:
    return json.loads(signature)  # type: ignore[no-any-return]


def statement_of(signature: bytes) -> dict[str, Any]:
    """What is signed."""
    payload = base64.b64decode(bundle_of(signature)["dsseEnvelope"]["payload"])
    return json.loads(payload)  # type: ignore[no-any-return]


def signed(statement: dict[str, Any], key: SigningKey) -> bytes:
    """A signature file with any statement, rightly signed."""
    payload = json.dumps(statement).encode()
    made = key.key.sign(envelope.pae(payload), ec.ECDSA(hashes.SHA256()))
    hint = keys.fingerprint(key.key.public_key())
    der = tuple(each.public_bytes(serialization.Encoding.DER) for each in key.chain)
    return envelope.text_of(envelope.Envelope(payload, made, hint, der))


def consistent(statement: dict[str, Any]) -> dict[str, Any]:
    """The same with the digest of all digests as it must be."""
    resources = statement["predicate"]["resources"]
    root = hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources))
    statement["subject"][0]["digest"] = {"sha256": root.hexdigest()}
    return statement
