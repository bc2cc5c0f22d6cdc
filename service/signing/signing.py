"""The side that signs: a private key, with or without certificates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.manifest import MANIFEST_FILE
from service.signing import chains, envelope, keys, statement
from service.signing.envelope import Envelope
from service.signing.keys import TrustUnusable
from service.signing.names import Unverified

PASSWORD_VARIABLE = "SIGNING_KEY_PASSWORD"  # noqa: S105  the name of a variable


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and the certificates of it if there are any, the signing one first."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    def sign_version(self, manifest: bytes) -> bytes:
        """The signature file of a version.

        No file is read for it: model.json has the sha256 of all the others.

        Args:
            manifest: the bytes of its model.json, as it will lie there.
        """
        told = json.loads(manifest)
        files = {name: entry["sha256"] for name, entry in told["files"].items()}
        files[MANIFEST_FILE] = hashlib.sha256(manifest).hexdigest()
        return self.sign(f"{told['name']}/{told['version']}", files)

    def sign(self, subject: str, files: Mapping[str, str]) -> bytes:
        """The signature file for files of these sha256 (in hex, by name)."""
        payload = statement.payload_of(subject, files)
        public = self.key.public_key()
        made = self.key.sign(envelope.pae(payload), ec.ECDSA(keys.hash_of(public)))
        der = serialization.Encoding.DER
        chain = tuple(each.public_bytes(der) for each in self.chain)
        return envelope.text_of(Envelope(payload, made, keys.fingerprint(public), chain))

    def made(self, text: bytes, manifest: bytes) -> bool:
        """Whether a signature file is of this key, in the same way, and signs that model.json."""
        try:
            found = envelope.parse(text)
            signed = statement.digests(found.payload)
        except Unverified:
            return False
        return (
            keys.signed_by(self.key.public_key(), found)
            and bool(found.chain) == bool(self.chain)
            and signed.get(MANIFEST_FILE) == hashlib.sha256(manifest).hexdigest()
        )


def read_key(path: Path, flag: str, password: str | None, chain: Path | None = None) -> SigningKey:
    """A private key out of a PEM file.

    Args:
        flag: the option that named it, for messages.
        password: of the key, if it has one.
        chain: a PEM file of certificates, that of the key first.

    Raises:
        TrustUnusable: one of the files is missing, damaged, encrypted, or of another kind; or the
            first certificate is not of the key.
    """
    content = keys.read_pem(path, flag)
    if not any("PRIVATE KEY" in kind for _, kind in keys.blocks(content, path, flag)):
        raise TrustUnusable(f"{flag}: {path} holds no private key.")
    try:
        loaded = serialization.load_pem_private_key(content, (password or "").encode() or None)
    except TypeError as error:  # a password is missing, or there is one too many
        needed = "needs its password in" if password is None else "has no password; unset"
        raise TrustUnusable(f"{flag}: the key in {path} {needed} {PASSWORD_VARIABLE}.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        why = f", or {PASSWORD_VARIABLE} is not its password" if password else ""
        raise TrustUnusable(f"{flag}: the private key in {path} is damaged{why}.") from error
    key = keys.check_curve(loaded, path, flag)
    if chain is None:
        return SigningKey(key)
    flag = f"{flag}-chain"
    found = tuple(
        keys.certificate_of(block, chain, flag)
        for block, kind in keys.blocks(keys.read_pem(chain, flag), chain, flag)
        if kind == "CERTIFICATE"
    )
    if not found or found[0].public_key() != key.public_key():
        raise TrustUnusable(
            f"{flag}: the first certificate in {chain} must be that of the key in {path}."
        )
    if not chains.may_sign(found[0]):
        raise TrustUnusable(
            f"{flag}: the first certificate in {chain} is not for signing: it needs the key usage "
            "digitalSignature or the extended key usage codeSigning."
        )
    return SigningKey(key, found)
