"""schemathesis, which nobody here wrote, reads /openapi.json and tries what it promises.

Every operation: its examples, the borders of its schemas, and a few random requests. Each answer
must have a status, headers and a body that the document describes, what the document forbids must
be refused, and nothing may end in a 500.

One of its checks is left out: that every request of the documented shape succeeds. The shapes
and names of tensors belong to the model and not to the document.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_server_does_what_its_document_says(server, tmp_path: Path):
    done = subprocess.run(
        [
            sys.executable, "-W", "error", "-m", "schemathesis.cli",
            "run", f"{server.url}/openapi.json", "--phases", "examples,coverage,fuzzing",
            "--max-examples", "3", "--seed", "1", "--exclude-checks", "positive_data_acceptance",
            "--warnings", "off", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "NO_PROXY": "*"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "Tested: " in done.stdout
    assert "Traceback" not in server.err
