"""Whether two manifests describe the same model: what `--if-changed` asks.

version          not compared: the same model may be published twice
serving          not compared: the operator edits it
certificate      compared in one point: a model that was certified is not the same as one that
                 was not yet. The checker may be another by now, its words and figures too; the
                 graphs are told apart by `files`
everything else  must be equal
"""

from __future__ import annotations

import json
from typing import Any

from service.certificate import KEY

# Keys of model.json that the operator may edit.
OPERATORS = {"serving"}


def same_model(there: bytes, mine: bytes, *, version: bool = True) -> bool:
    """Whether the model that was published is the one that would be published now.

    Args:
        there: the model.json of a version; damaged, it is not the same as anything.
        mine: the one that would be written.
        version: whether its number must be the same, too.
    """
    unread = {*OPERATORS} if version else {*OPERATORS, "version"}
    theirs, ours = _compared(there, unread), _compared(mine, unread)
    if theirs is None or ours is None or theirs[0] != ours[0]:
        return False
    return theirs[1] or not ours[1]


def _compared(content: bytes, unread: set[str]) -> tuple[dict[str, Any], bool] | None:
    """What of a manifest is compared, and whether it holds a certificate for every input."""
    try:
        manifest = json.loads(content)
    except ValueError:
        return None
    if not isinstance(manifest, dict):
        return None
    left = {key: value for key, value in manifest.items() if key not in unread}
    certificate = None
    if isinstance(provenance := left.get("provenance"), dict):
        certificate = provenance.get(KEY)
        left["provenance"] = {key: value for key, value in provenance.items() if key != KEY}
    return left, isinstance(certificate, dict) and certificate.get("certified") is True
