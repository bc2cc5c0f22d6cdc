"""Every example of docs/protocols.md, run as it stands (but for the ports)."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import httpx
import pytest
from conftest import Served

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ports(start) -> dict[str, str]:
    """The ports of the text, and those of a server with the model that ships."""
    served: Served = start(ROOT / "models", "--grpc-port", "0")
    http = served.url.rpartition(":")[2]
    grpc = re.search(r"^  grpc +\S+:(\d+)$", served.out, re.MULTILINE)
    assert grpc
    return {"127.0.0.1:8000": f"127.0.0.1:{http}", "127.0.0.1:8001": f"127.0.0.1:{grpc[1]}"}


def here(text: str, ports: dict[str, str]) -> str:
    for written, real in ports.items():
        text = text.replace(written, real)
    return text


def test_there_is_an_example_of_each_protocol():
    python = "".join(blocks("python"))
    for client in ("tritonclient.http", "tritonclient.grpc", ":predict", "x-npy", "image/png"):
        assert client in python


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_runs(ports: dict[str, str], code: str):
    assert "assert " in code
    exec(compile(here(code, ports), "protocols.md", "exec"), {})


def test_the_curl_answers(ports: dict[str, str]):
    (command,) = blocks("sh")
    match shlex.split(here(command, ports)):
        case ["curl", "--json", body, url]:
            content = (ROOT / body.removeprefix("@")).read_bytes()
            assert httpx.post(url, content=content).json()["predictions"][0]["label"] == "7"
        case other:
            pytest.fail(f"nobody runs this command: {other}")


def test_the_errors_are_as_the_table_says(ports: dict[str, str]):
    base = f"http://{ports['127.0.0.1:8000']}"
    for path, keys in (
        ("/predict", {"code", "message", "hint"}),
        ("/v2/models/mnist/infer", {"error"}),
        ("/v1/models/mnist:predict", {"error"}),
    ):
        assert set(json.loads(httpx.post(base + path, content=b"{}").content)) == keys
