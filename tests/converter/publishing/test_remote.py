"""Publishing to a store: a version is whole once its manifest is there, and nobody else's."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import onnx_ir as ir
import pytest

from converter.cli import main
from converter.errors import UserError
from converter.pipeline import FoldResult
from converter.publishing import remote
from converter.publishing.remote import publish_remote
from converter.publishing.versions import publish
from service.manifest import MANIFEST_FILE
from service.store.access import Store, StoreError
from service.store.mirror import Mirror
from tests import s3
from tests.converter.published import check_self_test, check_version, graph, versions

pytestmark = [pytest.mark.slow, *s3.MARKS]


@pytest.fixture
def access(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in s3.environment(s3.server()).items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def bucket(access: None) -> str:
    return s3.bucket()


def fetched(bucket: str, folder: Path) -> Path:
    """What a service gets from `bucket/models`."""
    mirror = Mirror(Store(f"s3://{bucket}/models"), folder)
    mirror.refresh()
    assert mirror.trouble is None
    return folder / "net"


def keys(bucket: str) -> list[str]:
    fs = Store(f"s3://{bucket}/models").call("find", bucket)
    return [str(path).removeprefix(f"{bucket}/models/net/") for path in fs]


def test_versions_follow_each_other(
    bucket: str, tmp_path: Path, proven: FoldResult, another: FoldResult
) -> None:
    address = f"s3://{bucket}/models/net"
    done = publish(proven, address)
    assert (done.path, done.version, done.fresh) == (f"{address}/1", 1, True)
    assert publish(another, f"{address}/").version == 2
    folder = fetched(bucket, tmp_path / "mirror")
    check_self_test(folder / "1")
    check_self_test(folder / "2")
    assert not [key for key in keys(bucket) if ".claim" in key]


def test_nothing_is_written_if_nothing_changed(
    bucket: str, proven: FoldResult, another: FoldResult
) -> None:
    address = f"s3://{bucket}/models/net"
    publish(proven, address)
    before = keys(bucket)
    again = publish(proven, address, if_changed=True)
    assert (again.path, again.version, again.fresh) == (f"{address}/1", 1, False)
    assert keys(bucket) == before
    assert publish(another, address, if_changed=True).version == 2
    s3.remove(f"{bucket}/models/net/2/model.onnx")
    s3.ask("PUT", f"/{bucket}/models/net/3/.claim", b"of a publisher that was killed")
    assert publish(another, address, if_changed=True).version == 4, "the second is not whole"
    s3.ask("PUT", f"/{bucket}/models/net/5/.claim", b"of a publisher that was killed")
    assert not publish(another, address, if_changed=True).fresh, "there is no fifth version"


ORDER = [".claim", "model.onnx", "selftest.npz", "model.json"]


@pytest.mark.parametrize("step", ORDER)
@pytest.mark.parametrize("error", [StoreError, KeyboardInterrupt])
def test_the_manifest_is_written_last_and_a_failure_leaves_nothing(
    bucket: str,
    proven: FoldResult,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: type[BaseException],
) -> None:
    real, sent = Store.call, []

    def fails(self: Store, operation: str, *args: Any, **how: Any) -> Any:
        if operation in {"put_file", "pipe_file"}:
            sent.append(str(args[-1] if operation == "put_file" else args[0]).rpartition("/")[2])
            if sent[-1] == step:
                if step == "model.json":
                    real(self, operation, *args, **how)  # it arrives, and the answer is lost
                raise error("the line is cut")
        return real(self, operation, *args, **how)

    monkeypatch.setattr(Store, "call", fails)
    with pytest.raises(UserError if error is StoreError else error, match="the line is cut"):
        publish(proven, f"s3://{bucket}/models/net")
    assert sent == ORDER[: ORDER.index(step) + 1]
    monkeypatch.setattr(Store, "call", real)
    assert keys(bucket) == []


@pytest.mark.parametrize("step", ["_send", "_create"])
def test_a_store_that_is_a_folder_is_left_as_it_was(
    tmp_path: Path, proven: FoldResult, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fails(*_: object) -> None:
        raise StoreError("no room")

    monkeypatch.setattr(remote, step, fails)
    with pytest.raises(UserError, match="no room"):
        publish(proven, f"local://{tmp_path}/net")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", ".net", "-net"])
def test_a_bad_name_is_told_before_the_work(bucket: str, name: str) -> None:
    with pytest.raises(UserError, match="is not a name for a model"):
        remote.open_store(f"s3://{bucket}/models/{name}")


def test_no_version_follows_the_last_one(bucket: str, proven: FoldResult) -> None:
    s3.ask("PUT", f"/{bucket}/models/net/{'9' * 18}/.claim", b"somebody else's")
    with pytest.raises(UserError, match=f"no version after {'9' * 18} can be served"):
        publish(proven, f"s3://{bucket}/models/net")


def test_a_number_that_another_has_claimed_is_left_to_it(
    bucket: str, proven: FoldResult, tmp_path: Path
) -> None:
    s3.ask("PUT", f"/{bucket}/models/net/1/.claim", b"somebody else's")
    address = f"s3://{bucket}/models/net"
    store = Store(address)
    assert remote._claim(store, 1) == 2, "also if it came after we have looked"
    assert publish(proven, address).version == 3
    assert versions(fetched(bucket, tmp_path / "mirror")) == [3]


def test_a_number_that_was_published_since_we_looked(bucket: str, proven: FoldResult) -> None:
    address = f"s3://{bucket}/models/net"
    publish(proven, address)
    assert remote._claim(Store(address), 1) == 2
    assert not [key for key in keys(bucket) if key.startswith("1/.claim")]


def test_a_manifest_is_never_overwritten(
    bucket: str, proven: FoldResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else writes there, by hand for instance."""
    real = remote._send

    def meanwhile(store: Store, file: Path, target: str) -> None:
        real(store, file, target)
        s3.ask("PUT", f"/{bucket}/models/net/1/{MANIFEST_FILE}", b"{}")

    monkeypatch.setattr(remote, "_send", meanwhile)
    with pytest.raises(UserError, match="somebody else has written version 1"):
        publish(proven, f"s3://{bucket}/models/net")
    assert s3.ask("GET", f"/{bucket}/models/net/1/{MANIFEST_FILE}") == b"{}"


def test_an_answer_that_was_lost_is_no_conflict(bucket: str) -> None:
    """The library asks again, and finds what its first request has written."""
    store = Store(f"s3://{bucket}/models/net")
    remote._create(store, f"{store.root}/1/.claim", b"mine")
    remote._create(store, f"{store.root}/1/.claim", b"mine")
    with pytest.raises(FileExistsError):
        remote._create(store, f"{store.root}/1/.claim", b"another's")


def test_many_publishers_at_once(tmp_path: Path, proven: FoldResult, another: FoldResult) -> None:
    """On a folder: moto's conditional write is not one step."""
    staged = [publish(r, tmp_path / f"{i}" / "net").path for i, r in enumerate((proven, another))]
    address = f"file://{tmp_path}/models/net"
    done: list[int] = []
    threads = [
        threading.Thread(
            target=lambda p=path: done.append(publish_remote(address, lambda _: p, None)[1])  # type: ignore[misc]
        )
        for path in (Path(path) for path in staged * 4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(done)) == len(done) == 8
    for version in done:
        check_version(tmp_path / "models" / "net" / str(version))


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_one_publisher_gets_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Eight that change at every step want each name; looking first and writing then fails here."""
    if not links:
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError(1, "no links here")))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of them take a while on some disks
    store = remote.open_store(f"file://{tmp_path}")
    together = threading.Barrier(8)
    won: dict[str, list[bytes]] = {f"{tmp_path}/{i}": [] for i in range(40)}

    def publisher(content: bytes) -> None:
        for path, winners in won.items():
            together.wait()
            with contextlib.suppress(FileExistsError):
                remote._create(store, path, content)
                winners.append(content)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=publisher, args=(b"%d" % i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert {path: [Path(path).read_bytes()] for path in won} == won
    assert {str(path) for path in tmp_path.iterdir()} == set(won)  # nothing is left beside


def test_a_folder_written_as_an_address(tmp_path: Path, proven: FoldResult) -> None:
    done = publish(proven, f"file://{tmp_path}/a%20folder/net")
    assert done.path == tmp_path / "a folder" / "net" / "1"
    check_version(tmp_path / "a folder" / "net" / "1")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://me:secret@host/models/net", "no way to keep two publishers apart"),
        ("hf://someone/models/net", "no way to keep two publishers apart"),
        ("nonsense://me:secret@x/net", "no way to keep two publishers apart"),
        ("s3://bucket", "names no model"),
        ("s3://bucket/models/bad name", "is not a name for a model"),
    ],
)
def test_addresses_that_cannot_be_published_to(
    proven: FoldResult, address: str, expected: str
) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        publish(proven, address)
    assert "secret" not in str(caught.value)


def test_a_bucket_that_is_not_there(access: None, proven: FoldResult) -> None:
    with pytest.raises(UserError, match="cannot publish to s3://no-such-bucket-here/models/net"):
        publish(proven, "s3://no-such-bucket-here/models/net")


def test_a_wrong_address_is_found_before_the_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["fold", str(tmp_path / "missing.onnx"), "--publish", "ftp://me:secret@host/net"]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "no way to keep two publishers apart" in " ".join((said.out + said.err).split())
    assert "secret" not in said.out + said.err


def test_from_the_command_line(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, report = tmp_path / "m.onnx", tmp_path / "report.json"
    ir.save(graph().model(), model)
    address = f"s3://{bucket}/models/net"
    arguments = ["fold", str(model), "--publish", address, "--json", str(report)]
    assert main(arguments) == 0
    assert f"Published {address}/1" in capsys.readouterr().out.replace("\n", "")
    assert json.loads(report.read_text())["written"] == [f"{address}/1"]
    assert main([*arguments, "--if-changed"]) == 0
    assert "nothing published" in " ".join(capsys.readouterr().out.split())
    check_self_test(fetched(bucket, tmp_path / "mirror") / "1")
