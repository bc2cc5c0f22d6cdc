"""Health/Watch, reflection, and how long connections over gRPC live, with plain gRPC clients."""

from __future__ import annotations

import json
import queue
import re
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import repository
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from conftest import Served
from google.protobuf import descriptor_pb2, descriptor_pool
from test_v2_grpc import address
from tritonclient.grpc import service_pb2

from service.protocols import grpc_health, grpc_messages, grpc_reflection

pytestmark = pytest.mark.slow

HEALTH = grpc_messages.classes(grpc_health.PACKAGE, grpc_health.MESSAGES)
REFLECTION = grpc_messages.classes("grpc.reflection.v1", grpc_reflection.MESSAGES)
SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3


class Watcher:
    """Collects what Watch tells, in a thread of its own."""

    def __init__(self, channel: grpc.Channel, service: str = "") -> None:
        call = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=lambda name: HEALTH["HealthCheckRequest"](
                service=name
            ).SerializeToString(),
            response_deserializer=HEALTH["HealthCheckResponse"].FromString,
        )
        self.call = call(service)
        self.told: queue.Queue[int | grpc.StatusCode] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for answer in self.call:
                self.told.put(answer.status)
            self.told.put(grpc.StatusCode.OK)
        except grpc.RpcError as error:
            self.told.put(error.code())

    def next(self, timeout_s: float = 30) -> int | grpc.StatusCode:
        return self.told.get(timeout=timeout_s)


@pytest.fixture(scope="module")
def shared(start, zoo: Path) -> Served:
    return start(zoo, "--grpc-port", "0", "--max-connections", "40")


@pytest.fixture
def channel(shared: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address(shared)) as opened:
        yield opened


def test_watch_tells_the_state_and_each_change_of_it(start, tmp_path: Path):
    models, keys = tmp_path / "models", tmp_path / "keys"
    models.mkdir()
    keys.write_text("the-key-that-changes-models\n")
    repository.publish(models, "m", repository.linear())
    served = start(models, "--grpc-port", "0", "--admin-keys-file", str(keys))
    with grpc.insecure_channel(address(served)) as opened:
        watcher, other = Watcher(opened), Watcher(opened, grpc_messages.SERVICE)
        assert watcher.next() == other.next() == SERVING
        client = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
        headers = {"x-api-key": "the-key-that-changes-models"}
        client.unload_model("m", headers=headers)
        assert watcher.next() == other.next() == NOT_SERVING
        client.load_model("m", headers=headers)
        assert watcher.next() == other.next() == SERVING
        client.close()
        # The stream does not hold up the end of the server, and ends itself in order.
        began = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - began < 9  # --drain-timeout-ms is 10,000
        assert [watcher.next(), watcher.next()] == [NOT_SERVING, grpc.StatusCode.OK]


def test_watch_of_liveness_and_of_a_service_that_there_is_not(channel: grpc.Channel):
    assert Watcher(channel, "liveness").next() == SERVING
    unknown = Watcher(channel, "other")
    assert unknown.next() == UNKNOWN
    with pytest.raises(queue.Empty):  # and once only
        unknown.next(1)
    assert unknown.call.is_active()
    unknown.call.cancel()


def test_grpcs_own_client_keeps_away_from_a_server_that_is_not_ready(start, shared, tmp_path: Path):
    """The library's client watches the health of each server by itself if it is asked to."""
    choose = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
    }
    empty = start(tmp_path, "--grpc-port", "0")
    empty.wait_for("  ready ")
    for served, ready in ((shared, True), (empty, False)):
        where = re.search(r"^  grpc +(\S+)$", served.out, re.MULTILINE)[1]
        options = [("grpc.service_config", json.dumps(choose))]
        with grpc.insecure_channel(f"ipv4:{where}", options=options) as opened:
            call = opened.unary_unary("/inference.GRPCInferenceService/ServerLive")
            if ready:
                assert call(b"", timeout=30)
                continue
            with pytest.raises(grpc.RpcError, match="unhealthy") as caught:
                call(b"", timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_streams_are_bounded_and_leave_room_for_calls(shared: Served, channel: grpc.Channel):
    """A tenth of --max-connections; what ends makes room for others."""
    watchers = [Watcher(channel, "liveness") for _ in range(12)]
    firsts = [each.next() for each in watchers]
    assert firsts.count(SERVING) == 4
    assert firsts.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 8
    with triton.InferenceServerClient(address(shared)) as client:
        assert client.is_server_live()
    for each in watchers:
        each.call.cancel()
    end = time.monotonic() + 30
    while True:
        again = Watcher(channel, "liveness")
        if again.next() == SERVING:
            break
        assert time.monotonic() < end
    again.call.cancel()


def ask(channel: grpc.Channel, package: str, *questions: dict) -> list:
    call = channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda fields: REFLECTION["ServerReflectionRequest"](
            **fields
        ).SerializeToString(),
        response_deserializer=REFLECTION["ServerReflectionResponse"].FromString,
    )
    return list(call(iter(questions)))


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
def test_reflection_describes_every_service(channel: grpc.Channel, package: str):
    (listed,) = ask(channel, package, {"list_services": "*"})
    names = [each.name for each in listed.list_services_response.service]
    assert names == [
        "inference.GRPCInferenceService", "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
    ]  # fmt: skip
    answers = ask(channel, package, *[{"file_containing_symbol": name} for name in names])
    pool = descriptor_pool.DescriptorPool()
    for answer in answers:
        for data in answer.file_descriptor_response.file_descriptor_proto:
            pool.Add(descriptor_pb2.FileDescriptorProto.FromString(data))
    methods = {name: pool.FindServiceByName(name).methods_by_name for name in names}
    described = methods["inference.GRPCInferenceService"]
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for name, method in described.items():
        assert method.input_type.full_name == theirs[name].input_type.full_name
        assert method.output_type.full_name == theirs[name].output_type.full_name
    assert {"ModelInfer", "ModelStatistics", "ModelConfig", "ServerReady"} <= set(described)
    assert methods["grpc.health.v1.Health"]["Watch"].server_streaming


def test_every_method_that_reflection_names_is_served(shared: Served, channel: grpc.Channel):
    (answer,) = ask(
        channel, "grpc.reflection.v1",
        {"file_containing_symbol": "inference.GRPCInferenceService.ModelInfer"},
    )  # fmt: skip
    (data,) = answer.file_descriptor_response.file_descriptor_proto
    (service,) = descriptor_pb2.FileDescriptorProto.FromString(data).service
    for method in service.method:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method.name}")
        try:
            call(b"")
        except grpc.RpcError as error:
            assert error.code() is not grpc.StatusCode.UNIMPLEMENTED, method.name  # noqa: PT017
    assert len(service.method) == 12


def test_reflection_says_what_there_is_not(channel: grpc.Channel):
    questions = [
        {"file_containing_symbol": "inference.Nothing"},
        {"file_containing_symbol": "inference.GRPCInferenceService.Nothing"},
        {"file_by_filename": "nothing.proto"},
        {"all_extension_numbers_of_type": "inference.ModelInferRequest"},
        {},
        {"list_services": ""},
    ]
    answers = ask(channel, "grpc.reflection.v1", *questions)
    assert [each.error_response.error_code for each in answers] == [5, 5, 5, 5, 3, 0]
    assert [each.original_request.file_by_filename for each in answers][2] == "nothing.proto"
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, "grpc.reflection.v1", {"file_containing_symbol": "a" * 5000})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    call = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\xff\xff"])))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_reflection_needs_a_key_where_keys_are_used(start, tmp_path: Path):
    repository.publish(tmp_path / "models", "m", repository.linear())
    (tmp_path / "keys").write_text("a-key-of-sixteen-letters\n")
    flags = ("--grpc-port", "0", "--api-keys-file", str(tmp_path / "keys"))
    with grpc.insecure_channel(address(start(tmp_path / "models", *flags))) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            ask(opened, "grpc.reflection.v1", {"list_services": ""})
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert Watcher(opened).next() == SERVING


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not installed")
def test_grpcurl_finds_its_way(shared: Served):
    import subprocess

    command = ["grpcurl", "-plaintext", address(shared), "list"]
    assert "inference.GRPCInferenceService" in subprocess.check_output(command, text=True)


# --- connections, seen from below: HTTP/2 frames ------------------------------------------

SETTINGS, PING, GOAWAY = 4, 6, 7
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + bytes(4) + payload


def frames(
    target: str, until: Callable[[list[tuple[int, int, bytes]]], bool], each: bytes = b""
) -> list[tuple[int, int, bytes]]:
    """(type, flags, payload) of what a silent client is sent, until it is enough or the end.

    `each`: sent five times a second.
    """
    host, _, port = target.rpartition(":")
    seen: list[tuple[int, int, bytes]] = []
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.settimeout(0.2)
        connection.sendall(PREFACE + frame(SETTINGS))
        data, end = b"", time.monotonic() + 15
        while not until(seen) and time.monotonic() < end:
            try:
                if each:
                    connection.sendall(each)
                    time.sleep(0.2)
                piece = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not piece:
                break
            data += piece
            while len(data) >= 9 and len(data) >= (size := 9 + int.from_bytes(data[:3], "big")):
                seen.append((data[3], data[4], data[9:size]))
                data = data[size:]
    return seen


def test_a_connection_without_calls_is_pinged_if_asked_for(start, zoo: Path):
    flags = ("--grpc-keepalive-time-ms", "1000", "--grpc-keepalive-timeout-ms", "500")
    target = address(start(zoo, "--grpc-port", "0", *flags))
    began = time.monotonic()
    seen = frames(target, lambda _: False)  # to the end: nobody answers the pings
    assert any(kind == PING and not flags & 1 for kind, flags, _ in seen)
    assert time.monotonic() - began < 10


def test_the_age_and_the_idleness_of_connections_are_bounded_if_asked_for(start, zoo: Path):
    for name in ("age", "idle"):
        target = address(start(zoo, "--grpc-port", "0", f"--grpc-max-connection-{name}-ms", "1000"))
        seen = frames(target, lambda seen: any(kind == GOAWAY for kind, _, _ in seen))
        assert any(kind == GOAWAY for kind, _, _ in seen), name
        with triton.InferenceServerClient(target) as client:  # which connects anew by itself
            for _ in range(3):
                assert client.is_server_live()
                time.sleep(0.8)


@pytest.mark.parametrize(("interval_ms", "cut_off"), [("10", False), ("300000", True)])
def test_clients_that_ping_too_often_are_cut_off(start, zoo: Path, interval_ms, cut_off):
    flags = ("--grpc-port", "0", "--grpc-min-ping-interval-ms", interval_ms)
    target = address(start(zoo, *flags))
    ping = frame(PING, bytes(8))

    def enough(seen: list[tuple[int, int, bytes]]) -> bool:
        kinds = [kind for kind, _, _ in seen]
        return GOAWAY in kinds or kinds.count(PING) >= 12

    seen = frames(target, enough, ping)
    gone = [payload for kind, _, payload in seen if kind == GOAWAY]
    assert bool(gone) is cut_off
    if cut_off:
        assert b"too_many_pings" in gone[0]


def test_the_name_that_clients_look_for_is_a_setting(start, zoo: Path):
    served = start(zoo, "--grpc-port", "0", "--server-name", "triton")
    with triton.InferenceServerClient(address(served)) as client:
        assert client.get_server_metadata().name == "triton"
    with served.client() as client:
        assert client.get("/v2").json()["name"] == "triton"
    assert re.search(r"foldserve", served.out, re.IGNORECASE)  # it does not hide what it is
