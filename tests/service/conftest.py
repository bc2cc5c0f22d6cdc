"""Real servers in subprocesses, on free ports of 127.0.0.1."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import repository
from onnx import TensorProto

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

URL = re.compile(r"^  url +(https?://\S+)$", re.MULTILINE)


class Served:
    """A server process. `url` is known once it has printed what it serves."""

    def __init__(self, models: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("FOLDSERVE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "--models", str(models), "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, **(env or {})},
        )
        self._out: list[str] = []
        self._err: list[str] = []
        self._readers = [
            threading.Thread(target=self._collect, args=(pipe, lines), daemon=True)
            for pipe, lines in (
                (self.process.stdout, self._out),
                (self.process.stderr, self._err),
            )
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _collect(pipe, lines: list[str]) -> None:
        lines.extend(pipe)  # line by line, as they come

    @property
    def out(self) -> str:
        return "".join(self._out)

    @property
    def err(self) -> str:
        return "".join(self._err)

    def wait_for(self, text: str, timeout_s: float = 60) -> None:
        end = time.monotonic() + timeout_s
        while text not in self.out and text not in self.err:
            assert self.process.poll() is None, f"the server ended: {self.out}{self.err}"
            assert time.monotonic() < end, f"no {text!r} in: {self.out}{self.err}"
            time.sleep(0.01)

    @property
    def url(self) -> str:
        self.wait_for("  ready ")
        found = URL.search(self.out)
        assert found, self.out
        return found[1]

    def client(self, **kwargs) -> httpx.Client:
        # verify=False only spares the reading of certificates that plain HTTP never needs
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, verify=False, **kwargs)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal, wait, and the exit code."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        """Wait, close the pipes, and the exit code; the same when it has ended already."""
        code = self.process.wait(timeout=60)
        for reader in self._readers:
            reader.join(60)
            assert not reader.is_alive(), "a process that the server has left holds its pipes"
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Served]]:
    """Start a server; what still runs at the end is killed."""
    running: list[Served] = []

    def begin(models: Path, *flags: str, env: dict[str, str] | None = None) -> Served:
        running.append(Served(models, *flags, env=env))
        return running[-1]

    yield begin
    for served in running:
        if served.process.poll() is None:
            served.process.kill()
        served.end()


CLASSIFIER = {"output": "scores", "labels": ["ant", "bee", "cat"]}


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one model for each thing that a request can get wrong."""
    root = tmp_path_factory.mktemp("zoo")
    x = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    repository.publish(
        root, "animals", repository.linear(), test={"x": x}, classification=CLASSIFIER,
        batch_invariant=True,
    )  # fmt: skip
    publish = repository.publish
    publish(root, "pair", repository.pair(), batch_invariant=True)
    publish(root, "embedding", repository.embedding())
    publish(root, "log", repository.elementwise("Log", TensorProto.FLOAT))
    publish(root, "half", repository.elementwise("Neg", TensorProto.FLOAT16))
    publish(root, "double", repository.elementwise("Neg", TensorProto.DOUBLE))
    publish(root, "int64", repository.elementwise("Neg", TensorProto.INT64))
    publish(root, "int8", repository.elementwise("Neg", TensorProto.INT8))
    publish(root, "uint8", repository.elementwise("Identity", TensorProto.UINT8))
    publish(root, "not", repository.elementwise("Not", TensorProto.BOOL))
    publish(root, "fixed", repository.linear(batch=2))
    publish(root, "scalar", repository.elementwise("Neg", TensorProto.FLOAT, ()))
    publish(root, "free", repository.elementwise("Neg", TensorProto.FLOAT, ("batch", "time")))
    publish(root, "image", repository.elementwise("Neg", TensorProto.FLOAT, ("batch", 3, 4, 4)))
    return root


@pytest.fixture(scope="session")
def server(start, zoo: Path) -> Served:
    """The server most tests share: the zoo, small body limit, animals as the default."""
    return start(zoo, "--default-model", "animals", "--max-body-bytes", "2000000")


@pytest.fixture(scope="session")
def client(server: Served) -> Iterator[httpx.Client]:
    with server.client() as open_client:
        yield open_client


# One for a module: while it runs, this thread has an event loop.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    if found is None:
        assert not os.environ.get("ALL_TOOLS_REQUIRED"), "no Chromium"
        pytest.skip("no Chromium (Debian: apt install chromium)")
    with playwright.chromium.launch(executable_path=found, args=["--no-sandbox"]) as launched:
        yield launched


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address; at the end nothing may have gone wrong that the test did not expect."""
    pages: list[tuple[Page, list[str], str]] = []

    def visit(url: str, **options: Any) -> Page:
        page = browser.new_page(**options)
        page.set_default_timeout(20_000)
        said: list[str] = []
        folder = url.rpartition("/")[0] + "/"
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("console", lambda m: said.append(f"{m.type}: {m.text}"))
        page.on(
            "request",
            lambda r: None if r.url.startswith((folder, "blob:")) else said.append(r.url),
        )
        pages.append((page, said, url))
        page.goto(url)
        return page

    yield visit
    for page, said, _ in pages:
        # The browser itself logs each answer of 4xx and each refused connection.
        own = [text for text in said if "Failed to load resource" not in text]
        page.close()
        assert own == []
