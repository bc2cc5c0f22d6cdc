"""What is signed: the sha256 of every file of a version but the signature itself.

The statement does not name the model: a signed folder may be moved, says the specification. What
binds it to a name and a number is that model.json holds both and is one of the signed files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.manifest import first_problem
from service.signing.names import SIGNATURE_FILE, Unverified

STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Literal["https://model_signing/signature/v1.0"] = (
    "https://model_signing/signature/v1.0"
)

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Digest(_Part):
    sha256: _Sha256


class _Subject(_Part):
    digest: _Digest


class _Serialization(_Part):
    method: Literal["files"]
    hash_type: Literal["sha256"]


class _Resource(_Part):
    name: str
    algorithm: Literal["sha256"]
    digest: _Sha256


class _Predicate(_Part):
    serialization: _Serialization
    resources: list[_Resource] = Field(min_length=1)


class _Statement(_Part):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[_Subject] = Field(min_length=1, max_length=1)
    predicateType: Literal["https://model_signing/signature/v1.0"]  # noqa: N815
    predicate: _Predicate


def digests(payload: bytes) -> dict[str, str]:
    """The sha256 of each file that a statement lists, in hex, by the file's name.

    Its `ignore_paths` are not heeded: a reader decides for himself what may lie there unsigned.

    Args:
        payload: of an envelope whose signature was verified.

    Raises:
        Unverified: another kind of statement, other hashes than sha256 of whole files, names that
            are not plain, or digests that do not go together.
    """
    try:
        statement = _Statement.model_validate_json(payload)
    except ValidationError as error:
        raise Unverified(
            f"{SIGNATURE_FILE} signs something else than the sha256 of files: "
            f"{first_problem(error)}"
        ) from None
    found: dict[str, str] = {}
    root = hashlib.sha256()
    for resource in statement.predicate.resources:
        name = resource.name
        if PurePosixPath(name).name != name or "\\" in name or not name.isprintable():
            raise Unverified(
                f"{SIGNATURE_FILE} signs {name[:200]!r}, which is not a plain file name of "
                "the version folder"
            )
        if name in found or name == SIGNATURE_FILE:
            raise Unverified(f"{SIGNATURE_FILE} must not list {name[:200]!r} a second time")
        found[name] = resource.digest
        root.update(bytes.fromhex(resource.digest))
    if root.hexdigest() != statement.subject[0].digest.sha256:
        raise Unverified(f"the digests in {SIGNATURE_FILE} do not go together")
    return found


def payload_of(subject: str, files: Mapping[str, str]) -> bytes:
    """The statement for a version.

    Args:
        subject: what it is called, for people.
        files: the sha256 of each file in hex, by name.
    """
    root = hashlib.sha256()
    for name in sorted(files):
        root.update(bytes.fromhex(files[name]))
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": subject, "digest": {"sha256": root.hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_FILE],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": files[name]}
                for name in sorted(files)
            ],
        },
    }
    return json.dumps(statement, indent=2).encode()
