"""HTTPS and gRPC over TLS, with real certificates and real clients."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import numpy as np
import pytest
import repository
from authority import Authority, Pair
from cryptography import x509
from onnx import TensorProto
from test_metrics import parse, until, value

if TYPE_CHECKING:
    from conftest import Served

pytestmark = pytest.mark.slow

ROOT, STRANGER = Authority(), Authority("a root that nobody knows")
PAIR = ROOT.pair()
BODY = {"inputs": [[1, 2, 3, 4]]}
REQUEST = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 23\r\n\r\n" + b'{"inputs": [[1,2,3,4]]}'
)
CHECK = "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    repository.publish(root, "m", repository.linear())
    wide = repository.elementwise("Identity", TensorProto.FLOAT, ("batch", "n"))
    repository.publish(root, "wide", wide)
    return root


Begin = Callable[..., "Served"]


@pytest.fixture(scope="module")
def begin(start, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """Start a server with a certificate of ROOT."""

    def begun(*flags: str, pair: Pair = PAIR, folder: Path | None = None) -> Served:
        files = pair.write(folder or tmp_path_factory.mktemp("tls"), "server")
        named = ("--tls-certificate", str(files[0]), "--tls-key", str(files[1]))
        return start(models, "--default-model", "m", *named, *flags)

    return begun


@pytest.fixture(scope="module")
def server(begin: Begin) -> Iterator[Served]:
    served = begin("--grpc-port", "0", "--header-timeout-ms", "1000", "--body-timeout-ms", "1000")
    yield served
    assert served.stop() == 0
    assert served.err == ""


def context(folder: Path | None = None, pair: Pair | None = None) -> ssl.SSLContext:
    """Of a client that trusts ROOT, and has a certificate if it is given a pair."""
    made = ssl.create_default_context(cadata=ROOT.certificate.decode())
    if folder is not None and pair is not None:
        made.load_cert_chain(*pair.write(folder, "client"))
    return made


def client(served: Served, verify: ssl.SSLContext | None = None) -> httpx.Client:
    return httpx.Client(
        base_url=served.url, verify=verify or context(), timeout=60, trust_env=False
    )


def address(served: Served) -> tuple[str, int]:
    """Of HTTPS, once it serves."""
    host, port = served.url.removeprefix("https://").split(":")
    return host, int(port)


def grpc_address(served: Served) -> str:
    served.wait_for("  ready ")
    line = next(line for line in served.out.splitlines() if line.startswith("  grpc "))
    assert line.endswith(" (TLS)")
    return line.split()[1]


class Client:
    """TLS on a socket, a byte at a time if need be; unlike `ssl`'s it can close one half."""

    def __init__(self, served: Served) -> None:
        self.socket = socket.create_connection(address(served), timeout=60)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context().wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        self.ended = False

    def __enter__(self) -> Client:
        self.step(self.tls.do_handshake)
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def step(self, do: Callable[[], Any]) -> Any:
        """`do` what waits for the other side until that has come."""
        while True:
            try:
                return do()
            except ssl.SSLWantReadError:
                self.flush()
                self.receive()
            finally:
                self.flush()

    def receive(self) -> None:
        data = self.socket.recv(1 << 16)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def flush(self) -> None:
        self.socket.sendall(self.taken())

    def taken(self) -> bytes:
        """What would be sent now."""
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def read(self) -> bytes:
        """All that comes, up to the server's own end of it."""
        parts = []
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while part := self.step(lambda: self.tls.read(1 << 16)):
                parts.append(part)
        return b"".join(parts)

    def answer(self) -> bytes:
        """One answer with a length."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.step(lambda: self.tls.read(1 << 16))
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self.step(lambda: self.tls.read(1 << 16))
        return head + b"\r\n\r\n" + body


# --- clients as they are ----------------------------------------------------------------


def test_httpx_keeps_its_connection(server: Served):
    with client(server) as over:
        for _ in range(20):
            assert over.post("/predict", json=BODY).status_code == 200
        page = parse(over.get("/metrics").text)
        assert over.get("/").status_code == 200
    assert value(page, "foldserve_connections_open") == 1


def test_curl(server: Served, tmp_path: Path):
    program = shutil.which("curl")
    if program is None:
        pytest.skip("no curl")
    (tmp_path / "root.pem").write_bytes(ROOT.certificate)
    command = [program, "--silent", "--max-time", "30", "--cacert", str(tmp_path / "root.pem")]
    done = subprocess.run([*command, f"{server.url}/health/ready"], capture_output=True, check=True)
    assert b'"ready"' in done.stdout
    done = subprocess.run([*command[:-2], f"{server.url}/health/ready"], capture_output=True)
    assert done.returncode == 60  # it does not trust the root


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_the_protocol(server: Served, version: ssl.TLSVersion):
    ours = context()
    ours.minimum_version = ours.maximum_version = version
    with client(server, ours) as over:
        assert over.post("/predict", json=BODY).status_code == 200


def test_older_versions_are_refused(server: Served):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(address(server), timeout=60) as plain,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(plain)


def test_grpc(server: Served):
    target = grpc_address(server)
    trusting = grpc.ssl_channel_credentials(ROOT.certificate)
    with grpc.secure_channel(target, trusting) as channel:
        assert channel.unary_unary(CHECK)(b"", timeout=30) == b"\x08\x01"
    with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(CHECK)(b"", timeout=30)


def test_tritons_clients(server: Served, tmp_path: Path):
    import gevent.ssl
    import tritonclient.grpc
    import tritonclient.http

    root = tmp_path / "root.pem"
    root.write_bytes(ROOT.certificate)
    overs = [
        tritonclient.http.InferenceServerClient(
            "{}:{}".format(*address(server)),
            ssl=True,
            insecure=True,  # its own look at the name is deprecated; the context has another
            ssl_options={"server_hostname": "127.0.0.1"},
            ssl_context_factory=partial(gevent.ssl.create_default_context, cafile=str(root)),
        ),
        tritonclient.grpc.InferenceServerClient(
            grpc_address(server), ssl=True, root_certificates=str(root)
        ),
    ]
    for module, over in zip((tritonclient.http, tritonclient.grpc), overs, strict=True):
        x = module.InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(np.ones((1, 4), np.float32))
        assert over.infer("m", [x]).as_numpy("scores").shape[0] == 1
        over.close()


def test_plain_http_is_told_so(server: Served):
    with httpx.Client(timeout=60, trust_env=False) as plain:
        answer = plain.get(server.url.replace("https", "http") + "/health/live")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_http")
    assert "https://" in answer.json()["hint"]


# --- clients that have a certificate, and others ----------------------------------------


def test_a_certificate_is_asked_of_clients(begin: Begin, tmp_path: Path):
    (tmp_path / "root.pem").write_bytes(ROOT.certificate)
    served = begin("--tls-client-ca", str(tmp_path / "root.pem"), "--grpc-port", "0")
    known, unknown = ROOT.pair("a client"), STRANGER.pair("a client")
    with client(served, context(tmp_path / "known", known)) as over:
        assert over.post("/predict", json=BODY).status_code == 200
        for theirs in (context(), context(tmp_path / "unknown", unknown)):
            with client(served, theirs) as other, pytest.raises(httpx.TransportError):
                other.post("/predict", json=BODY)
        page = parse(over.get("/metrics").text)
    assert value(page, "foldserve_refused_total", reason="tls_handshake") == 2
    target = grpc_address(served)
    trusted = grpc.ssl_channel_credentials(ROOT.certificate, known.key, known.certificate)
    with grpc.secure_channel(target, trusted) as channel:
        assert channel.unary_unary(CHECK)(b"", timeout=30) == b"\x08\x01"
    for theirs in (
        grpc.ssl_channel_credentials(ROOT.certificate),
        grpc.ssl_channel_credentials(ROOT.certificate, unknown.key, unknown.certificate),
    ):
        with grpc.secure_channel(target, theirs) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(CHECK)(b"", timeout=30)
    assert served.stop() == 0


# --- files that change ------------------------------------------------------------------


def number(served: Served) -> int:
    """The serial number of the certificate that a new connection gets."""
    shown = ssl.get_server_certificate(address(served), timeout=60)
    return x509.load_pem_x509_certificate(shown.encode()).serial_number


def serial(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate).serial_number


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_new_files_are_used_while_it_serves(begin: Begin, tmp_path: Path, workers: str):
    served = begin("--workers", workers, "--log-level", "error", folder=tmp_path)
    second = ROOT.pair("its successor")
    with client(served) as kept:

        def shown(name: str, **labels: str) -> list[float]:
            samples = parse(kept.get("/metrics").text)
            wanted = set(labels.items())
            return [v for (n, of), v in samples.items() if n == name and wanted <= of]

        eventually(lambda: shown("foldserve_ready") == [1.0] * int(workers))
        assert kept.post("/predict", json=BODY).status_code == 200
        assert number(served) == serial(PAIR)
        second.write(tmp_path, "server")
        # So many connections in a row reach both workers.
        eventually(lambda: all(number(served) == serial(second) for _ in range(12)))
        assert kept.post("/predict", json=BODY).status_code == 200  # as it began
        expires = x509.load_pem_x509_certificate(second.certificate).not_valid_after_utc
        when = shown("foldserve_certificate_expires_seconds")
        assert set(when) == {expires.timestamp()}
        (tmp_path / "server.key").write_bytes(PAIR.key)
        failed = "foldserve_failed_reloads_total"
        eventually(lambda: shown(failed, what="certificate") == [1.0] * int(workers))
        assert "stays as it was" in served.err
        assert number(served) == serial(second)
        assert kept.post("/predict", json=BODY).status_code == 200
    assert served.stop() == 0


def test_grpc_has_new_files_too(begin: Begin, tmp_path: Path):
    served = begin("--grpc-port", "0", folder=tmp_path)
    target = grpc_address(served)
    trusting = grpc.ssl_channel_credentials(STRANGER.certificate)
    STRANGER.pair().write(tmp_path, "server")
    with grpc.secure_channel(target, trusting) as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        assert channel.unary_unary(CHECK)(b"", timeout=30) == b"\x08\x01"
    assert served.stop() == 0


def test_files_that_cannot_be_used_end_the_start(begin: Begin, start, models: Path):
    broken = Pair(PAIR.certificate, ROOT.pair().key)
    for flags in ((), ("--workers", "2")):
        served = begin(*flags, pair=broken)
        assert served.end() == 1
        assert served.err.count("is not the private key of the certificate") == 1
        assert "Traceback" not in served.err
    served = start(models, "--tls-key", "somewhere")
    assert served.end() == 1
    assert "needs both --tls-certificate and --tls-key" in served.err


# --- a connection, as without TLS -------------------------------------------------------


def test_a_request_may_come_byte_by_byte(server: Served):
    with Client(server) as over:
        over.tls.write(REQUEST)
        for byte in over.taken():
            over.socket.sendall(bytes([byte]))
        assert over.answer().startswith(b"HTTP/1.1 200")
        over.send(REQUEST * 3)  # and several in one record
        for _ in range(3):
            assert over.answer().startswith(b"HTTP/1.1 200")


def test_a_large_body_arrives_as_it_was_sent(server: Served):
    x = np.random.default_rng(5).standard_normal((2, 500_000)).astype(np.float32)
    headers = {
        "content-type": "application/octet-stream", "x-shape": "2,500000",
        "accept": "application/octet-stream",
    }  # fmt: skip
    with client(server) as over:
        for _ in range(2):
            answer = over.post("/models/wide/predict", content=x.tobytes(), headers=headers)
            assert answer.status_code == 200
            assert answer.content == x.tobytes()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_early_refusal_arrives_though_all_of_the_body_is_sent_first(
    server: Served, version: bytes
):
    size = 17 << 20
    head = (
        b"POST /predict HTTP/%b\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        % (version, size)
    )
    with Client(server) as over:
        over.send(head)
        for _ in range(size >> 16):
            over.send(b"x" * (1 << 16))
        answer = over.read()
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b"}")


def test_who_has_closed_one_half_is_answered(server: Served):
    with Client(server) as over:
        over.tls.write(REQUEST)
        with contextlib.suppress(ssl.SSLWantReadError):
            over.tls.unwrap()  # no more comes from here
        over.flush()
        assert over.read().startswith(b"HTTP/1.1 200")


def test_the_end_of_a_connection_is_said(server: Served):
    """Without close_notify, who reads to the end cannot tell it from an attack."""
    with Client(server) as over:
        over.send(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert over.read().startswith(b"HTTP/1.1 200")


def test_a_handshake_that_does_not_end_is_ended(server: Served):
    hello = ssl.MemoryBIO()
    half = context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    with socket.create_connection(address(server), timeout=60) as silent, client(server) as other:
        silent.sendall(hello.read()[:20])
        until(other, "foldserve_connections_open", 2)
        while silent.recv(1024):
            pass  # the end, after --header-timeout-ms
        until(other, "foldserve_connections_open", 1)


def test_who_does_not_begin_a_handshake_takes_no_place_of_health(begin: Begin):
    served = begin("--max-connections", "3")
    with contextlib.ExitStack() as stack:
        for _ in range(80):
            silent = socket.create_connection(address(served), timeout=60)
            stack.enter_context(silent)
        with client(served) as over:
            assert over.get("/health/live").status_code == 200
            answer = over.get("/models")
            assert (answer.status_code, answer.json()["code"]) == (503, "too_many_connections")
    with client(served) as over:
        eventually(lambda: over.get("/models").status_code == 200)
    assert served.stop() == 0


def test_an_answer_that_nobody_reads_is_counted_and_ended(begin: Begin):
    served = begin("--body-timeout-ms", "2000", "--max-body-bytes", "30000000")
    size = 5_000_000
    with client(served) as other:
        over = Client(served)
        over.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with over:
            head = (
                b"POST /models/wide/predict HTTP/1.1\r\nHost: x\r\nX-Shape: 1,%d\r\n"
                b"Content-Type: application/octet-stream\r\nAccept: application/octet-stream\r\n"
                b"Content-Length: %d\r\n\r\n" % (size, 4 * size)
            )
            over.send(head + bytes(4 * size))
            eventually(lambda: held(other) > 15_000_000)
            until(other, "foldserve_refused_total", 1, reason="answer_not_read")
            until(other, "foldserve_connections_open", 1)
        assert held(other) == 0
    assert served.stop() == 0


RAW = Path(__file__).parents[1] / "attacks" / "raw"


def test_hostile_bytes_get_the_answers_that_they_get_without_tls(start, begin: Begin, models: Path):
    limits = ("--header-timeout-ms", "700", "--body-timeout-ms", "700", "--max-body-bytes",
              "200000")  # fmt: skip
    plain, served = start(models, "--default-model", "m", *limits), begin(*limits)
    host, _, port = plain.url.removeprefix("http://").partition(":")
    for attack in sorted(RAW.iterdir()):
        content = attack.read_bytes()
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(content)
            wanted = connection.recv(12)
        with Client(served) as over:
            with contextlib.suppress(ConnectionError):
                over.send(content)
            assert over.step(lambda over=over: over.tls.read(12)) == wanted, attack.name
    with client(served) as over:
        assert over.post("/predict", json=BODY).status_code == 200
        until(over, "foldserve_connections_open", 1)
    for each in (plain, served):
        assert each.stop() == 0
        assert each.err == ""


def held(over: httpx.Client) -> float:
    return value(parse(over.get("/metrics").text), "foldserve_bodies_held_bytes")


def test_connections_are_ended_with_the_server(begin: Begin):
    served = begin()
    with Client(served) as over:
        over.send(REQUEST)
        assert over.answer().startswith(b"HTTP/1.1 200")
        assert served.stop() == 0
        assert over.read() == b""
