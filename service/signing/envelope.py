"""The signature file: a Sigstore bundle, and in it a DSSE envelope.

    {"mediaType": ..., "verificationMaterial": {publicKey | x509CertificateChain},
     "dsseEnvelope": {"payload": base64, "payloadType": ..., "signatures": [{"sig": base64}]}}

What is signed is not the payload but its pre-authentication encoding (`pae`), which holds the type
and the length too. Nothing of an envelope is to be believed before its signature is verified.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from service.manifest import first_problem
from service.signing.names import LONGEST_SIGNATURE_BYTES, SIGNATURE_FILE, Unverified

MOST_CERTIFICATES = 16
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a signature file holds, none of it verified.

    `payload`: the bytes of the statement. `signature`: of `pae(payload)`, DER.
    `hint`: which key is said to have signed, sha256 of its PEM in hex; None if it is not said.
    `chain`: certificates, DER, the signing one first; empty where a bare key has signed.
    """

    payload: bytes
    signature: bytes
    hint: str | None
    chain: tuple[bytes, ...]


def pae(payload: bytes) -> bytes:
    """The bytes that are signed for a payload of our type (DSSE v1.0.0, protocol.md)."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _decoded(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("it is no text")
    content = base64.b64decode(value, validate=True)
    if _encoded(content) != value:  # the last letter has bits that say nothing
        raise ValueError("it is no canonical base64")
    return content


_Base64 = Annotated[bytes, BeforeValidator(_decoded)]


class _Part(BaseModel):
    """A key that is not known is refused: what is not understood is not trusted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _PublicKey(_Part):
    hint: str | None = None


class _Certificate(_Part):
    rawBytes: _Base64  # noqa: N815  as it is called in the file


class _Chain(_Part):
    certificates: list[_Certificate] = Field(min_length=1, max_length=MOST_CERTIFICATES)


class _Material(_Part):
    publicKey: _PublicKey | None = None  # noqa: N815
    x509CertificateChain: _Chain | None = None  # noqa: N815
    # Of keyless signatures: times and proofs of servers, which are not asked here.
    certificate: object = None
    timestampVerificationData: object = None  # noqa: N815
    tlogEntries: list[object] = []  # noqa: N815


class _Signature(_Part):
    sig: _Base64
    keyid: str = ""


class _Dsse(_Part):
    payload: _Base64
    payloadType: str  # noqa: N815
    signatures: list[_Signature] = Field(min_length=1, max_length=1)


class _Bundle(_Part):
    mediaType: str  # noqa: N815
    verificationMaterial: _Material  # noqa: N815
    dsseEnvelope: _Dsse  # noqa: N815


def parse(text: bytes) -> Envelope:
    """The envelope in a signature file.

    Raises:
        Unverified: it is too large, damaged, or signed in a way that is not supported.
    """
    if len(text) > LONGEST_SIGNATURE_BYTES:
        raise Unverified(f"{SIGNATURE_FILE} is larger than {LONGEST_SIGNATURE_BYTES} bytes")
    try:
        bundle = _Bundle.model_validate_json(text)
    except ValidationError as error:
        raise Unverified(f"{SIGNATURE_FILE} is not a signature: {first_problem(error)}") from None
    material, dsse = bundle.verificationMaterial, bundle.dsseEnvelope
    if bundle.mediaType != MEDIA_TYPE:
        raise Unverified(f"{SIGNATURE_FILE} is a {bundle.mediaType[:100]!r}, not a {MEDIA_TYPE!r}")
    if dsse.payloadType != PAYLOAD_TYPE:
        raise Unverified(
            f"{SIGNATURE_FILE} signs a {dsse.payloadType[:100]!r}, not a {PAYLOAD_TYPE!r}"
        )
    if (material.publicKey is None) == (material.x509CertificateChain is None):
        keyless = ": it is keyless, which is not supported" if material.certificate else ""
        raise Unverified(
            f"{SIGNATURE_FILE} names neither a key nor a chain of certificates, or both{keyless}"
        )
    return Envelope(
        payload=dsse.payload,
        signature=dsse.signatures[0].sig,
        hint=material.publicKey.hint or None if material.publicKey else None,
        chain=tuple(
            each.rawBytes
            for each in (
                material.x509CertificateChain.certificates if material.x509CertificateChain else ()
            )
        ),
    )


def text_of(envelope: Envelope) -> bytes:
    """The signature file of an envelope."""
    if envelope.chain:
        certificates = [{"rawBytes": _encoded(each)} for each in envelope.chain]
        material: dict[str, object] = {"x509CertificateChain": {"certificates": certificates}}
    else:
        material = {"publicKey": {"hint": envelope.hint}}
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {**material, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": _encoded(envelope.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _encoded(envelope.signature), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode() + b"\n"


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
