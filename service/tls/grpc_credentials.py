"""The server's certificate as gRPC takes it: asked for anew with each handshake."""

from __future__ import annotations

from typing import Any

import grpc

from service.tls.certificates import Certificates, Loaded


def credentials(certificates: Certificates) -> Any:
    """What `add_secure_port` takes; follows `certificates` as its files change."""
    given = certificates.now

    def changed() -> Any:
        """The configuration, or None if it is the one that gRPC has."""
        nonlocal given
        now = certificates.now
        if now is given:
            return None
        given = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given), changed, require_client_authentication=given.client_ca is not None
    )


def _configuration(loaded: Loaded) -> Any:
    pair = loaded.key, loaded.certificate
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=loaded.client_ca)
