"""A real server with --require-signature: it starts, it refuses, and what it serves stays right."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import repository
from cryptography.hazmat.primitives.asymmetric import rsa
from repository import linear

from tests import signatures
from tests.serving import serving
from tests.signatures import Pair, pair

if TYPE_CHECKING:
    from conftest import Served

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
WATCH = ("--watch-interval-ms", "50")


@pytest.fixture
def mine(tmp_path: Path) -> Pair:
    return pair(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


def put(root: Path, key: Pair | None, version: int, name: str = "m") -> Path:
    """A version whose scores are those of `linear(seed=version)`, complete at once."""
    aside = root.parent / "aside"
    folder = repository.publish(aside, name, linear(seed=version), version, test={"x": X})
    if key:
        key.sign(folder)
    (root / name).mkdir(parents=True, exist_ok=True)
    return folder.rename(root / name / str(version))


def scores(client: httpx.Client) -> list[list[float]]:
    answer = client.post("/models/m/predict", json={"inputs": {"x": X.tolist()}})
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"]["scores"]  # type: ignore[no-any-return]


def expected(seed: int) -> np.ndarray:
    return repository.reference(linear(seed=seed), {"x": X})["scores"]


def rejected(client: httpx.Client, version: int) -> str | None:
    """Why the version is not served, once the server has seen it."""
    (told,) = [each for each in client.get("/models").json()["models"] if each["name"] == "m"]
    return next((each["reason"] for each in told["rejected"] if each["version"] == version), None)


def until(what: Callable[[], object], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_nothing_but_what_is_signed_is_ever_served(
    start: Callable[..., Served], root: Path, mine: Pair, tmp_path: Path
) -> None:
    """One attack after the other, each as a newer version, while requests are answered."""
    put(root, mine, 1)
    put(root, mine, 99, "other")
    served = start(root, "--require-signature", str(mine.public), *WATCH)
    files = ("model.onnx", "model.json", "selftest.npz", "model.sig")
    attacks: list[tuple[str, Callable[[Path], object]]] = [
        *((name, lambda folder, name=name: flip(folder / name)) for name in files),
        ("it is not signed", lambda folder: (folder / "model.sig").unlink()),
        ("'more.txt' is not signed", lambda folder: (folder / "more.txt").write_text("x")),
        ("selftest.npz is missing", lambda folder: (folder / "selftest.npz").unlink()),
        ("which is not trusted", pair(tmp_path, "other").sign),
        ("sha256 of model.json", lambda folder: shutil.copy(root / "m/1/model.sig", folder)),
        ("says 'm' version 1", lambda folder: _replace(folder, root / "m/1")),
        ("says 'other' version 99", lambda folder: _replace(folder, root / "other/99")),
        ("is a link", lambda folder: (folder / "link").symlink_to("model.onnx")),
        ("model.sig is larger", lambda folder: os.truncate(folder / "model.sig", 2**31)),
    ]
    with served.client() as client:
        for version, (reason, attack) in enumerate(attacks, 2):
            aside = tmp_path / "made"
            folder = put(aside / "models", mine, version)
            attack(folder)
            folder.rename(root / "m" / str(version))
            until(lambda version=version: rejected(client, version))
            assert reason in str(rejected(client, version))
            assert str(tmp_path) not in client.get("/models").text
            np.testing.assert_allclose(scores(client), expected(1), rtol=1e-4)
        put(root, mine, 50)  # and one that is signed is served at once
        until(lambda: np.allclose(scores(client), expected(50), rtol=1e-4))
        told = client.get("/models/m").text
        assert "signed_by" in told
        for name in files:
            flip(root / "m" / "50" / name)
        until(lambda: rejected(client, 50))
        assert "as it was loaded before, it serves on" in str(rejected(client, 50))
        np.testing.assert_allclose(scores(client), expected(50), rtol=1e-4)
    assert served.stop() == 0
    assert "Traceback" not in served.err
    assert served.err.count("is not served: ") >= len(attacks)


def _replace(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def test_each_worker_asks_for_the_signature(
    start: Callable[..., Served], root: Path, mine: Pair
) -> None:
    put(root, mine, 1)
    put(root, None, 2)
    served = start(root, "--require-signature", str(mine.public), "--workers", "2")
    for _ in range(20):
        with served.client() as client:  # a new connection, so that each worker is met
            assert "it is not signed" in str(rejected(client, 2))
            np.testing.assert_allclose(scores(client), expected(1), rtol=1e-4)
    assert served.stop() == 0


def test_a_replica_of_a_cluster_asks_for_the_signature(root: Path, mine: Pair) -> None:
    """What Ray starts on each node, here without Ray."""
    from service.cluster.replica import Served as Replica
    from service.settings_read import parse

    put(root, mine, 1)
    put(root, None, 2)
    settings = parse(["--models", str(root), "--require-signature", str(mine.public)], {})
    replica = Replica(settings.model_dump(), "0", "session")
    entry = replica._context.registry.entries["m"]
    assert list(entry.versions) == [1]
    assert "it is not signed" in entry.rejected[2]
    assert replica._context.registry.close(30)


def test_from_a_store(root: Path, mine: Pair, tmp_path: Path) -> None:
    put(root, mine, 1)
    put(root, None, 2)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FOLDSERVE_")}
    command = [sys.executable, "-m", "service", "--models", f"file://{root}", "--port", "0"]
    environ = {
        **clean,
        "FOLDSERVE_REQUIRE_SIGNATURE": str(mine.public),
        "FOLDSERVE_MODEL_CACHE": str(tmp_path / "cache"),
    }
    with (
        serving(command, env=environ) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        reason = str(rejected(client, 2))
        assert "it could not be fetched: it is not signed" in reason
        np.testing.assert_allclose(scores(client), expected(1), rtol=1e-4)


# --- keys that cannot be used: a sentence at the start ----------------------------------------


def refused(root: Path, key: Path, *flags: str, without: str = "") -> str:
    root.mkdir(exist_ok=True)
    program = "import sys\n"
    program += f"sys.modules[{without!r}] = None\n" if without else ""
    program += "from service.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FOLDSERVE_")}
    words = ["--models", str(root), "--port", "0", "--require-signature", str(key), *flags]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True, text=True, check=False, timeout=60, env=clean,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_keys_that_cannot_be_used(root: Path, mine: Pair, tmp_path: Path) -> None:
    garbage, empty, half, other = (tmp_path / name for name in ("garbage", "empty", "half", "rsa"))
    garbage.write_bytes(os.urandom(1000))
    empty.write_bytes(b"")
    half.write_bytes(mine.public.read_bytes()[:100])
    signatures.write_private(other, rsa.generate_private_key(65537, 2048))
    for key, why in {
        tmp_path / "missing": "there is no file",
        tmp_path: "there is no file",
        mine.private: "holds a private key, which only who signs may have",
        other: "holds a private key",
        garbage: "is not a file of keys or certificates in PEM",
        empty: "is not a file of keys or certificates in PEM",
        half: "is not a file of keys or certificates in PEM",
    }.items():
        said = refused(root, key)
        assert said.startswith("--require-signature: ")
        assert why in said
        assert said.count("\n") == 1


def test_keys_in_the_models_folder(root: Path, mine: Pair) -> None:
    root.mkdir()
    inside = root / "key.pub"
    shutil.copy(mine.public, inside)
    assert "lies in the models folder" in refused(root, inside)


def test_with_workers_and_without_the_extra(root: Path, mine: Pair) -> None:
    assert "holds a private key" in refused(root, mine.private, "--workers", "2")
    said = refused(root, mine.public, without="cryptography")
    assert (
        said == "--require-signature needs the extra [signing]: pip install 'foldserve[signing]'.\n"
    )
