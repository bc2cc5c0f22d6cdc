"""What others need to know of signatures; what reads them needs an extra package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.signing.keys import Trust

SIGNATURE_FILE = "model.sig"
LONGEST_SIGNATURE_BYTES = 1024 * 1024


class Unverified(Exception):
    """The signature does not hold, or says too little; the text is a sentence without any path."""


class TrustUnusable(Exception):
    """A file of keys cannot be used; the text is a sentence that says which and why."""


def trusted(path: Path, flag: str) -> Trust:
    """`keys.read_trust`; raises TrustUnusable also if the extra is missing."""
    try:
        from service.signing.keys import read_trust
    except ImportError:
        raise TrustUnusable(
            f"{flag} needs the extra [signing]: pip install 'foldserve[signing]'."
        ) from None
    return read_trust(path, flag)
