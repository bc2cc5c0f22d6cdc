"""A server in a process of its own, from its first line to its end."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def serving(command: Sequence[str], **options: Any) -> Iterator[str]:
    """Run `command` until the block ends, and give its address once its banner says it is ready.

    A server that does not end by SIGTERM with exit code 0 fails the test.

    Args:
        options: of `subprocess.Popen`, as `cwd` and `env`.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    ) as server:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line)
            if line.startswith("  ready "):
                break
        found = re.search(r"^  url +(\S+)", "".join(said), flags=re.MULTILINE)
        try:
            assert found, "".join(said)
            yield found[1]
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=90)  # its last lines must find a reader
        assert server.returncode == 0, "".join(said)
