"""Models from a real server of the S3 protocol, through faults on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import repository
from repository import linear

from service.models.bundle import UNFETCHED_FILE
from service.store import download as downloading
from service.store import mirror as mirroring
from service.store.access import Store, StoreError
from service.store.mirror import Mirror
from tests import s3

if TYPE_CHECKING:
    from conftest import Served


pytestmark = [pytest.mark.slow, *s3.MARKS]


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Proxy]:
    with s3.running(proxy := s3.Proxy()):
        for key, value in s3.environment(proxy.url).items():
            monkeypatch.setenv(key, value)
        yield proxy
        proxy.released.set()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A repository with one version; what the store has is a copy of it."""
    repository.publish(tmp_path / "local", "m", linear())
    return tmp_path / "local"


@pytest.fixture
def place(local: Path) -> str:
    """BUCKET/models, with the version in it."""
    path = f"{s3.bucket()}/models"
    s3.upload(local, path)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def until(what: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_one_list_is_enough_to_see_that_nothing_has_changed(
    proxy: s3.Proxy, local: Path, place: str, tmp_path: Path
) -> None:
    mirror = Mirror(Store(f"s3://{place}"), tmp_path / "mirror")
    assert mirror.refresh()
    assert content(mirror.folder / "m" / "1") == content(local / "m" / "1")
    proxy.seen.clear()
    assert not mirror.refresh()
    assert len(proxy.seen) == 1, proxy.seen


@pytest.mark.parametrize("fault", ["cut", "wrong", "short", "long", "stalled", "down"])
def test_a_spoilt_download_is_told_and_comes_again(
    fault: str, proxy: s3.Proxy, local: Path, place: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(mirroring, "_FIRST_PAUSE_S", 0)
    mirror = Mirror(Store(f"s3://{place}"), tmp_path / "mirror")
    mirror.refresh()
    repository.publish(local, "m", linear(seed=1), version=2)
    s3.upload(local, place)
    hasty = Mirror(Store(f"s3://{place}", timeout_s=1.0, attempts=1), mirror.folder)
    monkeypatch.setattr(hasty._store, "manifest", mirror._store.manifest)  # only files are hasty
    monkeypatch.setattr(hasty._store, "versions", mirror._store.versions)
    proxy.fault = fault
    assert hasty.refresh()
    assert list(content(mirror.folder / "m" / "2")) == [UNFETCHED_FILE]
    assert "model.onnx" in (mirror.folder / "m" / "2" / UNFETCHED_FILE).read_text()
    assert content(mirror.folder / "m" / "1") == content(local / "m" / "1")
    proxy.fault = None
    mirror.refresh()
    assert content(mirror.folder / "m" / "2") == content(local / "m" / "2")


def test_a_read_that_failed_once_is_tried_again(
    proxy: s3.Proxy, local: Path, place: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(downloading, "CHUNK_BYTES", 100)
    mirror = Mirror(Store(f"s3://{place}", attempts=2), tmp_path / "mirror")
    real, failed = mirror._store.call, []

    def once(operation: str, *args: Any, **how: Any) -> Any:
        if how.get("start") == 100 and not failed:
            failed.append(operation)
            raise StoreError("the line is cut")
        return real(operation, *args, **how)

    monkeypatch.setattr(mirror._store, "call", once)
    mirror.refresh()
    assert failed
    assert content(mirror.folder / "m" / "1") == content(local / "m" / "1")


def test_a_bucket_that_is_not_there(proxy: s3.Proxy, tmp_path: Path) -> None:
    mirror = Mirror(Store("s3://no-such-bucket-here/models"), tmp_path / "mirror")
    with pytest.raises(StoreError, match=r"(?i)bucket"):
        mirror.reach()


def test_served_through_faults(
    start: Callable[..., Served], proxy: s3.Proxy, local: Path, place: str, tmp_path: Path
) -> None:
    """A new version comes damaged, then slowly; the store goes away and comes back; the cache
    serves alone. The version before serves all the time."""
    address = f"s3://{place}"
    flags = (
        "--models", address, "--model-cache", str(tmp_path / "cache"),
        "--watch-interval-ms", "100", "--store-timeout-ms", "15000", "--store-attempts", "1",
    )  # fmt: skip
    served = start(Path(address), *flags)
    body = {"inputs": [[1.0, 2.0, 3.0, 4.0]]}
    with served.client() as client:

        def shown() -> Any:
            return client.get("/models").json()

        def version() -> Any:
            answer = client.post("/models/m/predict", json=body)
            assert answer.status_code == 200
            return answer.json()["model"]["version"]

        assert version() == 1
        proxy.fault = "wrong"
        repository.publish(local, "m", linear(seed=1), version=2)
        s3.upload(local, place)
        until(lambda: [r["version"] for r in shown()["models"][0]["rejected"]] == [2])
        why = shown()["models"][0]["rejected"][0]["reason"]
        assert "it could not be fetched: " in why
        assert "model.onnx" in why
        assert version() == 1
        proxy.fault = "slow"
        until(lambda: version() == 2)
        assert shown()["models"][0]["rejected"] == []
        proxy.fault, proxy.spoilt = "down", ""
        until(lambda: shown()["store"]["trouble"] is not None)
        assert version() == 2
        # Another process with the same cache starts meanwhile.
        again = start(Path(address), *flags)
        with again.client() as other:
            assert other.post("/models/m/predict", json=body).json()["model"]["version"] == 2
        assert "the store cannot be read, what was fetched is served" in again.out
        assert again.stop() == 0
        proxy.fault = None
        until(lambda: shown()["store"]["trouble"] is None)
        repository.publish(local, "m", linear(seed=2), version=3)
        s3.upload(local, place)
        until(lambda: version() == 3)
    assert served.stop() == 0
    for said in (served, again):
        assert s3.SECRET not in said.out + said.err
        assert "Traceback" not in said.err
