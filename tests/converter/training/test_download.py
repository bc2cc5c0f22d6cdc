"""The download, against real servers on the loopback address that misbehave on purpose."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from converter.errors import UserError
from converter.training import Progress, download, fashion, mnist

Handler = Callable[[BaseHTTPRequestHandler], None]
Start = Callable[[Handler], tuple[str, list[str]]]  # -> the mirror's URL, what it is asked for


class Mirror(BaseHTTPRequestHandler):
    """Answers as `act` does, and remembers what was asked for."""

    act: Handler
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        type(self).act(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silence."""


@contextmanager
def serving(act: Handler) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Mirror", (Mirror,), {"act": staticmethod(act), "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/mnist/", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as servers:
        yield lambda act: servers.enter_context(serving(act))


@pytest.fixture(scope="session")
def sha256(subset: Path) -> dict[str, str]:
    """The checksums of the subset, which stands for the real files."""
    return {
        stem: hashlib.sha256((subset / f"{stem}.gz").read_bytes()).hexdigest()
        for stem in mnist.COMPRESSED_SHA256
    }


@pytest.fixture
def good(subset: Path) -> Handler:
    def act(request: BaseHTTPRequestHandler) -> None:
        reply(request, (subset / Path(request.path).name).read_bytes())

    return act


def reply(request: BaseHTTPRequestHandler, body: bytes, promised: int | None = None) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(body) if promised is None else promised))
    request.end_headers()
    request.wfile.write(body)


def like(checksums: Mapping[str, str], *mirrors: str) -> download.Origin:
    """MNIST from other mirrors with other checksums."""
    return replace(download.MNIST, mirrors=mirrors, checksums=checksums)


class Heard(Progress):
    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.arrived: list[tuple[int, int | None]] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def received(self, done: int, total: int | None) -> None:
        self.arrived.append((done, total))


def test_the_four_files_arrive_once(
    tmp_path: Path, start: Start, good: Handler, sha256: dict[str, str]
) -> None:
    url, asked = start(good)
    folder = download.fetch(tmp_path / "cache", origin=like(sha256, url))
    assert sorted(asked) == sorted(f"/mnist/{stem}.gz" for stem in sha256)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{s}.gz" for s in sha256)
    assert len(mnist.load(folder).train) == 1000

    download.fetch(folder, origin=like(sha256, url))
    assert len(asked) == 4


@pytest.mark.parametrize("damage", [b"", b"\x1f\x8b", b"not what it was"])
def test_a_damaged_file_of_the_cache_is_fetched_again(
    tmp_path: Path, start: Start, good: Handler, sha256: dict[str, str], damage: bytes
) -> None:
    url, asked = start(good)
    folder = download.fetch(tmp_path, origin=like(sha256, url))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(damage)
    download.fetch(folder, origin=like(sha256, url))
    assert asked[4:] == ["/mnist/t10k-labels-idx1-ubyte.gz"]
    assert len(mnist.load(folder).test) == 500


def not_found(request: BaseHTTPRequestHandler) -> None:
    request.send_error(404)


def web_page(request: BaseHTTPRequestHandler) -> None:
    reply(request, b"<html>Sign in to this network</html>")


def cut_off(request: BaseHTTPRequestHandler) -> None:
    reply(request, b"\x1f\x8b\x08\x00", promised=1000)


def not_http(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"220 ready\r\n")


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range((download.LARGEST >> 20) + 8):
            request.wfile.write(bytes(1 << 20))
    except OSError:
        pass


def silent(request: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)


def trickle(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(30):
            request.wfile.write(bytes(1 << 16))
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (not_found, "404 Client Error"),
        (web_page, "does not match the known hash"),
        (cut_off, "4 bytes read, 996 more expected"),
        (not_http, "220 ready"),
        (endless, "more than 33554432 bytes"),
        (silent, "timed out"),
        (trickle, "not complete in the time"),
    ],
)
def test_a_mirror_that_fails_is_followed_by_the_next(
    tmp_path: Path, start: Start, good: Handler, sha256: dict[str, str], bad: Handler, why: str
) -> None:
    one = {"t10k-labels-idx1-ubyte": sha256["t10k-labels-idx1-ubyte"]}
    first, _ = start(bad)
    second, asked = start(good)
    heard = Heard()
    folder = download.fetch(
        tmp_path, origin=like(one, first, second), silence=0.3, longest=0.5, progress=heard
    )
    assert asked == ["/mnist/t10k-labels-idx1-ubyte.gz"]
    assert any(sentence.startswith(first) and why in sentence for sentence in heard.sentences)
    assert [path.name for path in folder.iterdir()] == ["t10k-labels-idx1-ubyte.gz"]


def test_nobody_listening_is_followed_by_the_next(
    tmp_path: Path, start: Start, good: Handler, sha256: dict[str, str]
) -> None:
    with serving(not_found) as (gone, _):
        pass
    second, asked = start(good)
    heard = Heard()
    download.fetch(tmp_path, origin=like(sha256, gone, second), progress=heard)
    assert len(asked) == 4
    assert any(sentence.endswith("Connection refused") for sentence in heard.sentences)


def test_the_right_format_with_the_wrong_content_is_refused(
    tmp_path: Path, start: Start, good: Handler, sha256: dict[str, str]
) -> None:
    url, _ = start(good)
    stem = "train-images-idx3-ubyte"
    with pytest.raises(UserError) as raised:
        download.fetch(tmp_path, origin=like({stem: mnist.COMPRESSED_SHA256[stem]}, url))
    assert f"{url}{stem}.gz: SHA256 hash" in str(raised.value)
    assert f"but got {sha256[stem]}" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_when_all_mirrors_fail_the_error_says_what_to_do(tmp_path: Path, start: Start) -> None:
    first, _ = start(not_found)
    second, _ = start(cut_off)
    with pytest.raises(UserError, match=r"no mirror gave train-images-idx3-ubyte\.gz") as raised:
        download.fetch(tmp_path, origin=like(mnist.COMPRESSED_SHA256, first, second))
    assert first in raised.value.message
    assert second in raised.value.message
    assert "use --data-dir" in raised.value.hint
    assert all(f"{stem}[.gz]" in raised.value.hint for stem in mnist.SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_the_users_to_know(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be made") as raised:
        download.fetch(tmp_path / "file" / "mnist")
    assert "use --data-dir" in raised.value.hint


def test_the_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / "foldserve" / "mnist"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        expected = tmp_path / "home" / ".cache" / "foldserve" / "mnist"
        assert download.cache_folder() == expected


def test_the_mirrors_are_asked_over_tls() -> None:
    for origin in (download.MNIST, download.FASHION_MNIST):
        assert all(url.startswith("https://") and url.endswith("/") for url in origin.mirrors)


def test_a_checksum_is_pinned_for_each_of_the_four_files() -> None:
    for checksums in (mnist.SHA256, mnist.COMPRESSED_SHA256, fashion.COMPRESSED_SHA256):
        assert len(checksums) == 4
        assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in checksums.values())


@pytest.mark.parametrize("kept", [0, 80_000])
def test_a_broken_transfer_leaves_nothing_behind(
    tmp_path: Path, start: Start, subset: Path, sha256: dict[str, str], kept: int
) -> None:
    images = "train-images-idx3-ubyte"  # 163 kB
    body = (subset / f"{images}.gz").read_bytes()
    url, _ = start(lambda request: reply(request, body[:kept], promised=len(body)))
    old = tmp_path / f"{images}.gz"
    old.write_bytes(b"what was there before")
    with pytest.raises(UserError, match=f"{kept} bytes read"):
        download.fetch(tmp_path, origin=like({images: sha256[images]}, url))
    assert old.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [old]


def test_the_listener_hears_how_much_has_arrived(
    tmp_path: Path, start: Start, good: Handler, sha256: dict[str, str], subset: Path
) -> None:
    url, _ = start(good)
    heard = Heard()
    images = "train-images-idx3-ubyte"
    size = (subset / f"{images}.gz").stat().st_size
    download.fetch(tmp_path, origin=like({images: sha256[images]}, url), progress=heard)
    assert heard.sentences == [f"downloading {url}{images}.gz"]
    assert heard.arrived[0] == (0, size)
    assert heard.arrived[-1] == (size, size)
    assert sorted(heard.arrived) == heard.arrived
