"""The certificate of the server, its key, and whose clients may come in: files that may change.

    --tls-certificate   PEM: the server's certificate, and behind it those that lead to the root
    --tls-key           PEM: its private key, not encrypted
    --tls-client-ca     PEM: roots; a client must then have a certificate that one of them signed

They are looked at once a second and on SIGHUP, and what has changed is tried as a whole before it
is used: new connections then have the new certificate, over HTTP and over gRPC. Files that do not
belong together, as between the writing of the one and of the other, leave everything as it was; it
is said if that lasts for more than one look.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from service.tls import validity

logger = logging.getLogger("foldserve.tls")

_DAY_S = 86_400.0
# An expiry is near in the last quarter of a certificate's life, but not before two weeks: those of
# three months are renewed with a month left, those of six days with days.
_NEAR_S = 14 * _DAY_S
_NEAR_SHARE = 0.25

Stamp = tuple[tuple[int, int, int], ...]


class CertificatesUnusable(Exception):
    """The files cannot be used; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Files that belong together.

    `context`: for connections from now on. `certificate`, `key`, `client_ca`: their bytes, PEM; the
    last is None where clients need no certificate.
    """

    context: ssl.SSLContext
    certificate: bytes
    key: bytes
    client_ca: bytes | None
    validity: validity.Validity


class Certificates:
    """What new connections are secured with: `now`.

    Args:
        certificate, key, client_ca: the files.
        failed: told once of each change that could not be used.

    Raises:
        CertificatesUnusable: they cannot be used.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        client_ca: Path | None = None,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._files = {"--tls-certificate": certificate, "--tls-key": key}
        if client_ca is not None:
            self._files["--tls-client-ca"] = client_ca
        self.failed = failed
        self._stamp: Stamp | None = self._look()
        self._tried: Stamp | None = None  # what could not be used at the last look
        self._said: Stamp | None = None  # of which it was said
        self._warned = -_DAY_S  # when it was last said that the expiry is near
        self.now = self._load()
        self.warn()

    def refresh(self, *, force: bool = False) -> bool:
        """Use the files anew if they have changed (or if forced to); whether they are used."""
        self.warn()
        stamp: Stamp | None = None
        try:
            stamp = self._look()
            if stamp == self._stamp and not force:
                return False
            loaded = self._load()
            if self._look() != stamp:
                return False  # they are being written: at the next look
        except CertificatesUnusable as error:
            # Two files are never replaced at the same moment: this may be half of a change.
            if (force or stamp == self._tried) and (force or stamp != self._said):
                self._said = stamp
                self.failed()
                logger.error("the TLS certificate stays as it was: %s", error)
            self._tried = stamp
            return False
        self.now, self._stamp = loaded, stamp
        self._tried = self._said = None
        self._warned = -_DAY_S
        logger.info("the TLS certificate was read again: it holds until %s", self._until())
        self.warn()
        return True

    def warn(self) -> None:
        """Say once a day that the certificate expires soon, or has expired."""
        holds, now = self.now.validity, time.time()
        left = holds.not_after - now
        if left > min(_NEAR_S, _NEAR_SHARE * (holds.not_after - holds.not_before)):
            return
        if time.monotonic() - self._warned < _DAY_S:
            return
        self._warned = time.monotonic()
        how = "has expired" if left <= 0 else "expires"
        logger.warning(
            "the TLS certificate %s on %s: put a new one into the file of --tls-certificate",
            how, self._until(),
        )  # fmt: skip

    def _until(self) -> str:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.now.validity.not_after))

    def _look(self) -> Stamp:
        """Differs after every change of a file, also when a link was turned to another one."""
        stamps = []
        for flag, path in self._files.items():
            try:
                status = path.stat()
            except OSError as error:
                raise _unreadable(flag, path, error) from None
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(stamps)

    def _load(self) -> Loaded:
        content: dict[str, bytes] = {}
        for flag, path in self._files.items():
            try:
                content[flag] = path.read_bytes()
            except OSError as error:
                raise _unreadable(flag, path, error) from None
        certificate, key = self._files["--tls-certificate"], self._files["--tls-key"]
        try:
            holds = validity.of_pem(content["--tls-certificate"].decode("ascii", "replace"))
        except ValueError as error:
            raise CertificatesUnusable(
                f"--tls-certificate: {certificate}: {error}. It must be PEM, the server's own "
                "certificate first."
            ) from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(certificate, key, password=_refuse_password)
        except _Encrypted:
            raise CertificatesUnusable(
                f"--tls-key: {key} is encrypted, and nobody is there to type its password. Decrypt "
                "it: openssl pkey -in KEY -out PLAIN"
            ) from None
        except (ssl.SSLError, OSError) as error:
            raise CertificatesUnusable(
                f"--tls-key: {key} is not the private key of the certificate in {certificate}, or "
                f"one of them is no PEM ({_reason(error)})."
            ) from None
        roots = content.get("--tls-client-ca")
        if roots is not None:
            self._ask_clients(context, roots)
        return Loaded(context, content["--tls-certificate"], content["--tls-key"], roots, holds)

    def _ask_clients(self, context: ssl.SSLContext, roots: bytes) -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=roots.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            path = self._files["--tls-client-ca"]
            raise CertificatesUnusable(
                f"--tls-client-ca: {path} is no PEM with root certificates ({_reason(error)})."
            ) from None


class _Encrypted(Exception):
    """The key wants a password."""


def _refuse_password() -> NoReturn:
    raise _Encrypted


def _unreadable(flag: str, path: Path, error: OSError) -> CertificatesUnusable:
    return CertificatesUnusable(f"{flag}: {path} cannot be read: {error.strerror}.")


def _reason(error: Exception) -> str:
    reason: Any = getattr(error, "reason", None)
    return str(reason or error).lower().replace("_", " ")
