"""Who is trusted: the public keys and the root certificates of one PEM file.

A signature counts if one of the keys has made it, or a certificate that leads to one of the roots.
So keys are changed without a gap: the new one is added to the file, versions are signed with it,
and the old one is taken out.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.signing import chains, envelope, names, statement
from service.signing.envelope import Envelope
from service.signing.names import SIGNATURE_FILE, Unverified

_LARGEST_FILE_BYTES = 1024 * 1024
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?-----END \1-----", re.DOTALL)
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
# The curves of the specification, each with the hash that goes with it.
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_CURVES = "an elliptic-curve key on P-256, P-384 or P-521"
TrustUnusable = names.TrustUnusable
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that holds. `signer`: whose it is; `digests`: sha256 of each file, by name."""

    signer: str
    digests: dict[str, str]


@dataclass(frozen=True, slots=True)
class Trust:
    """The keys and the root certificates of which a signature counts; at least one of either."""

    keys: tuple[ec.EllipticCurvePublicKey, ...] = ()
    roots: tuple[x509.Certificate, ...] = ()

    def verify(self, text: bytes) -> Verified:
        """Whose signature a signature file is, and what it signs.

        Raises:
            Unverified: it is damaged, or not of one of those who are trusted.
        """
        found = envelope.parse(text)
        signer = self._by_certificate(found) if found.chain else self._by_key(found)
        return Verified(signer, statement.digests(found.payload))

    def _by_key(self, found: Envelope) -> str:
        if not self.keys:
            raise Unverified(f"{SIGNATURE_FILE} has no certificates, and only such are trusted")
        of_hint = [key for key in self.keys if found.hint in {None, fingerprint(key)}]
        if not of_hint:
            raise Unverified(
                f"{SIGNATURE_FILE} is of the key {str(found.hint)[:16]!r}, which is not trusted"
            )
        for key in of_hint:
            if signed_by(key, found):
                return f"key {fingerprint(key)[:16]}"
        raise Unverified(f"{SIGNATURE_FILE} was altered, or is not of a key that is trusted")

    def _by_certificate(self, found: Envelope) -> str:
        if not self.roots:
            raise Unverified(
                f"{SIGNATURE_FILE} is of a certificate, and no root certificate is trusted"
            )
        certificate = chains.signing_certificate(found.chain, self.roots)
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
            raise Unverified(f"the certificate in {SIGNATURE_FILE} is not of {_CURVES}")
        if not signed_by(key, found):
            raise Unverified(f"{SIGNATURE_FILE} was altered: its certificate did not sign this")
        who = certificate.subject.rfc4514_string()[:200] or fingerprint(key)[:16]
        return f"certificate {who}"


def signed_by(key: ec.EllipticCurvePublicKey, found: Envelope) -> bool:
    """Whether the envelope's signature is of that key."""
    try:
        signed = envelope.pae(found.payload)
        key.verify(found.signature, signed, ec.ECDSA(hash_of(key)))
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


def hash_of(key: ec.EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    """The hash that goes with the key's curve; a KeyError for a curve that is not supported."""
    return _HASHES[key.curve.name]


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """sha256 of the key's PEM, in hex: the hint that signature files give."""
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(pem).hexdigest()


def read_trust(path: Path, flag: str) -> Trust:
    """The keys and root certificates of a PEM file.

    Args:
        flag: the option that named it, for messages.

    Raises:
        TrustUnusable: missing, too large, not PEM, a private key, or a kind that is not supported.
    """
    content = read_pem(path, flag)
    keys: list[ec.EllipticCurvePublicKey] = []
    roots: list[x509.Certificate] = []
    for block, kind in blocks(content, path, flag):
        if "PRIVATE KEY" in kind:
            raise TrustUnusable(
                f"{flag}: {path} holds a private key, which only who signs may have. Give the "
                "public one: openssl pkey -in KEY -pubout -out PUBLIC."
            )
        if kind == "PUBLIC KEY":
            keys.append(_public_key(block, path, flag))
        elif kind == "CERTIFICATE":
            roots.append(certificate_of(block, path, flag))
        else:
            raise TrustUnusable(f"{flag}: {path} holds a {kind}, not a PUBLIC KEY or CERTIFICATE.")
    return Trust(tuple(keys), tuple(roots))


def read_pem(path: Path, flag: str) -> bytes:
    """A small file.

    Raises:
        TrustUnusable: it cannot be read, or is too large.
    """
    try:
        if not path.is_file():
            raise TrustUnusable(f"{flag}: there is no file {path}.")
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise TrustUnusable(f"{flag}: {path} cannot be read: {error.strerror}.") from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise TrustUnusable(f"{flag}: {path} is larger than {_LARGEST_FILE_BYTES} bytes.")
    return content


def blocks(content: bytes, path: Path, flag: str) -> list[tuple[bytes, str]]:
    """The blocks of a PEM file, each with its kind, such as PUBLIC KEY.

    Raises:
        TrustUnusable: there is none, or one of them has no end.
    """
    found = [(match[0] + b"\n", match[1].decode()) for match in _BLOCK.finditer(content)]
    if not found or len(found) != len(_BEGIN.findall(content)):
        raise TrustUnusable(f"{flag}: {path} is not a file of keys or certificates in PEM.")
    return found


def certificate_of(block: bytes, path: Path, flag: str) -> x509.Certificate:
    """A certificate.

    Raises:
        TrustUnusable: it is damaged.
    """
    try:
        return x509.load_pem_x509_certificate(block)
    except _UNREADABLE:
        raise TrustUnusable(f"{flag}: {path} holds a damaged certificate.") from None


def _public_key(block: bytes, path: Path, flag: str) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(block)
    except _UNREADABLE:
        raise TrustUnusable(f"{flag}: {path} holds a damaged public key.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise TrustUnusable(f"{flag}: {path} holds another key than {_CURVES}.")
    return key


def check_curve(key: object, path: Path, flag: str) -> ec.EllipticCurvePrivateKey:
    """The same key, if it can sign.

    Raises:
        TrustUnusable: it is of another kind.
    """
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _HASHES:
        raise TrustUnusable(f"{flag}: {path} holds another key than {_CURVES}.")
    return key
