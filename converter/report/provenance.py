"""What a report was made from, by which versions, and when."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from converter.system.program import typed
from service.store.address import redacted

PACKAGES = ("foldserve", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "torch")


def describe_provenance(path: Path) -> dict[str, Any]:
    """File name and SHA-256, versions, command and date.

    The date is that of SOURCE_DATE_EPOCH if it is set (reproducible-builds.org). A folder has
    no hash; of a model whose weights are in files beside it, the model file alone is hashed.
    """
    sha256, size = None, None
    if path.is_file():
        size = path.stat().st_size
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "file": path.name,
        "sha256": sha256,
        "bytes": size,
        "command": redacted(typed()),
        "date": _now().isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{package: found for package in PACKAGES if (found := _version(package))},
        },
    }


def _now() -> datetime:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
