"""Neither half calls anybody or leaves anything at home, and what they start does not, either.

onnxruntime's telemetry writes a file as soon as it is imported, and looks an address up about 9
seconds after the first session was made (1.31.1): so long the server is watched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "models" / "mnist" / "checkpoint.pt"
EXAMPLE = ROOT / "models" / "mnist" / "example.json"
LOOKS_UP_AFTER_S = 12
# The variable as a user might have it, who does not know of it or who has set it to nothing.
NOT_SAID = [None, "", "0"]


def environment(home: Path, said: str | None = None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    kept = {k: v for k, v in kept.items() if not k.startswith(("XDG_", "FOLDSERVE_"))}
    more = {} if said is None else {"ORT_DISABLE_TELEMETRY": said}
    return kept | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | more


def traced(log: Path, *command: str) -> list[str]:
    """`command` with every call of its processes that may leave the machine written to `log`."""
    tool = shutil.which("strace")
    reason = None if tool else "strace is not installed (Debian: apt install strace)"
    if tool:
        begin = [tool, "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg"]
        may = subprocess.run([tool, "-f", "true"], capture_output=True, text=True, check=False)
        if may.returncode == 0:
            return [*begin, "-o", str(log), *command]
        reason = f"strace may not look here: {may.stderr[:200]}"
    assert not os.environ.get("ALL_TOOLS_REQUIRED"), reason
    pytest.skip(str(reason))


def calls(log: Path) -> list[str]:
    """What went to an address, other than to a port of this machine that is no name server's."""
    inner = re.compile(r'htons\((?!53\)).*(inet_addr\("127\.|"::1"|"::ffff:127\.)')
    lines = log.read_text().splitlines()
    return [line for line in lines if "sa_family=AF_INET" in line and not inner.search(line)]


def test_a_look_up_would_be_seen(tmp_path: Path) -> None:
    program = "import socket\ntry: socket.getaddrinfo('nobody.invalid', 443)\nexcept OSError: pass"
    log = tmp_path / "log"
    subprocess.run(
        traced(log, sys.executable, "-c", program), check=True, env=environment(tmp_path)
    )
    assert calls(log), log.read_text()


def test_a_fold_and_a_server_call_nobody_and_leave_home_empty(tmp_path: Path) -> None:
    home, models = tmp_path / "home", tmp_path / "models"
    home.mkdir()
    folding, serving = tmp_path / "folding", tmp_path / "serving"
    program = [sys.executable, "-m"]
    fold = [*program, "converter", "fold", str(CHECKPOINT), "--publish", str(models / "mnist")]
    subprocess.run(
        traced(folding, *fold), env=environment(home), check=True, capture_output=True, cwd=ROOT
    )
    assert calls(folding) == []
    assert list(home.iterdir()) == []

    serve = [*program, "service", "--models", str(models), "--port", "0", "--workers", "2"]
    with subprocess.Popen(
        traced(serving, *serve), env=environment(home), stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as server:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        url = next(found[1] for line in lines if (found := re.search(r"url +(http\S+)", line)))
        try:
            assert any("ready" in line for line in lines)
            end = time.monotonic() + LOOKS_UP_AFTER_S
            while time.monotonic() < end:
                asked = urllib.request.Request(url + "/predict", EXAMPLE.read_bytes())
                asked.add_header("Content-Type", "application/json")
                with urllib.request.urlopen(asked) as answer:
                    assert json.load(answer)["outputs"]
                time.sleep(0.5)
        finally:
            server.send_signal(signal.SIGTERM)  # strace hands it on
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
            for child in children.split():
                os.kill(int(child), signal.SIGTERM)
            server.wait(60)
    assert calls(serving) == []
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("package", ["converter", "service", "benchmarks"])
@pytest.mark.parametrize("said", NOT_SAID)
def test_the_package_alone_is_enough_whatever_was_set(
    package: str, said: str | None, tmp_path: Path
) -> None:
    """Also for a process that is started by one that has imported it, as a peer of a benchmark."""
    program = (
        f"import {package}, subprocess, sys; import onnxruntime\n"
        "subprocess.run([sys.executable, '-c', 'import onnxruntime'], check=True)"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(tmp_path, said), check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["service", "converter"])
def test_the_images_say_it_as_well(file: str) -> None:
    text = (ROOT / "docker" / f"{file}.Dockerfile").read_text()
    last_stage = text.rpartition("FROM ")[2]
    assert "ORT_DISABLE_TELEMETRY=1" in last_stage
