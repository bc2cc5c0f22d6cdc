"""Certificates for TLS, made for a test: an authority, and what it signs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Into NAME.crt and NAME.key, which are returned."""
        folder.mkdir(exist_ok=True, parents=True)
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return certificate, key


class Authority:
    """A root and what it signs for 127.0.0.1 and localhost."""

    def __init__(self, name: str = "a root of the tests") -> None:
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())

    @cached_property
    def certificate(self) -> bytes:
        """The root itself, PEM."""
        return _pem(_built(self._name, self._key, self._name, self._key, YEAR, authority=True))

    def pair(
        self,
        name: str = "a server of the tests",
        *,
        life: timedelta = YEAR,
        since: datetime = NOW - timedelta(minutes=5),
    ) -> Pair:
        """A new key with a certificate from `since` on, for `life`."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _built(name, key, self._name, self._key, life, since=since)
        return Pair(_pem(made), _private(key))


def encrypted(pair: Pair, password: bytes) -> bytes:
    """The key of a pair, PEM, readable with a password."""
    key = serialization.load_pem_private_key(pair.key, None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )


def _built(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    life: timedelta,
    *,
    since: datetime = NOW - timedelta(minutes=5),
    authority: bool = False,
) -> x509.Certificate:
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + life)
        .add_extension(x509.BasicConstraints(authority, None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if authority:
        usage = x509.KeyUsage(*[False] * 5, True, True, False, False)
        builder = builder.add_extension(usage, True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
