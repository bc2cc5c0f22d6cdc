"""The files of TLS: what cannot be used, when it is said, and when it expires."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from authority import NOW, Authority, Pair, encrypted
from cryptography import x509

from service.tls import validity
from service.tls.certificates import Certificates, CertificatesUnusable

ROOT = Authority()
PAIR, OTHER = ROOT.pair(), ROOT.pair("another server of the tests")
DAY = timedelta(days=1)


def certificates(folder: Path, pair: Pair = PAIR, **options: Callable[[], object]) -> Certificates:
    return Certificates(*pair.write(folder, "server"), **options)


# --- from when to when ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "life"),
    [
        (NOW, timedelta(hours=6)),
        (datetime(1999, 12, 31, 23, 59, 58, tzinfo=UTC), 10 * DAY),
        (datetime(2049, 6, 1, tzinfo=UTC), 900 * DAY),  # from 2050 on, times have another form
    ],
)
def test_the_times_are_those_that_another_reader_finds(since: datetime, life: timedelta):
    pair = ROOT.pair(since=since, life=life)
    found = validity.of_pem((pair.certificate + ROOT.certificate).decode())
    other = x509.load_pem_x509_certificate(pair.certificate)
    assert found.not_before == other.not_valid_before_utc.timestamp()
    assert found.not_after == other.not_valid_after_utc.timestamp()


def test_what_is_no_certificate_is_told_as_such():
    der = ssl.PEM_cert_to_DER_cert(PAIR.certificate.decode())
    for size in range(0, len(der) - 1, 7):
        with pytest.raises(ValueError, match="certificate"):
            validity.of_pem(ssl.DER_cert_to_PEM_cert(der[:size]))
    for text in ("", "-----END CERTIFICATE----------BEGIN CERTIFICATE-----", "x" * 100):
        with pytest.raises(ValueError, match="no certificate in PEM"):
            validity.of_pem(text)


# --- what cannot be used ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("certificate", "key", "roots", "why"),
    [
        (None, PAIR.key, None, "--tls-certificate: .* cannot be read: No such file"),
        (PAIR.certificate, None, None, "--tls-key: .* cannot be read: No such file"),
        (b"nothing", PAIR.key, None, "--tls-certificate: .* has no certificate in PEM"),
        (PAIR.key, PAIR.key, None, "--tls-certificate: .* has no certificate in PEM"),
        (PAIR.certificate, OTHER.key, None, "is not the private key of the certificate"),
        (PAIR.certificate, b"nothing", None, "is not the private key of the certificate"),
        (PAIR.certificate, encrypted(PAIR, b"secret"), None, "is encrypted.*openssl pkey"),
        (PAIR.certificate, PAIR.key, b"", "--tls-client-ca: .* is no PEM with root"),
        (PAIR.certificate, PAIR.key, PAIR.key, "--tls-client-ca: .* is no PEM with root"),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_reason(
    tmp_path: Path,
    certificate: bytes | None,
    key: bytes | None,
    roots: bytes | None,
    why: str,
):
    paths = []
    for name, content in (("crt", certificate), ("key", key), ("ca", roots)):
        paths.append(tmp_path / name)
        if content is not None:
            paths[-1].write_bytes(content)
    with pytest.raises(CertificatesUnusable, match=why) as told:
        Certificates(paths[0], paths[1], None if roots is None else paths[2])
    assert "PRIVATE KEY-" not in str(told.value)


def test_one_file_may_hold_both(tmp_path: Path):
    both = tmp_path / "both.pem"
    both.write_bytes(PAIR.key + PAIR.certificate)
    assert Certificates(both, both).now.client_ca is None


# --- what changes -----------------------------------------------------------------------


def test_a_new_pair_is_used_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    failures: list[None] = []
    used = certificates(tmp_path, failed=lambda: failures.append(None))
    first = used.now
    assert not used.refresh()
    OTHER.write(tmp_path, "server")
    assert used.refresh()
    second = used.now
    assert second.context is not first.context
    assert second.certificate == OTHER.certificate

    (tmp_path / "server.key").write_bytes(PAIR.key)
    for _ in range(5):
        assert not used.refresh()
    (tmp_path / "server.crt").unlink()
    for _ in range(5):
        assert not used.refresh()
    assert used.now is second
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(said) == len(failures) == 2
    assert "stays as it was" in said[0]
    assert "is not the private key" in said[0]
    assert "cannot be read" in said[1]

    PAIR.write(tmp_path, "server")
    assert used.refresh()
    assert used.now.certificate == PAIR.certificate


def test_half_of_a_change_is_waited_for_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    used = certificates(tmp_path)
    (tmp_path / "server.crt").write_bytes(OTHER.certificate)
    assert not used.refresh()
    (tmp_path / "server.key").write_bytes(OTHER.key)
    assert used.refresh()
    assert caplog.records == []
    (tmp_path / "server.key").write_bytes(PAIR.key)
    assert not used.refresh(force=True)  # who asks is told at once
    assert "stays as it was" in caplog.text


def test_a_link_that_is_turned_is_a_change(tmp_path: Path):
    """As Kubernetes replaces the files of a Secret: all at once, by one link."""
    for name, pair in (("old", PAIR), ("new", OTHER)):
        pair.write(tmp_path / name, "server")
    now = tmp_path / "now"
    now.symlink_to(tmp_path / "old")
    used = Certificates(now / "server.crt", now / "server.key")
    (tmp_path / "next").symlink_to(tmp_path / "new")
    (tmp_path / "next").replace(now)
    assert used.refresh()
    assert used.now.certificate == OTHER.certificate


@pytest.mark.parametrize(
    ("since", "life", "said"),
    [
        (NOW - 80 * DAY, 90 * DAY, "expires on"),
        (NOW - 70 * DAY, 90 * DAY, ""),
        (NOW - 2 * DAY, 6 * DAY, ""),
        (NOW - 5 * DAY, 6 * DAY, "expires on"),
        (NOW - 91 * DAY, 90 * DAY, "has expired on"),
    ],
)
def test_it_is_said_once_that_the_end_is_near(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, since: datetime, life: timedelta, said: str
):
    used = certificates(tmp_path, ROOT.pair(since=since, life=life))
    for _ in range(3):
        used.refresh()
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == bool(said)
    assert said in "".join(told)
