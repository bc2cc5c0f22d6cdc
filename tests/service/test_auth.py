"""API keys and admin keys: who comes in, who does not, and how keys change while it runs."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import httpx
import pytest
from repository import linear, publish
from test_predict_route import refused
from test_process import command, sentence

from service.connections.auth import Access, KeyFile, KeysUnusable, credentials
from service.errors import AdminClosed, Forbidden, Unauthorized

ONE = b"first-key-of-the-team"
TWO = b"second-key-of-the-team"
ADMIN = b"the-key-that-changes-models"


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.fixture
def access(tmp_path: Path) -> Access:
    api = write(tmp_path / "api", b"# team", ONE, b"", b"  " + TWO + b"\r")
    return Access.of(api, write(tmp_path / "admin", ADMIN))


@pytest.mark.parametrize("key", [ONE, TWO, ADMIN])
def test_every_key_may_predict(access: Access, key: bytes):
    assert access.closed
    access.require(key)


@pytest.mark.parametrize("key", [None, b"", b"first-key-of-the-tean", ONE[:-1], ONE + b"x", b"#"])
def test_no_other_key_may(access: Access, key: bytes | None):
    with pytest.raises(Unauthorized) as caught:
        access.require(key)
    assert (b"www-authenticate", b"Bearer") in caught.value.headers()
    if key:
        assert key.decode() not in str(caught.value.body())


def test_only_an_admin_key_may_change_the_server(access: Access):
    access.require_admin(ADMIN)
    with pytest.raises(Forbidden):
        access.require_admin(ONE)
    for key in (None, b"wrong-but-long-enough"):
        with pytest.raises(Unauthorized):
            access.require_admin(key)


def test_without_files_all_may_predict_and_nobody_may_change_anything():
    access = Access()
    assert not access.closed
    access.require(None)
    for key in (None, b"", ADMIN):
        with pytest.raises(AdminClosed):
            access.require_admin(key)


def test_admin_keys_alone_leave_the_predictions_open(tmp_path: Path):
    access = Access.of(None, write(tmp_path / "admin", ADMIN))
    access.require(None)
    access.require_admin(ADMIN)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([(b"x-api-key", b" k ")], b"k"),
        ([(b"authorization", b"Bearer k")], b"k"),
        ([(b"authorization", b"bearer  k")], b"k"),
        ([(b"authorization", b"Basic k")], None),
        ([(b"authorization", b"Bearer a"), (b"x-api-key", b"b")], b"b"),
    ],
)
def test_credentials(headers: list[tuple[bytes, bytes]], key: bytes | None):
    assert credentials(headers) == key


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no key"),
        (b"# only a comment\n", "no key"),
        (b"short\n", "line 1 is not a key"),
        (b"\nhas spaces in the middle of it\n", "line 2 is not a key"),
        ("schlüssel-mit-umlauten".encode(), "line 1"),
        (b"k" * 513, "line 1"),
        (b"first-key-of-the-team two names\n", "line 1"),
        (b"first-key-of-the-team na:me\n", "line 1"),
        (b"#" * (1024 * 1024 + 1), "larger than"),
    ],
    ids=["empty", "comment", "short", "spaces", "umlaut", "long", "names", "odd-name", "huge"],
)
def test_a_file_that_is_no_key_file(tmp_path: Path, content: bytes, text: str):
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(KeysUnusable, match=text) as caught:
        KeyFile(path, "--api-keys-file")
    assert "--api-keys-file" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_changed_file_is_read_again_and_a_bad_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = write(tmp_path / "keys", ONE)
    access = Access.of(path, None)
    access.refresh()
    access.require(ONE)
    write(path, TWO)
    access.refresh()
    access.require(TWO)
    with pytest.raises(Unauthorized):
        access.require(ONE)
    caplog.clear()
    failures: list[None] = []
    access.when_failed(lambda: failures.append(None))
    path.write_bytes(b"junk")
    access.refresh()
    access.refresh()
    access.require(TWO)
    assert caplog.text.count("stay as they were") == len(failures) == 1
    path.unlink()
    access.refresh()
    access.require(TWO)
    write(path, ONE)
    access.refresh()
    access.require(ONE)


def test_the_same_stamp_is_read_again_when_forced(tmp_path: Path):
    path = write(tmp_path / "keys", ONE)
    access = Access.of(path, None)
    stamp = path.stat()
    path.write_bytes(ONE[::-1])
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    access.refresh()
    access.require(ONE)
    access.refresh(force=True)
    access.require(ONE[::-1])


# --- on a real server -------------------------------------------------------------------

BODY = {"inputs": [[1, 2, 3, 4]]}


def test_keys_have_names_for_the_log(tmp_path: Path):
    api = write(tmp_path / "api", b"# team", ONE + b" team-a", b"", TWO)
    access = Access.of(api, write(tmp_path / "admin", ADMIN + b"\tops.night", ADMIN[::-1]))
    named = {key: access.name(key) for key in (ONE, TWO, ADMIN, ADMIN[::-1], b"another", None)}
    assert list(named.values()) == [
        "team-a", "api-line-4", "ops.night", "admin-line-2", "", "",
    ]  # fmt: skip
    for key in (ONE, TWO, ADMIN):
        access.require(key)
        assert access.knows(key)
    assert not access.knows(ONE + b" team-a")
    assert not access.knows(None)
    assert Access().knows(None)


def with_key(key: bytes) -> dict[str, bytes]:
    return {"x-api-key": key}


def test_a_server_with_keys(start, tmp_path: Path):
    publish(tmp_path / "models", "m", linear())
    keys = write(tmp_path / "keys", ONE, TWO)
    served = start(tmp_path / "models", "--api-keys-file", str(keys))
    with served.client() as client:
        # Pages are nothing but a form; what they show needs the key.
        for path in ("/health/live", "/health/ready", "/", "/docs"):
            assert client.get(path).status_code == 200
        for path in ("/openapi.json", "/models", "/nope", "/health/live/x"):
            response = client.get(path)
            refused(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
        refused(client.post("/predict", json=BODY), 401, "unauthorized")
        refused(client.post("/predict", json=BODY, headers=with_key(ADMIN)), 401, "unauthorized")
        bearer = {"authorization": b"Bearer " + ONE}
        assert client.post("/predict", json=BODY, headers=bearer).status_code == 200
        assert client.post("/predict", json=BODY, headers=with_key(TWO)).status_code == 200
        write(keys, ADMIN)
        served.process.send_signal(signal.SIGHUP)
        until_answer(client, with_key(ADMIN), 200)
        refused(client.post("/predict", json=BODY, headers=bearer), 401, "unauthorized")
        write(keys, ONE)  # no signal: the file is looked at once a second
        until_answer(client, bearer, 200)
    assert served.stop() == 0
    for key in (ONE, TWO, ADMIN):
        assert key.decode() not in served.out + served.err


def test_readiness_tells_a_stranger_no_names(start, tmp_path: Path):
    models = tmp_path / "models"
    publish(models, "secret", linear())
    keys = write(tmp_path / "keys", ONE)
    served = start(models, "--api-keys-file", str(keys), "--ready-when", "all")
    with served.client() as client:
        for headers in ({}, with_key(TWO)):
            assert client.get("/health/ready", headers=headers).json() == {"status": "ready"}
        known = client.get("/health/ready", headers=with_key(ONE)).json()
        assert [model["name"] for model in known["models"]] == ["secret"]
        (models / "broken" / "1").mkdir(parents=True)
        (models / "broken" / "1" / "model.onnx").write_bytes(b"none")
        end = time.monotonic() + 60
        while (answer := client.get("/health/ready")).status_code == 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert "broken" not in answer.text
        assert "A model does not work." in answer.text
        assert "broken" not in client.get("/v2/health/ready").text
        assert "'broken'" in client.get("/health/ready", headers=with_key(ONE)).text
    assert served.stop() == 0


def until_answer(client: httpx.Client, headers: dict[str, bytes], status: int) -> None:
    end = time.monotonic() + 60
    while client.post("/predict", json=BODY, headers=headers).status_code != status:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_key_file_that_is_missing_keeps_the_server_from_starting(tmp_path: Path):
    result = command("--models", str(tmp_path), "--admin-keys-file", str(tmp_path / "none"))
    sentence(result, 1, "--admin-keys-file: No such file")


@pytest.mark.parametrize("position", [0, 7, 8, 15, 16, 31])
def test_every_byte_of_a_digest_counts(tmp_path: Path, position: int):
    """Another key whose digest differs in a single byte, wherever it is, is another key."""
    path = tmp_path / "keys"
    path.write_text("a-key-of-sixteen-characters\n")
    keys = KeyFile(path, "--api-keys-file")
    digest = hashlib.sha256(b"a-key-of-sixteen-characters").digest()
    assert keys.holds(digest)
    other = bytearray(digest)
    other[position] ^= 1
    assert not keys.holds(bytes(other))
    assert not keys.holds(digest[: position + 1] if position < 31 else digest[:-1])
