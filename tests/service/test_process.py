"""The command: what it prints, how it fails, how it ends, what it imports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import repository
from repository import linear, publish

pytestmark = pytest.mark.slow

X = np.random.default_rng(2).standard_normal((2, 4)).astype(np.float32)


def command(*flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FOLDSERVE_")}
    return subprocess.run(
        [sys.executable, "-m", "service", *flags],
        capture_output=True, text=True, timeout=60, env={**clean, **environ},
    )  # fmt: skip


def test_says_what_it_serves(server):
    url = server.url
    lines = server.out.splitlines()
    assert lines[0].startswith("Foldserve ")
    assert f"  url      {url}" in lines
    assert f"  docs     {url}/docs" in lines
    animals = next(line for line in lines if " animals version 1 " in line)
    assert "CPUExecutionProvider, self-test passed" in animals
    assert any("threads" in line and "CPU affinity" in line for line in lines)
    assert lines[-1] == "  ready    yes"


def sentence(result: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    for text in texts:
        assert text in result.stderr


def test_a_busy_port(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = command("--port", port, "--models", str(tmp_path))
    sentence(result, 1, f"port {port} on 127.0.0.1 is in use", "--port")


@pytest.mark.parametrize(
    ("host", "text"),
    [("203.0.113.1", "not an address of this machine"), ("no.such.host.invalid", "is unknown")],
)
def test_a_host_that_is_not_ours(tmp_path: Path, host: str, text: str):
    sentence(command("--host", host, "--port", "0", "--models", str(tmp_path)), 1, text, "--host")


def test_a_missing_models_folder(tmp_path: Path):
    result = command("--models", str(tmp_path / "nope"))
    sentence(result, 1, "nope' does not exist", "--models")
    (tmp_path / "file").touch()
    sentence(command("--models", str(tmp_path / "file")), 1, "file' does not exist")


def test_wrong_settings():
    sentence(command("--port", "70000"), 2, "--port='70000' cannot be used", "--help")
    sentence(command("--no-such-flag"), 2, "unknown argument --no-such-flag")
    sentence(command(FOLDSERVE_DEVICE="tpu"), 2, "FOLDSERVE_DEVICE='tpu'", "'cuda'")
    sentence(
        command(FOLDSERVE_MODEL="m"), 2, "FOLDSERVE_MODEL is not a setting", "FOLDSERVE_MODELS"
    )


def test_help():
    result = command("--help")
    assert result.returncode == 0
    assert "--max-body-bytes" in result.stdout


def test_a_default_model_that_is_not_there_is_said_aloud(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    served = start(tmp_path, "--default-model", "n")
    with served.client() as client:
        response = client.post("/predict", json={"inputs": X.tolist()})
        assert (response.status_code, response.json()["code"]) == (404, "unknown_model")
        assert client.get("/health/ready").status_code == 200
    assert "NOTICE   --default-model 'n' is not in the repository" in served.out
    assert served.stop() == 0


def test_threads_are_what_was_asked_for(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    served = start(tmp_path, env={"FOLDSERVE_THREADS": "3"})
    assert served.url
    assert "threads  3 for each model" in served.out
    assert served.stop() == 0


# --- the end ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_code_0(start, tmp_path: Path, number: int):
    publish(tmp_path, "m", linear())
    served = start(tmp_path)
    assert served.url
    assert served.stop(number) == 0
    assert served.err == ""


# --- what is imported -------------------------------------------------------------------

IMPORTS = """
import asyncio, json, sys
from functools import partial
from pathlib import Path
from service import device
from service.models import model
from service.app import create_app
from service.context import Context
from service.models.registry import Registry
from service.settings_read import parse
import service.server, service.__main__
import uvloop, httptools, uvicorn.protocols.http.httptools_impl

registry = Registry(
    Path(sys.argv[1]),
    partial(model.load, choice=device.choose("cpu"), threads=1, capacity_samples=8),
)
registry.load()
app = create_app(Context(registry, parse([], {})))

async def ask(method, path, body=b""):
    sent = []
    async def receive():
        return {"type": "http.request", "body": body}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(),
             "query_string": b"", "headers": [], "root_path": "", "scheme": "http",
             "http_version": "1.1", "asgi": {"version": "3.0"}, "server": ("x", 80)}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])

answer = asyncio.run(ask("POST", "/predict", sys.argv[2].encode()))
docs = asyncio.run(ask("GET", "/openapi.json"))
registry.close(5)
print(json.dumps({"answer": answer, "docs": docs[0], "modules": sorted(sys.modules)}))
"""


def test_no_training_framework_is_imported(tmp_path: Path):
    publish(tmp_path, "m", linear(), test={"x": X})
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(tmp_path), json.dumps({"inputs": X.tolist()})],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    scores = repository.reference(linear(), {"x": X})["scores"]
    status, answer = found["answer"]
    assert status == 200
    np.testing.assert_allclose(answer["outputs"]["scores"], scores, rtol=1e-5)
    assert found["docs"] == 200
    roots = {name.partition(".")[0] for name in found["modules"]}
    assert {"service", "onnxruntime", "fastapi", "uvicorn"} <= roots
    banned = {"converter", "torch", "onnx", "keras", "tensorflow", "onnxscript", "onnx_ir", "timm"}
    assert not roots & banned
    heavy = {
        "scipy",
        "pandas",
        "sympy",
        "PIL",
        "rich",
        "cyclopts",
        "IPython",
        "matplotlib",
        "websockets",
    }
    heavy |= {"fsspec", "aiohttp", "botocore"}  # only for models from an address
    assert not roots & heavy


def test_the_real_process_maps_no_training_framework(server, client: httpx.Client):
    """The same, from outside: no library of torch is in the memory of the running server."""
    maps = Path(f"/proc/{server.process.pid}/maps")
    if not maps.exists():
        pytest.skip("no /proc here")
    assert client.post("/predict", json={"inputs": X.tolist()}).status_code == 200
    files = maps.read_text()
    assert "onnxruntime" in files
    assert "libtorch" not in files
    assert "onnx_cpp2py" not in files


def test_connections_get_their_files_or_it_says_so(tmp_path: Path):
    """In processes of their own: a limit that was lowered cannot be raised again."""
    code = (
        "import resource, logging, sys\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "from service.assembly import allow_files\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))\n"
        "allow_files(500)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )

    def run(hard: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(hard)],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip

    assert run(1000) == "756\n"
    short = run(300)
    assert short.endswith("300\n")
    assert "500 connections (--max-connections) need 756 files, the system allows 300" in short


def test_a_signal_while_a_model_is_loading_ends_it_with_code_0(start, tmp_path: Path):
    """Its warm-up takes minutes, in the runtime's own code, which must not be pulled away."""
    publish(tmp_path, "endless", repository.slow(50_000_000))
    served = start(tmp_path, "--port", str(port := free_port()))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        while True:
            try:
                response = client.get("/health/ready")
                break
            except httpx.ConnectError:
                assert served.process.poll() is None
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    assert served.stop() == 0
    assert served.err == ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
