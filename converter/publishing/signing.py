"""The key that signs what is published, read before minutes of work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from converter.errors import UserError

if TYPE_CHECKING:
    from service.signing.signing import SigningKey


def signing_key(path: Path, chain: Path | None = None) -> SigningKey:
    """The private key of --sign.

    Args:
        path: a PEM file; the key's password is in the variable SIGNING_KEY_PASSWORD.
        chain: a PEM file of certificates, that of the key first.

    Raises:
        UserError: a file cannot be used, or the extra [signing] is missing.
    """
    try:
        from service.signing.keys import TrustUnusable
        from service.signing.signing import PASSWORD_VARIABLE, read_key
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise UserError(
            "--sign needs the package cryptography.", "pip install 'foldserve[signing]'"
        ) from None
    try:
        return read_key(path, "--sign", os.environ.get(PASSWORD_VARIABLE), chain)
    except TrustUnusable as error:
        raise UserError(str(error)) from None
