"""Models from a store: what comes is whole and checked, or it is not served."""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import repository
from repository import linear

from service import source
from service.listen import CannotStart
from service.models import policy
from service.models.bundle import UNFETCHED_FILE
from service.settings_read import parse
from service.store import cache as caching
from service.store import download as downloading
from service.store import mirror as mirroring
from service.store.access import Store, StoreError, StoreUnusable
from service.store.address import identity, is_address, redacted, scheme
from service.store.cache import folder_of
from service.store.mirror import Mirror
from tests import s3

if TYPE_CHECKING:
    from conftest import Served


pytestmark = s3.MARKS


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """The store's side, as a folder that fsspec reads by its address."""
    folder = tmp_path / "remote"
    repository.publish(folder, "m", linear())
    return folder


def follow(remote: Path | str, folder: Path, wanted: str = "latest", **how: Any) -> Mirror:
    address = remote if isinstance(remote, str) else f"file://{remote}"
    return Mirror(Store(address, attempts=1), folder, policy.parse(wanted), **how)


@pytest.fixture
def mirror(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    monkeypatch.setattr(mirroring, "_FIRST_PAUSE_S", 0)
    return follow(remote, tmp_path / "cache" / "mirror")


def versions(mirror: Mirror, name: str = "m") -> list[str]:
    folder = mirror.folder / name
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def reason(mirror: Mirror, version: int = 1, name: str = "m") -> str:
    folder = mirror.folder / name / str(version)
    assert [path.name for path in folder.iterdir()] == [UNFETCHED_FILE]
    return (folder / UNFETCHED_FILE).read_text()


# --- addresses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/models", True),
        ("https://example.org/models/", True),
        ("hf://someone/models", True),
        ("models", False),
        ("/srv/models", False),
        ("C:\\models", False),
        ("s3:", False),
        ("s3://", False),
    ],
)
def test_what_an_address_is(text: str, expected: bool) -> None:
    assert is_address(text) is expected
    assert isinstance(parse(["--models", text], {}).models, str) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:secret@host/models", "https://***@host/models"),
        ("https://secret@host/models", "https://***@host/models"),
        ("a b 'https://me:sec@ret@host/m' c@d", "a b 'https://***@host/m' c@d"),
        ("az://c/m?sig=secret&st=secret", "az://c/m?sig=***&st=***"),
        ("hf://someone/models@main/x", "hf://someone/models@main/x"),
        ("s3://bucket/models", "s3://bucket/models"),
    ],
)
def test_what_is_shown_of_an_address(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_each_address_has_a_folder_of_its_own(tmp_path: Path) -> None:
    one = folder_of("s3://a/models", tmp_path)
    assert one.parent == tmp_path
    assert one == folder_of("s3://a/models/", tmp_path)
    assert one != folder_of("s3://b/models", tmp_path)
    assert identity("https://me:one@host/m?t=1") == identity("https://me:two@host/m?t=2")
    assert identity("abfs://one@host/m") != identity("abfs://two@host/m")


# --- what is not installed --------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "module", "extra"),
    [
        ("s3://b/models", "s3fs", "s3"),
        ("gs://b/models", "gcsfs", "gcs"),
        ("az://b/models", "adlfs", "azure"),
        ("hf://b/models", "huggingface_hub", "hf"),
        ("https://b/models", "aiohttp", "store"),
        ("s3://b/models", "fsspec", "s3"),
        ("ftp://b/models", "fsspec", "store"),
    ],
)
def test_the_extra_that_is_missing_is_named(
    address: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [name for name in sys.modules if name.startswith("fsspec.implementations.http")]:
        monkeypatch.delitem(sys.modules, loaded)
    import fsspec.registry  # noqa: F401

    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme(address), raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StoreUnusable, match=rf"pip install 'foldserve\[{extra}\]'"):
        Store(address)


def test_an_address_of_the_hugging_face_hub() -> None:
    pytest.importorskip("huggingface_hub")
    assert Store("hf://someone/repo/models").root == "someone/repo/models"


def test_an_unknown_scheme() -> None:
    with pytest.raises(StoreUnusable, match="nonsense"):
        Store("nonsense://me:secret@x/models")
    settings = parse(["--models", "nonsense://me:secret@x/models"], {})
    with pytest.raises(CannotStart) as caught:
        source.find(settings)
    assert "secret" not in str(caught.value)


# --- what is fetched --------------------------------------------------------------------


def test_a_version_is_fetched_whole(mirror: Mirror, remote: Path) -> None:
    assert mirror.refresh()
    assert content(mirror.folder / "m" / "1") == content(remote / "m" / "1")
    assert not list(mirror.folder.glob(".fetch-*"))
    assert not mirror.refresh()


def test_what_is_there_is_not_fetched_again(
    mirror: Mirror, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.refresh()
    monkeypatch.setattr(mirroring, "download", None)
    assert not mirror.refresh()
    assert not follow(remote, mirror.folder).refresh(), "after a restart"
    assert versions(mirror) == ["1"]


def test_a_version_without_a_manifest_is_still_on_its_way(mirror: Mirror, remote: Path) -> None:
    (remote / "m" / "1" / "model.json").rename(remote / "kept.json")
    mirror.refresh()
    assert versions(mirror) == []
    (remote / "kept.json").rename(remote / "m" / "1" / "model.json")
    mirror.refresh()
    assert versions(mirror) == ["1"]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda _: b"", "ends after 0 of"),
        (lambda good: good[:-1], "ends after"),
        (lambda good: good + b"x", "has more than"),
        (lambda good: good[:-1] + b"\x00", "sha256 of model.onnx"),
        (None, "model.onnx is missing in the store"),
    ],
    ids=["empty", "short", "long", "other", "missing"],
)
@pytest.mark.parametrize("chunk_bytes", [100, 1 << 20])
def test_a_damaged_file_is_not_served_but_told(
    mirror: Mirror, remote: Path, damage: Any, expected: str, chunk_bytes: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(downloading, "CHUNK_BYTES", chunk_bytes)
    path = remote / "m" / "1" / "model.onnx"
    good = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(good))
    assert mirror.refresh()
    assert expected in reason(mirror)
    assert not mirror.refresh(), "no news"
    path.write_bytes(good)
    assert mirror.refresh()
    assert content(mirror.folder / "m" / "1") == content(remote / "m" / "1")


@pytest.mark.parametrize("size", [99, 100, 101, 200, 201])
def test_files_around_the_size_of_a_chunk(
    mirror: Mirror, remote: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "CHUNK_BYTES", 100)
    (remote / "m" / "1" / "model.json").unlink()
    (remote / "m" / "1" / "more.bin").write_bytes(bytes(range(size)))
    (remote / "m" / "1" / "none.bin").write_bytes(b"")
    repository.seal(remote / "m" / "1")
    mirror.refresh()
    assert content(mirror.folder / "m" / "1") == content(remote / "m" / "1")


def test_no_more_is_read_of_a_file_than_it_should_have(
    mirror: Mirror, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = remote / "m" / "1" / "model.onnx"
    size = path.stat().st_size
    with path.open("ab") as file:
        file.truncate(10**10)
    read: list[int] = []
    real = Store.read

    def counted(self: Store, path: str, start: int, end: int) -> bytes:
        read.append(end)
        return real(self, path, start, end)

    monkeypatch.setattr(Store, "read", counted)
    mirror.refresh()
    assert "has more than" in reason(mirror)
    assert read[-1] == size + 1


def test_after_a_failure_the_next_try_waits_longer_each_time(
    mirror: Mirror, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "_FIRST_PAUSE_S", 0.5)
    now = [1000.0]
    monkeypatch.setattr(mirroring.time, "monotonic", lambda: now[0])
    tried: list[float] = []
    real = mirroring.download

    def counted(*args: Any) -> None:
        tried.append(now[0] - 1000)
        real(*args)

    monkeypatch.setattr(mirroring, "download", counted)
    (remote / "m" / "1" / "model.onnx").write_bytes(b"")
    for _ in range(80):
        mirror.refresh()
        now[0] += 0.1
    assert [round(t, 1) for t in tried] == [0.0, 0.5, 1.5, 3.5, 7.5]
    mirror.refresh(again="m")
    assert len(tried) == 6, "at once when the operator asks"


@pytest.mark.parametrize(
    "name", ["../evil", "..", "a/b", "C:\\x", "model.onnx/../../x", "model.json", "a\0b", "x" * 300]
)
def test_names_of_files_stay_in_the_folder(mirror: Mirror, remote: Path, name: str) -> None:
    path = remote / "m" / "1" / "model.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = manifest["files"]["model.onnx"]
    path.write_text(json.dumps(manifest))
    outside = mirror.folder.parent.parent
    before = {p for p in outside.rglob("*") if mirror.folder not in p.parents}
    mirror.refresh()
    after = {p for p in outside.rglob("*") if mirror.folder not in p.parents}
    assert after == before
    assert "model.json" in reason(mirror)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"{", "not valid"), (b"{}", "not valid"), (b"[" * 100_000, "not valid")],
)
def test_a_manifest_that_is_none(mirror: Mirror, remote: Path, text: bytes, expected: str) -> None:
    (remote / "m" / "1" / "model.json").write_bytes(text)
    mirror.refresh()
    assert expected in reason(mirror)


def test_a_manifest_without_end(mirror: Mirror, remote: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("service.store.access.LONGEST_MANIFEST_BYTES", 100)
    mirror.refresh()
    assert "larger than 100 bytes" in reason(mirror)


def test_a_manifest_of_another_model_is_refused(mirror: Mirror, remote: Path) -> None:
    (remote / "m").rename(remote / "other")
    mirror.refresh()
    assert "says 'm' version 1" in reason(mirror, name="other")


def test_odd_names_in_a_listing_are_passed_over(mirror: Mirror, remote: Path) -> None:
    for name in (".hidden", "-x", "a b"):
        repository.publish(remote, "n", linear())
        (remote / "n").rename(remote / name)
    (remote / "m" / "1").rename(remote / "m" / "01")
    (remote / "README").write_text("a file")
    mirror.refresh()
    assert [p.name for p in mirror.folder.iterdir()] == [".lock"]


def test_what_does_not_fit_is_not_fetched(remote: Path, tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in (remote / "m" / "1").iterdir())
    small = follow(remote, tmp_path / "small", max_bytes=size - 1)
    small.refresh()
    assert f"it has {size} bytes, and --max-model-cache-bytes leaves room for" in reason(small)
    just = follow(remote, tmp_path / "just", max_bytes=size)
    just.refresh()
    assert versions(just) == ["1"]
    assert (just.folder / "m" / "1" / "model.onnx").exists()


# --- what is kept -----------------------------------------------------------------------


def test_what_is_gone_goes(mirror: Mirror, remote: Path) -> None:
    repository.publish(remote, "m", linear(), version=2)
    repository.publish(remote, "n", linear())
    mirror.refresh()
    assert (versions(mirror), versions(mirror, "n")) == (["1", "2"], ["1"])
    (remote / "m" / "2").rename(remote / "gone")
    (remote / "n").rename(remote.parent / "n")
    assert mirror.refresh()
    assert (versions(mirror), versions(mirror, "n")) == (["1"], [])


def test_old_versions_are_left_where_they_are(remote: Path, tmp_path: Path) -> None:
    for version in (2, 3, 4):
        repository.publish(remote, "m", linear(), version=version)
    for wanted, expected in {
        "latest": ["3", "4"],  # one to serve, one to fall back on
        "all": ["1", "2", "3", "4"],
        "specific:1,3": ["1", "3", "4"],  # the highest may say otherwise
    }.items():
        followed = follow(remote, tmp_path / wanted, wanted)
        followed.refresh()
        assert versions(followed) == expected, wanted


def test_the_highest_versions_own_policy_counts(mirror: Mirror, remote: Path) -> None:
    for version in (2, 3):
        repository.publish(remote, "m", linear(), version=version)
    repository.publish(remote, "m", linear(), version=4, serving={"version_policy": "specific:1,2"})
    mirror.refresh()
    assert versions(mirror) == ["1", "2", "4"]


def test_what_no_process_needs_goes_after_a_while(
    mirror: Mirror, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.refresh()
    for version in (2, 3):
        repository.publish(remote, "m", linear(), version=version)
    mirror.refresh()
    assert versions(mirror) == ["1", "2", "3"], "another process may serve the first one"
    monkeypatch.setattr(caching, "LEASE_S", -1)
    mirror.refresh({"m": (frozenset({1}), frozenset({3}))})
    assert versions(mirror) == ["1", "2", "3"], "this one does"
    mirror.refresh({"m": (frozenset({3}), frozenset())})
    assert versions(mirror) == ["2", "3"]


def test_rejected_versions_do_not_count_as_something_to_fall_back_on(
    mirror: Mirror, remote: Path
) -> None:
    for version in (2, 3, 4):
        repository.publish(remote, "m", linear(), version=version)
    mirror.refresh()
    assert versions(mirror) == ["3", "4"]
    assert mirror.refresh({"m": (frozenset(), frozenset({3, 4}))})
    assert versions(mirror) == ["1", "2", "3", "4"]


def test_what_is_spoilt_in_the_cache_comes_again(mirror: Mirror, remote: Path) -> None:
    mirror.refresh()
    spoilt = mirror.folder / "m" / "1" / "model.onnx"
    spoilt.write_bytes(b"spoilt")
    assert mirror.refresh({"m": (frozenset(), frozenset({1}))})
    assert content(mirror.folder / "m" / "1") == content(remote / "m" / "1")
    assert not mirror.refresh({"m": (frozenset(), frozenset({1}))}), "it is sound, only no good"


def test_a_version_that_is_published_anew_replaces_the_old_one(
    mirror: Mirror, remote: Path
) -> None:
    mirror.refresh()
    (remote / "m").rename(remote.parent / "before")
    repository.publish(remote, "m", linear(seed=1))
    assert mirror.refresh()
    assert content(mirror.folder / "m" / "1") == content(remote / "m" / "1")
    (remote / "m").rename(remote.parent / "good")
    repository.publish(remote, "m", linear(seed=2))
    (remote / "m" / "1" / "model.onnx").write_bytes(b"damaged")
    assert not mirror.refresh()
    assert content(mirror.folder / "m" / "1") == content(remote.parent / "good" / "1")


@pytest.mark.parametrize("how", ["away", "empty"])
def test_while_the_store_is_away_the_copy_stays(mirror: Mirror, remote: Path, how: str) -> None:
    mirror.refresh()
    remote.rename(remote.parent / "away")
    if how == "empty":
        remote.mkdir()
    assert not mirror.refresh()
    assert mirror.trouble
    assert versions(mirror) == ["1"]
    if how == "empty":
        remote.rmdir()
    (remote.parent / "away").rename(remote)
    mirror.refresh()
    assert mirror.trouble is None


def test_a_folder_that_cannot_be_listed_is_no_empty_one(
    mirror: Mirror, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.refresh()
    real = Store.call

    def fails(self: Store, operation: str, *args: Any, **how: Any) -> Any:
        if operation == "ls" and str(args[0]).endswith("/m"):
            raise StoreError("the line is cut")
        return real(self, operation, *args, **how)

    monkeypatch.setattr(Store, "call", fails)
    assert not mirror.refresh()
    assert mirror.trouble == "the line is cut"
    assert versions(mirror) == ["1"]


def test_several_processes_share_a_folder(remote: Path, tmp_path: Path) -> None:
    """As many as there are: what each of them finds is whole, and it was fetched once."""
    for version in (2, 3, 4):
        repository.publish(remote, "m", linear(), version=version)
    followed = [follow(remote, tmp_path / "shared", "all") for _ in range(6)]
    changed: list[bool] = []
    threads = [threading.Thread(target=lambda m=m: changed.append(m.refresh())) for m in followed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(changed) == [False] * 5 + [True]
    for version in ("1", "2", "3", "4"):
        assert content(tmp_path / "shared" / "m" / version) == content(remote / "m" / version)


def test_what_a_killed_process_has_left_is_swept(mirror: Mirror) -> None:
    (mirror.folder / ".fetch-abc" / "new").mkdir(parents=True)
    mirror.refresh()
    assert not (mirror.folder / ".fetch-abc").exists()


def test_a_full_disk_is_told_and_nothing_ends(
    mirror: Mirror, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.refresh()
    repository.publish(remote, "m", linear(), version=2)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloading, "write", full)
    monkeypatch.setattr(caching, "write", full)
    mirror.refresh()
    assert versions(mirror) == ["1"]
    assert "No space left" in str(mirror.trouble)
    monkeypatch.undo()
    mirror.refresh(again="m")
    assert versions(mirror) == ["1", "2"]
    assert mirror.trouble is None


# --- how the service starts -------------------------------------------------------------


def test_a_store_that_is_away_at_the_start(remote: Path, tmp_path: Path) -> None:
    flags = ["--models", f"file://{remote}", "--model-cache", str(tmp_path / "cache")]
    remote.rename(remote.parent / "away")
    with pytest.raises(CannotStart, match=r"cannot be read.*nothing to serve"):
        source.find(parse(flags, {}))
    (remote.parent / "away").rename(remote)
    mirror = source.find(parse(flags, {})).mirror
    assert mirror
    mirror.refresh()
    remote.rename(remote.parent / "away")
    again = source.find(parse(flags, {})).mirror
    assert again
    assert again.trouble


def test_a_cache_that_cannot_be_written(remote: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    flags = ["--models", f"file://{remote}", "--model-cache", str(tmp_path / "file" / "cache")]
    with pytest.raises(CannotStart, match="--model-cache"):
        source.find(parse(flags, {}))


def test_versions_that_do_not_work_are_passed_by_at_the_start(
    start: Any, remote: Path, tmp_path: Path
) -> None:
    """Three self-tests fail: the fourth version from above is fetched, and served."""
    import numpy as np

    x = {"x": np.ones((1, 4), np.float32)}
    for version in (2, 3, 4):
        repository.publish(remote, "m", linear(), version, test=x, off_by=1.0)
    served: Served = start(
        Path(f"file://{remote}"), "--models", f"file://{remote}",
        "--model-cache", str(tmp_path / "cache"),
    )  # fmt: skip
    with served.client() as client:
        shown = client.get("/models").json()
        assert shown["store"] == {"address": f"file://{remote}", "trouble": None}
        assert shown["models"][0]["version"] == 1
        assert [r["version"] for r in shown["models"][0]["rejected"]] == [4, 3, 2]
    assert f"  store    file://{remote}" in served.out
    assert served.stop() == 0


def test_without_the_package_there_is_a_sentence(start: Any) -> None:
    served: Served = start(Path("x"), "--models", "gopher://me:secret@x/m", env=dict(os.environ))
    assert served.end() == 1
    assert "gopher://***@x/m" in served.err
    assert "Traceback" not in served.err
    assert "secret" not in served.err


# --- over HTTP --------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def web(remote: Path) -> Iterator[str]:
    """A folder as a web server shows it: pages with links, and no ranges."""
    handler = functools.partial(Quiet, directory=str(remote))
    with s3.running(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as url:
        yield url


def test_a_folder_of_a_web_server(
    web: str, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "_FIRST_PAUSE_S", 0)
    monkeypatch.setattr(downloading, "CHUNK_BYTES", 100)
    repository.publish(remote, "m", linear(), version=2)
    mirror = follow(web.replace("http://", "http://me:secret@"), tmp_path / "mirror")
    mirror.refresh()
    assert mirror.trouble is None
    for version in ("1", "2"):
        assert content(mirror.folder / "m" / version) == content(remote / "m" / version)
    repository.publish(remote, "m", linear(), version=3)
    (remote / "m" / "3" / "model.onnx").write_bytes(b"damaged" * 1000)
    mirror.refresh()
    assert "model.onnx" in reason(mirror, 3)
    (remote / "m" / "2" / "model.json").unlink()
    mirror.refresh()
    assert versions(mirror) == ["1", "3"]
    assert "secret" not in mirror.address


def test_a_web_server_that_is_gone_is_told_without_its_password(
    remote: Path, tmp_path: Path
) -> None:
    mirror = follow("http://me:secret@127.0.0.1:9/models", tmp_path / "mirror")
    mirror.refresh()
    assert mirror.trouble
    assert "secret" not in mirror.trouble
