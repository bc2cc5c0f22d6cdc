"""Many clients at once: every answer right, overload early and clear, drain complete."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import struct
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import repository

if TYPE_CHECKING:  # other folders have a conftest of their own
    from conftest import Served

pytestmark = pytest.mark.slow

SLOW = 8_000  # iterations: some tenths of a second on any machine


@pytest.fixture(scope="module")
def slow_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slow")
    repository.publish(root, "slow", repository.slow(SLOW))
    return root


def address(served: Served) -> tuple[str, int]:
    host, port = served.url.removeprefix("http://").split(":")
    return host, int(port)


def start_and_hang_up(served: Served, content: bytes) -> None:
    """A complete request whose answer is not read."""
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection(address(served), timeout=30) as connection:
        connection.sendall(head.encode() + content)


def test_hundreds_of_mixed_requests_all_get_their_own_answer(start, zoo: Path):
    """Row counts, models, bad requests and hang-ups, all mixed; each answer is compared."""
    served = start(zoo, "--default-model", "animals", "--queue-capacity-samples", "100000")
    random = np.random.default_rng(7)
    linear = repository.Reference(repository.linear())
    bad = [
        ("/predict", b'{"inputs": [[1, 2, 3]]}', 400),
        ("/predict", b'{"inputs": [[1, 2, 3, null]]}', 400),
        ("/predict", b"{", 400),
        ("/models/embedding/predict", b'{"inputs": [77]}', 422),
        ("/models/nope/predict", b"{}", 404),
    ]

    async def good(client: httpx.AsyncClient) -> str:
        rows = int(random.integers(1, 40))
        x = random.standard_normal((rows, 4)).astype(np.float32)
        response = await client.post("/predict", json={"inputs": x.tolist()})
        assert response.status_code == 200, response.text
        got = np.array(response.json()["outputs"]["scores"], np.float32)
        expected = linear({"x": x})["scores"]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        return "good"

    async def other(client: httpx.AsyncClient) -> str:
        a, b = random.integers(-99, 99, (2, int(random.integers(1, 9)), 2)).astype(np.float32)
        inputs = {"a": a.tolist(), "b": b.tolist()}
        response = await client.post("/models/pair/predict", json={"inputs": inputs})
        assert response.json()["outputs"]["y"] == (a + b).tolist()
        return "other"

    async def wrong(client: httpx.AsyncClient, index: int) -> str:
        path, content, status = bad[index % len(bad)]
        response = await client.post(path, content=content)
        assert response.status_code == status
        assert set(response.json()) == {"code", "message", "hint"}
        return "wrong"

    async def gone() -> str:
        rows = [[0.5] * 4] * 30
        content = str({"inputs": rows}).replace("'", '"').encode()
        await asyncio.to_thread(start_and_hang_up, served, content)
        return "gone"

    async def main() -> Counter[str]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(
            base_url=served.url, limits=limits, timeout=60, trust_env=False
        ) as client:
            jobs = []
            for i in range(600):
                kind = i % 4
                jobs.append(
                    good(client) if kind < 2 else other(client) if i % 8 == 2
                    else wrong(client, i) if kind == 3 else gone()
                )  # fmt: skip
            return Counter(await asyncio.gather(*jobs))

    assert asyncio.run(main()) == {"good": 300, "other": 75, "wrong": 150, "gone": 75}
    with served.client() as client:
        assert client.get("/health/ready").status_code == 200
    assert served.stop() == 0
    assert served.err == ""


def async_client(served: Served) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=served.url, timeout=60, trust_env=False, verify=False)


def rows(count: int) -> dict[str, list[list[float]]]:
    return {"inputs": [[1.0]] * count}


def test_overload_is_an_early_clear_503_and_health_still_answers(start, slow_zoo: Path):
    served = start(slow_zoo, "--queue-capacity-samples", "3")

    async def main() -> list[httpx.Response]:
        async with async_client(served) as client:
            asked = [asyncio.create_task(client.post("/predict", json=rows(1))) for _ in range(12)]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert (await client.get("/health/live")).status_code == 200
            assert (await client.get("/health/ready")).status_code == 200
            # Health was answered while the owner was busy and its queue full.
            assert sum(not task.done() for task in asked) >= 2
            too_many = await client.post("/predict", json=rows(4))
            answers = await asyncio.gather(*asked)
            assert too_many.json()["code"] in {"queue_full", "too_many_samples"}
            too_many = await client.post("/predict", json=rows(4))
            assert (too_many.status_code, too_many.json()["code"]) == (413, "too_many_samples")
            assert (await client.post("/predict", json=rows(3))).status_code == 200
            return answers

    answers = asyncio.run(main())
    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) == {200, 503}
    assert codes[200] >= 3  # as many as may wait
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["code"] == "queue_full"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        else:
            assert answer.json()["outputs"]["y"] == [[1.0]]
    assert served.stop() == 0
    assert served.err == ""


@pytest.mark.parametrize("linger", [None, struct.pack("ii", 1, 0)], ids=["close", "reset"])
def test_clients_that_leave_make_no_noise(start, zoo: Path, linger: bytes | None):
    """Several requests at once, then gone: a log line for each would be a flood."""
    served = start(zoo, "--default-model", "animals")
    content = str(rows_of_zeros(50)).replace("'", '"').encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    request = head.encode() + content + b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n"
    for _ in range(10):
        connections = [socket.create_connection(address(served)) for _ in range(20)]
        for connection in connections:
            connection.sendall(request * 5)
        for connection in connections:
            if linger is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
    with served.client() as client:
        assert answer_when_there_is_room(client, content).status_code == 200
    assert served.stop() == 0
    assert served.err == ""


def answer_when_there_is_room(client: httpx.Client, content: bytes) -> httpx.Response:
    """The answer to a request, asked again for as long as the queue is full, at most 60 s:
    until the server has noticed that a client is gone, its requests hold their places."""
    until = time.monotonic() + 60
    while True:
        response = client.post("/predict", content=content)
        if response.status_code != 503 or time.monotonic() > until:
            return response
        assert response.json()["code"] == "queue_full"
        time.sleep(0.05)


def rows_of_zeros(count: int) -> dict[str, list[list[float]]]:
    return {"inputs": [[0.0] * 4] * count}


async def probe_until(client: httpx.AsyncClient, code: str) -> None:
    """Ask with a wrong shape, which is refused after the check for room, until `code` comes."""
    async with asyncio.timeout(60):
        while True:
            response = await client.post("/predict", json={"inputs": [[1.0, 2.0]]})
            if response.json()["code"] == code:
                return
            assert response.json()["code"] in {"queue_full", "wrong_shape"}


def test_a_client_that_hangs_up_gives_its_place_back(start, tmp_path: Path):
    """The one place of the queue is free again while the model is still running."""
    repository.publish(tmp_path, "slow", repository.slow(3 * SLOW))
    served = start(tmp_path, "--queue-capacity-samples", "1", "--runners", "1")
    content = b'{"inputs": [[1.0]]}'
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"

    async def accepted() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A request that is not refused: one that is, is refused before the probe is."""
        while True:
            reader, writer = await asyncio.open_connection(*address(served))
            writer.write(head.encode() + content)
            try:
                async with asyncio.timeout(0.1):
                    assert b"503" in await reader.readline()
            except TimeoutError:
                return reader, writer
            writer.close()

    async def main() -> None:
        async with async_client(served) as client:
            running, one = await accepted()
            answer = asyncio.create_task(running.readline())
            _, waiting = await accepted()
            await probe_until(client, "queue_full")
            waiting.close()
            await waiting.wait_closed()
            await probe_until(client, "wrong_shape")
            assert not answer.done()
            assert b"200" in await answer
            one.close()
            assert (await client.post("/predict", content=content)).status_code == 200

    asyncio.run(main())
    assert served.stop() == 0
    assert served.err == ""


# --- drain ------------------------------------------------------------------------------


def in_background(
    served: Served, count: int
) -> tuple[list[httpx.Response], list[threading.Thread]]:
    answers: list[httpx.Response] = []

    def ask(value: float) -> None:
        with served.client() as client:
            answers.append(client.post("/predict", json={"inputs": [[value]]}))

    threads = [threading.Thread(target=ask, args=(i + 1.0,)) for i in range(count)]
    for thread in threads:
        thread.start()
    return answers, threads


def in_flight(client: httpx.Client) -> int:
    """Requests that the server has begun and not answered, besides the one that asks."""
    found = re.search(
        r"^foldserve_requests_in_flight (\d+)$", client.get("/metrics").text, re.MULTILINE
    )
    assert found
    return int(found[1]) - 1


def test_sigterm_finishes_what_is_under_way(start, slow_zoo: Path):
    """Not ready at once, a second of grace, then the queue is worked off; exit code 0."""
    served = start(slow_zoo, "--drain-delay-ms", "1000", "--drain-timeout-ms", "60000")
    with served.client() as client:
        assert client.get("/health/ready").status_code == 200
        answers, threads = in_background(served, 5)
        while len(answers) + in_flight(client) < 5:
            time.sleep(0.005)
        served.process.send_signal(signal.SIGTERM)
        while (response := client.get("/health/ready")).status_code == 200:
            time.sleep(0.005)
        assert response.json()["code"] == "not_ready"
        assert "stopping" in response.json()["message"]
        assert client.get("/health/live").status_code == 200
    assert served.end() == 0
    for thread in threads:
        thread.join()
    assert sorted(a.json()["outputs"]["y"][0][0] for a in answers) == [1, 2, 3, 4, 5]
    assert served.err == ""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address(served), timeout=5)


def test_connections_that_are_kept_end_with_their_next_answer(start, zoo: Path):
    served = start(zoo, "--drain-delay-ms", "60000")
    with served.client() as kept:
        body = {"inputs": {"x": [[1, 2, 3, 4]]}}
        asked = (
            partial(kept.post, "/models/animals/predict", json=body),
            partial(kept.get, "/health/live"),
        )
        assert all("connection" not in ask().headers for ask in asked)
        served.process.send_signal(signal.SIGTERM)
        while kept.get("/health/ready").status_code == 200:
            time.sleep(0.01)
        end = time.monotonic() + 30
        while "connection" not in (answer := kept.get("/health/live")).headers:
            assert time.monotonic() < end
        for ask in asked:
            answer = ask()
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    served.process.send_signal(signal.SIGTERM)
    assert served.end() == 0


def test_the_drain_has_a_deadline_and_those_left_are_told(start, slow_zoo: Path):
    served = start(slow_zoo, "--drain-timeout-ms", "1")

    async def main() -> list[httpx.Response]:
        async with async_client(served) as client:
            asked = [asyncio.create_task(client.post("/predict", json=rows(1))) for _ in range(6)]
            # Asked after the six and answered: so the server has read the six.
            await asyncio.sleep(0)
            for _ in range(3):
                await probe_until(client, "wrong_shape")
            served.process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*asked)

    answers = asyncio.run(main())
    assert served.end() == 0
    codes = Counter((a.status_code, a.json().get("code")) for a in answers)
    assert codes[503, "shutting_down"] >= 1
    assert set(codes) <= {(200, None), (503, "shutting_down")}
    assert "Traceback" not in served.err


def test_a_second_signal_ends_it_at_once(start, tmp_path: Path):
    """Minutes of work wait, and the drain would finish them; this waits one minute at most."""
    repository.publish(tmp_path, "slow", repository.slow(3 * SLOW))
    served = start(tmp_path, "--drain-timeout-ms", "600000", "--request-timeout-ms", "600000",
                   "--max-batch-size", "1", "--runners", "1")  # fmt: skip
    content = b'{"inputs": [[1.0]]}'
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    with served.client() as client:
        assert client.get("/health/ready").status_code == 200
        waiting = [socket.create_connection(address(served)) for _ in range(200)]
        for connection in waiting:
            connection.sendall(head.encode() + content)
        while "foldserve_requests_in_flight 201" not in client.get("/metrics").text:
            time.sleep(0.01)
    served.process.send_signal(signal.SIGTERM)
    while True:  # until the first signal was handled, so that the next one is the second
        try:
            with served.client() as client:
                if client.get("/health/ready").status_code == 503:
                    break
        except httpx.HTTPError:
            break
    assert served.stop() == 0
    for connection in waiting:
        connection.close()
    assert "Traceback" not in served.err


def test_refused_bodies_are_gone_at_once(start, zoo: Path):
    """60 kB each, 1500 of them: kept until a collection, they would be 90 MB."""
    served = start(zoo, "--default-model", "animals")
    body = b'{"inputs": [' + b"1, " * 20_000 + b"1]}"
    memory = Path(f"/proc/{served.process.pid}/statm")

    def pages() -> int:
        return int(memory.read_text().split()[1])

    with served.client() as client:
        for _ in range(50):
            assert client.post("/predict", content=body).status_code == 400
        before = pages()
        for _ in range(1500):
            assert client.post("/predict", content=body).status_code == 400
        assert (pages() - before) * 4096 < 40_000_000
    assert served.stop() == 0
