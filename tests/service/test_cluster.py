"""The engine on a real Ray: two replicas on this machine, one Ray for all tests of this file."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import repository
import tritonclient.http as triton
from cluster_load import Load, replicas, until
from repository import linear, publish

from service import cpu

X = np.random.default_rng(3).standard_normal((2, 4)).astype(np.float32)
FIRST = repository.reference(linear(), {"x": X})["scores"]
SECOND = repository.reference(linear(seed=1), {"x": X})["scores"]
LONG = '{"inputs": [[1.0]]}'
IN_FLIGHT = re.compile(r"^foldserve_requests_in_flight\S* (\d+)$", re.MULTILINE)


def _missing() -> str | None:
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("ALL_TOOLS_REQUIRED"):
            return None
        return "needs the extra [ray]"
    if cpu.available().threads < 2:
        return "two replicas need two CPUs"
    return None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_missing() is not None, reason=str(_missing())),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    publish(root, "m", linear(), test={"x": X}, batch_invariant=True)
    publish(root, "slow", repository.slow(200))
    publish(root, "long", repository.slow(20_000))
    return root


@pytest.fixture(scope="module")
def served(start, models: Path) -> Iterator:
    # A short path: sockets lie in it. Ray leaves its logs, so it is ours to take away.
    scratch = tempfile.mkdtemp(prefix="r", dir="/tmp")
    home = Path(scratch) / "home"
    home.mkdir()
    server = start(
        models, "--engine", "ray", "--default-model", "m", "--max-replicas", "2",
        "--target-ongoing-requests", "2", "--scale-window-ms", "1000",
        "--upscale-delay-ms", "300", "--downscale-delay-ms", "1000",
        "--watch-interval-ms", "200", "--drain-timeout-ms", "20000",
        env={"RAY_TMPDIR": scratch, "HOME": str(home), "ORT_DISABLE_TELEMETRY": ""},
    )  # fmt: skip
    try:
        server.wait_for("  ready ", 240)
        server.home = home
        yield server
        # Each replica has loaded models by now: onnxruntime would have left its id there.
        assert not list(home.rglob("*icrosoft*"))
    finally:
        family = _below(server.process.pid)
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(60)
        for pid in filter(_runs, family):  # nothing, unless a test has failed
            os.kill(pid, signal.SIGKILL)
        server.end()  # also if it never started: or a later test is blamed for its pipes
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module")
def client(served) -> Iterator[httpx.Client]:
    with served.client() as open_client:
        yield open_client


def wrong(answer: httpx.Response) -> str | None:
    """An answer must be what its own version of the model says."""
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.text[:300]}"
    said = answer.json()
    expected = FIRST if said["model"]["version"] == 1 else SECOND
    got = np.array(said["outputs"]["scores"], np.float32)
    return None if np.allclose(got, expected, rtol=1e-5) else f"wrong: {said}"


def slow_wrong(answer: httpx.Response) -> str | None:
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.text[:300]}"
    return None if answer.json()["outputs"]["y"] == [[1.0]] else answer.text[:300]


def test_every_protocol_answers_as_onnxruntime_does(client: httpx.Client, served):
    ours = client.post("/predict", json={"inputs": X.tolist()})
    np.testing.assert_allclose(ours.json()["outputs"]["scores"], FIRST, rtol=1e-6)
    tfs = client.post("/v1/models/m:predict", json={"instances": X.tolist()})
    np.testing.assert_allclose(tfs.json()["predictions"], FIRST, rtol=1e-6)
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": X.ravel().tolist()}
    v2 = client.post("/v2/models/m/infer", json={"inputs": [tensor]}).json()["outputs"][0]
    np.testing.assert_allclose(np.reshape(v2["data"], v2["shape"]), FIRST, rtol=1e-6)
    with triton.InferenceServerClient(served.url.removeprefix("http://")) as binary:
        given = triton.InferInput("x", [2, 4], "FP32")
        given.set_data_from_numpy(X, binary_data=True)
        wanted = triton.InferRequestedOutput("scores", binary_data=True)
        answer = binary.infer("m", [given], outputs=[wanted])
    np.testing.assert_array_equal(answer.as_numpy("scores"), FIRST)


def test_health_errors_and_ids_are_those_of_the_plain_service(client: httpx.Client):
    assert client.get("/health/ready").json()["status"] == "ready"
    refused = client.post("/predict", json={"inputs": "x"}, headers={"x-request-id": "mine"})
    assert refused.status_code == 400
    assert set(refused.json()) == {"code", "message", "hint"}
    assert refused.headers.get_list("x-request-id") == ["mine"]
    assert refused.headers.get_list("x-content-type-options") == ["nosniff"]
    large = client.post("/v2/models/m/infer", content=b" " * (17 * 1024 * 1024))
    assert large.status_code == 413
    assert set(large.json()) == {"error"}


def test_nothing_of_it_is_reached_from_outside(served):
    """Every listening socket of the processes below ours is on 127.0.0.1."""
    sockets = set()
    for pid in _below(served.process.pid):
        for name in ("tcp", "tcp6"):
            inodes = _inodes(pid)
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    sockets.add(fields[1].rpartition(":")[0])
    assert len(sockets) > 0
    local = {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}
    assert sockets <= local


def _below(pid: int) -> list[int]:
    found, left = [], [pid]
    while left:
        each = left.pop()
        found.append(each)
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                left += map(int, task.read_text().split())
    return found


def _inodes(pid: int) -> set[str]:
    try:
        links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def test_replicas_come_and_go_and_die_under_load_without_a_failure(client: httpx.Client, served):
    assert len(replicas(client)) == 1
    slow = Load(served.url, "/models/slow/predict", {"inputs": [[1.0]]}, slow_wrong, threads=6)
    with slow:
        until(lambda: len(replicas(client)) == 2)
        before = slow.answers
        until(lambda: slow.answers > before + 20)
        victim = min(replicas(client))
        os.kill(victim, signal.SIGKILL)  # with requests of six clients on two replicas
        until(lambda: len(replicas(client) - {victim}) == 2)
        before = slow.answers
        until(lambda: slow.answers > before + 20)
    assert slow.failures == []
    with Load(served.url, "/predict", {"inputs": X.tolist()}, wrong, 1, pause_s=0.02) as light:
        until(lambda: len(replicas(client)) == 1)
    assert light.failures == []


def test_a_new_version_comes_under_load_without_a_failure(
    client: httpx.Client, served, models: Path, tmp_path: Path
):
    seen: set[int] = set()

    def judge(answer: httpx.Response) -> str | None:
        trouble = wrong(answer)
        if trouble is None:
            seen.add(answer.json()["model"]["version"])
        return trouble

    folder = publish(tmp_path, "m", linear(seed=1), 2, test={"x": X}, batch_invariant=True)
    with Load(served.url, "/predict", {"inputs": X.tolist()}, judge, threads=2) as load:
        until(lambda: load.answers > 20)
        shutil.copytree(folder, models / "m" / "2")
        until(lambda: 2 in seen)
    assert load.failures == []
    assert seen == {1, 2}
    now = client.post("/predict", json={"inputs": X.tolist()}).json()
    assert now["model"]["version"] == 2
    old = client.post("/models/m/versions/1/predict", json={"inputs": X.tolist()})
    assert old.status_code == 404


REDEPLOY = """
import os, sys, warnings
warnings.simplefilter("ignore")
from service.cluster import plan as cluster_plan
os.environ.update(cluster_plan.ALONE)
import ray
from ray import serve
from service.cluster import application as cluster
from service.settings_read import parse
ray.init(address=sys.argv[1], namespace="serve")
serve.run(cluster.build(parse(sys.argv[2:], {})), name=cluster_plan.APP)
"""


def test_a_deployment_rolls_under_load_without_a_failure(
    client: httpx.Client, served, models: Path
):
    before = replicas(client)
    address = served.out.split("  ray      ")[1].split()[0]
    flags = ["--models", str(models), "--default-model", "m", "--max-replicas", "1",
             "--nan-policy", "error"]  # fmt: skip
    with Load(served.url, "/predict", {"inputs": X.tolist()}, wrong, threads=2) as load:
        ran = subprocess.run(
            [sys.executable, "-c", REDEPLOY, address, *flags],
            # As the cluster has it, whose token lies in its home.
            env={**os.environ, "RAY_AUTH_MODE": "token", "HOME": str(served.home)},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        until(lambda: (now := replicas(client)) and not now & before)
    assert load.failures == []


def test_a_signal_finishes_what_is_under_way_and_leaves_nothing(served, client: httpx.Client):
    family = _below(served.process.pid)
    got: list[httpx.Response] = []
    wait = threading.Thread(
        target=lambda: got.append(client.post("/models/long/predict", content=LONG,
                                              headers={"content-type": "application/json"}))
    )  # fmt: skip
    wait.start()
    busy = served.client()
    # The page counts the request for itself as well.
    until(lambda: sum(map(int, IN_FLIGHT.findall(busy.get("/metrics").text))) > 1 or got)
    assert not got
    served.process.send_signal(signal.SIGTERM)
    wait.join()
    assert slow_wrong(got[0]) is None
    assert served.end() == 0, served.err
    busy.close()
    host, port = served.url.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port))):
        pass
    until(lambda: not any(_runs(pid) for pid in family))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
