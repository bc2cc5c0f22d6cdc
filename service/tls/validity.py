"""From when to when a certificate holds, read out of its DER.

Python's `ssl` tells it only of a certificate that a peer has sent and that was verified. What is
walked over here is the front of

    Certificate     SEQUENCE { tbsCertificate, ... }
    TBSCertificate  SEQUENCE { [0] version, serialNumber, signature, issuer, validity, ... }
    Validity        SEQUENCE { notBefore, notAfter }

each element a tag, a length and its content. Source: RFC 5280, 4.1 and 4.1.2.5; X.690, 8.1.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_SEQUENCE, _VERSION = 0x30, 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_LONG_LENGTH = 0x80
_PIVOT = 50  # of two digits, the years from here on are of the twentieth century


@dataclass(frozen=True, slots=True)
class Validity:
    """Both in Unix time, seconds."""

    not_before: float
    not_after: float


def of_pem(text: str) -> Validity:
    """Of the first certificate of a chain, which is the server's own.

    Args:
        text: PEM, as a file for `ssl.SSLContext.load_cert_chain` has it.

    Raises:
        ValueError: there is none, or it is not what RFC 5280 says.
    """
    begin, end = text.find(_BEGIN), text.find(_END)
    if not 0 <= begin < end:
        raise ValueError("it has no certificate in PEM")
    der = ssl.PEM_cert_to_DER_cert(text[begin : end + len(_END)])
    try:
        return _of_der(der)
    except IndexError:
        raise ValueError("its certificate is cut off") from None


def _of_der(der: bytes) -> Validity:
    body = _content(_content(der, _SEQUENCE), _SEQUENCE)
    if body[0] == _VERSION:
        body = _element(body)[2]
    for _ in range(3):  # serialNumber, signature, issuer
        body = _element(body)[2]
    times = _content(body, _SEQUENCE)
    first, not_before, rest = _element(times)
    second, not_after, _ = _element(rest)
    return Validity(_time(first, not_before), _time(second, not_after))


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The tag and the content of the first element, and what is behind it."""
    tag, length, start = data[0], data[1], 2
    if length >= _LONG_LENGTH:
        size = length - _LONG_LENGTH
        start += size
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        raise IndexError
    return tag, data[start : start + length], data[start + length :]


def _content(data: bytes, wanted: int) -> bytes:
    tag, content, _ = _element(data)
    if tag != wanted:
        raise ValueError("its certificate is no X.509")
    return content


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= _PIVOT else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("its certificate has no times")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
