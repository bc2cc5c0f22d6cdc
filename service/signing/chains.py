"""From the certificate that signed to a root that is trusted.

The path is built and checked by `cryptography`: signatures, validity, basic constraints, path
lengths, name constraints, and no critical extension that it does not know. The time of the check
is the beginning of the signing certificate, as in the package model-signing: a signature does not
say when it was made, so what a certificate has signed stays signed when it expires. To take trust
back, take the root out of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from service.signing.envelope import MOST_CERTIFICATES
from service.signing.names import SIGNATURE_FILE, Unverified


def signing_certificate(
    chain: Sequence[bytes], roots: Iterable[x509.Certificate]
) -> x509.Certificate:
    """The first certificate of a chain, once it has been followed to a root.

    Args:
        chain: DER, the signing certificate first.
        roots: which are trusted; those of `chain` are not.

    Raises:
        Unverified: a certificate is damaged, leads to none of the roots, or is not for signing.
    """
    try:
        first, *others = (x509.load_der_x509_certificate(each) for each in chain)
        time = first.not_valid_before_utc
    except ValueError:
        raise Unverified(f"a certificate in {SIGNATURE_FILE} is damaged") from None
    verifier = (
        PolicyBuilder()
        .store(Store(list(roots)))
        .time(time)
        .max_chain_depth(MOST_CERTIFICATES)
        .extension_policies(ca_policy=_authorities(), ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(first, others)
    except (VerificationError, ValueError):
        raise Unverified(
            f"the certificate in {SIGNATURE_FILE} does not lead to a root that is trusted"
        ) from None
    if not may_sign(first):
        raise Unverified(f"the certificate in {SIGNATURE_FILE} is not for signing")
    return first


def _authorities() -> ExtensionPolicy:
    """A certificate that issues others must say that it may."""
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_issue)
    )


def _is_authority(
    policy: Policy,  # noqa: ARG001
    certificate: x509.Certificate,  # noqa: ARG001
    found: x509.BasicConstraints,
) -> None:
    if not found.ca:
        raise ValueError("it is no authority")


def _may_issue(
    policy: Policy,  # noqa: ARG001
    certificate: x509.Certificate,  # noqa: ARG001
    found: x509.KeyUsage | None,
) -> None:
    if found is not None and not found.key_cert_sign:
        raise ValueError("it may not issue certificates")


def may_sign(certificate: x509.Certificate) -> bool:
    """Whether it has the key usage digitalSignature or the extended key usage codeSigning."""
    try:
        extensions = certificate.extensions
    except ValueError:
        return False
    usages = [each.value for each in extensions]
    return any(
        (isinstance(usage, x509.KeyUsage) and usage.digital_signature)
        or (isinstance(usage, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.CODE_SIGNING in usage)
        for usage in usages
    )
