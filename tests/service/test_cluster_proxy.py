"""Around Ray's proxies: retries, limits and errors, with a proxy that does as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.cluster.proxy import Proxied
from service.settings import Settings

NOSNIFF = (b"x-content-type-options", b"nosniff")


async def _body(receive: Receive) -> bytes:
    message = await receive()
    assert message["more_body"] is False
    return message["body"]


def answers(status: int = 200, headers: tuple = (NOSNIFF,), body: bytes = b"ok"):
    async def go(scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"].append((b"x-written", b"by Ray"))
        await _body(receive)
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    return go


async def dies(scope: Scope, receive: Receive, send: Send) -> None:
    """As Ray's proxy when a replica ends that had the request."""
    await _body(receive)


async def dies_halfway(scope: Scope, receive: Receive, send: Send) -> None:
    await _body(receive)
    await send({"type": "http.response.start", "status": 200, "headers": [NOSNIFF]})


class Ray:
    """A proxy of which each try goes as listed."""

    def __init__(self, *tries: Callable) -> None:
        self._tries = list(tries)
        self.seen: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        await self._tries.pop(0)(scope, receive, send)


def ask(
    ray: Any,
    path: str = "/predict",
    chunks: tuple[bytes, ...] = (b"a", b"b"),
    headers: tuple = (),
    method: str = "POST",
    **settings: Any,
) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Message] = []
    left = list(chunks)

    async def receive() -> Message:
        if not left:
            return {"type": "http.disconnect"}
        chunk = left.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(Proxied(ray, Settings(**settings))(scope, receive, send))
    if not sent:
        return 0, {}, b""
    body = b"".join(m["body"] for m in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


def test_a_request_whose_replica_died_is_given_to_another_with_its_body():
    ray = Ray(dies, answers())
    status, _, body = ask(ray)
    assert (status, body) == (200, b"ok")
    assert len(ray.seen) == 2


def test_an_answer_that_was_only_begun_is_another_s():
    assert ask(Ray(dies_halfway, answers()))[::2] == (200, b"ok")


def test_a_request_is_retried_once_only():
    ray = Ray(dies, dies, answers())
    status, headers, body = ask(ray)
    assert status == 503
    assert json.loads(body)["code"] == "replica_lost"
    assert headers[b"retry-after"] == b"1"
    assert len(ray.seen) == 2


@pytest.mark.parametrize("path", ["/health/live", "/v2/health/live"])
@pytest.mark.parametrize("status", [404, 408, 503, None])
def test_live_is_never_refused(path: str, status: int | None):
    tries = [dies, dies] if status is None else [answers(status, ())]
    said, _, body = ask(Ray(*tries), path, (b"",), method="GET")
    assert (said, json.loads(body)) == (200, {"live": True} if "v2" in path else {"status": "live"})


def test_what_changes_the_server_is_not_retried():
    ray = Ray(dies, answers())
    status, _, body = ask(ray, "/v2/repository/models/m/load")
    assert status == 503
    assert set(json.loads(body)) == {"error"}
    assert len(ray.seen) == 1


@pytest.mark.parametrize("status", [400, 500, 503, 504])
def test_an_error_of_a_replica_is_an_answer(status: int):
    ray = Ray(answers(status))
    assert ask(ray)[::2] == (status, b"ok")


@pytest.mark.parametrize(
    ("status", "code", "answered"),
    [
        (503, "queue_full", 503),
        (404, "shutting_down", 503),
        (408, "deadline_exceeded", 504),
    ],
)
def test_what_the_proxy_says_itself_is_said_in_our_words(status: int, code: str, answered: int):
    found, headers, body = ask(Ray(answers(status, headers=(), body=b"Ray's")))
    assert (found, json.loads(body)["code"]) == (answered, code)
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"x-request-id"]
    assert (b"retry-after" in headers) == (answered == 503)


def test_a_body_that_is_too_large_never_reaches_ray():
    ray = Ray()
    status, _, body = ask(ray, chunks=(b"x" * 600, b"x" * 600, b""), max_body_bytes=1000)
    assert (status, json.loads(body)["code"]) == (413, "body_too_large")
    assert ray.seen == []


def test_a_client_that_left_costs_nothing_more():
    ray = Ray()
    assert ask(ray, chunks=()) == (0, {}, b"")
    assert ray.seen == []


def test_clients_do_not_steer_ray_and_ids_are_harmless():
    ray = Ray(answers())
    given = (
        (b"x-request-timeout-seconds", b"0.001"), (b"x-session-id", b"1"),
        (b"serve_multiplexed_model_id", b"m"), (b"x-request-id", b"a\tb"), (b"accept", b"*/*"),
    )  # fmt: skip
    ask(ray, headers=given)
    found = dict(ray.seen[0]["headers"])
    assert set(found) == {b"x-request-id", b"accept", b"x-written"}
    assert found[b"x-request-id"] != b"a\tb"


def test_ray_s_own_paths_are_left_alone():
    ray = Ray(answers(headers=(), body=b"success"))
    assert ask(ray, "/-/healthz", chunks=(b"",))[::2] == (200, b"success")
