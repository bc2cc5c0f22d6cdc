"""Everything of tests/attacks against a real server: a clean 4xx, and the server is as before."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import repository
from conftest import Served
from onnx import TensorProto
from test_connections import answer, connect
from test_metrics import until

pytestmark = pytest.mark.slow

ATTACKS = Path(__file__).parent.parent / "attacks"
BODIES = json.loads((ATTACKS / "bodies" / "index.json").read_text())
RAW = sorted(path.name for path in (ATTACKS / "raw").iterdir())
MODELS = sorted(path.name for path in (ATTACKS / "models").iterdir())

GOOD = {"inputs": [[1, 2, 3, 4]]}
CANARY = Path("/tmp/foldserve-was-unpickled")
# What all attacks together may cost; a server at rest has some 100 MB.
MEMORY_GROWTH_BYTES = 100_000_000


def memory(served: Served) -> int:
    """Resident bytes of the server."""
    pages = Path(f"/proc/{served.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.fixture(scope="module")
def target(start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, int]]:
    root = tmp_path_factory.mktemp("target")
    repository.publish(root, "animals", repository.linear())
    vision = repository.elementwise("Neg", TensorProto.FLOAT, ("batch", 3, 6, 5))
    repository.publish(root, "vision", vision, preprocessing={"height": 6, "width": 5})
    served = start(root, "--default-model", "animals", "--header-timeout-ms", "2000",
                   "--body-timeout-ms", "2000", "--max-body-bytes", "200000")  # fmt: skip
    with served.client() as client:
        assert client.post("/predict", json=GOOD).status_code == 200
    yield served, memory(served)
    assert served.stop() == 0


def as_before(target: tuple[Served, int]) -> None:
    served, memory_before = target
    with served.client() as client:
        assert client.get("/health/ready").status_code == 200
        assert client.post("/predict", json=GOOD).status_code == 200
    assert served.err == ""
    assert not CANARY.exists()
    assert memory(served) < memory_before + MEMORY_GROWTH_BYTES


def clean(body: bytes) -> None:
    """One of our two shapes of an error, short, without paths and without the insides."""
    error = json.loads(body)
    assert set(error) in ({"code", "message", "hint"}, {"error"})
    assert len(body) < 2000
    text = " ".join(error.values())
    for inside in ("Traceback", 'File "', "/tmp/", "/usr/", "site-packages", "uvicorn"):
        assert inside not in text


@pytest.mark.parametrize("name", list(BODIES))
def test_bodies(target: tuple[Served, int], name: str):
    how = BODIES[name]
    content = (ATTACKS / "bodies" / name).read_bytes()
    with target[0].client() as client:
        response = client.post(how["path"], content=content, headers=how["headers"])
    assert response.status_code in how["status"], response.text
    clean(response.content)
    as_before(target)


@pytest.mark.parametrize("name", RAW)
def test_bytes(target: tuple[Served, int], name: str):
    content = (ATTACKS / "raw" / name).read_bytes()
    with connect(target[0]) as connection:
        connection.sendall(content)
        status, headers, body = answer(connection)
    assert 400 <= status < 500
    clean(body)
    assert "set-cookie" not in headers
    assert "x-evil" not in headers
    assert len(headers.get("x-request-id", "")) <= 128
    as_before(target)


def test_models(start, tmp_path: Path):
    """Not one of them is served, each has a reason, and the good one beside them works."""
    repository.publish(tmp_path / "models", "good", repository.linear())
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    for name in MODELS:
        shutil.copytree(ATTACKS / "models" / name, tmp_path / "models" / name / "1")
    served = start(tmp_path / "models", "--default-model", "good")
    with served.client() as client:
        assert client.post("/predict", json=GOOD).status_code == 200
        shown = {model["name"]: model for model in client.get("/models").json()["models"]}
        assert set(shown) == {"good", *MODELS}
        for name in MODELS:
            assert shown[name]["state"] == "unavailable", name
            (rejected,) = shown[name]["rejected"]
            assert rejected["reason"], name
            assert len(rejected["reason"]) < 500, name
            for inside in (str(tmp_path), "/etc", "/dev", "secret", "unexpected"):
                assert inside not in rejected["reason"], name
            response = client.post(f"/models/{name}/predict", json=GOOD)
            assert response.status_code == 503
            clean(response.content)
    assert served.stop() == 0
    assert "Traceback" not in served.err
    assert not CANARY.exists()


# --- many at once -----------------------------------------------------------------------


def test_a_thousand_slow_clients_hold_nobody_up(target: tuple[Served, int]):
    """Half a head each, half a body each; the others are answered, and those are let go."""
    served = target[0]
    halves = (b"POST /predict HTTP/1.1\r\nHost: x\r\n", b"POST /predict HTTP/1.1\r\nHost: x\r\n"
              b"Content-Length: 150000\r\n\r\n{")  # fmt: skip
    crowd = []
    for i in range(300):
        crowd.append(connect(served))
        crowd[-1].sendall(halves[i % 2])
    with served.client() as client:
        for _ in range(20):
            assert client.post("/predict", json=GOOD).status_code == 200
            assert client.get("/health/live").status_code == 200
    for connection in crowd:
        assert answer(connection)[0] == 408
        connection.close()
    as_before(target)


def test_memory_stays_bounded_when_bodies_come_at_ten_times_the_capacity(start, zoo: Path):
    """40 clients hold back the ends of 2 MB each, where 8 MB of large ones may be held."""
    served = start(zoo, "--default-model", "animals", "--max-body-bytes", "2000000",
                   "--max-in-flight-bytes", "9200000")  # fmt: skip
    with served.client() as client:
        assert client.post("/predict", json=GOOD).status_code == 200
    before = memory(served)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
    crowd: list[socket.socket] = []
    with served.client() as client:
        for held in range(1, 5):
            crowd.append(connect(served))
            crowd[-1].sendall(head + b" " * 1_900_000)
            until(client, "foldserve_bodies_held_bytes", held * 2_000_000)
        for _ in range(36):
            crowd.append(connect(served))
            crowd[-1].sendall(head)
            status, headers, _ = answer(crowd[-1])
            assert (status, headers["retry-after"]) == (503, "1")
    assert memory(served) < before + 50_000_000
    with served.client() as client:
        assert client.get("/health/ready").status_code == 200
    for connection in crowd:
        connection.close()
    with served.client() as client:
        while (response := client.post("/predict", json=GOOD)).status_code == 503:
            pass
        assert response.status_code == 200
    assert served.stop() == 0
    assert served.err == ""


def test_the_files_are_those_that_the_script_writes(tmp_path: Path, monkeypatch):
    """So that nobody edits one and not the other; compressed ones may differ in their bytes."""
    monkeypatch.syspath_prepend(str(ATTACKS))
    import make_attacks

    assert sorted(BODIES) == sorted(make_attacks.BODIES)
    assert sorted(make_attacks.RAW) == RAW
    assert sorted(make_attacks.MODELS) == MODELS
    for name, content in make_attacks.RAW.items():
        assert (ATTACKS / "raw" / name).read_bytes() == content


def test_httpx_is_not_what_keeps_the_ids_clean(target: tuple[Served, int]):
    """The id of a request never carries more than it may, whatever was sent."""
    with target[0].client() as client:
        for wild in (b"a b", b"\xc3\xa9", b"<script>", b"a" * 129, b"a;b"):
            response = client.get("/nope", headers=httpx.Headers([(b"x-request-id", wild)]))
            assert len(response.headers["x-request-id"]) == 32
    as_before(target)
