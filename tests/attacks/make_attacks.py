"""Writes the files of this folder: `python tests/attacks/make_attacks.py`.

    bodies/     bodies of requests; index.json says where each goes and what must come back
    raw/        bytes for a connection, as they are
    models/     repositories of models, none of which may be served

The files are kept, so that what is tested does not change with the libraries that made them.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

from onnx import TensorProto, helper

HERE = Path(__file__).parent
JSON = {"content-type": "application/json"}
NPY = {"content-type": "application/x-npy"}
V2 = "/v2/models/animals/infer"
TFS = "/v1/models/animals:predict"


def npy(header: str | bytes, data: bytes = b"", version: int = 1, length: int | None = None):
    text = header.encode() if isinstance(header, str) else header
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def plain(descr: str = "<f4", shape: str = "(1, 4)", order: str = "False") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n"


def pickled() -> bytes:
    """An array of objects, in opcodes by hand; loading it would run a command."""
    payload = b"cos\nsystem\n(S'touch /tmp/foldserve-was-unpickled'\ntR."
    return npy(plain("|O", "(1,)"), payload)


def zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            zipfile.ZipInfo("x.npy", (1980, 1, 1, 0, 0, 0)), bytes(20_000_000), zipfile.ZIP_DEFLATED
        )
    return file.getvalue()


def v2(**changes: object) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4], **changes}
    return json.dumps({"inputs": [tensor]}).encode()


ROW = b'{"inputs": [[1, 2, 3, %b]]}'

# name: body, headers, path, statuses
BODIES: dict[str, tuple[bytes, dict[str, str], str, list[int]]] = {
    name: (body, headers, path, [400])
    for path, headers, bodies in (
        ("/predict", JSON, {
            "deep-lists": b"[" * 60_000,
            "deep-objects": b'{"a":' * 20_000,
            "deep-closed": b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}",
            "nan": ROW % b"NaN",
            "infinity": ROW % b"Infinity",
            "minus-infinity": ROW % b"-Infinity",
            "1e400": ROW % b"1e400",
            "1e39": ROW % b"1e39",
            "huge-exponent": ROW % b"1e999999999999999999",
            "huge-integer": ROW % (b"9" * 20_000),
            "huge-fraction": ROW % (b"0." + b"1" * 20_000 + b"e+999"),
            "duplicate-key": b'{"inputs": [[1,2,3,4]], "inputs": [[1,2,3,4]]}',
            "duplicate-input": b'{"inputs": {"x": [[1,2,3,4]], "x": [[1,2,3,4]]}}',
            "duplicate-escaped": b'{"inputs": [[1,2,3,4]], "\\u0069nputs": [[1,2,3,4]]}',
            "invalid-utf8": b'{"inputs": [["\xff\xfe"]]}',
            "overlong-utf8": b'{"inputs\xc0\xaf": 1}',
            "utf16": '{"inputs": [[1,2,3,4]]}'.encode("utf-16"),
            "lone-surrogate": b'{"inputs": [["\\ud800"]]}',
            "nul-behind": b'{"inputs": [[1,2,3,4]]}\0',
            "nul-key": b'{"inputs": [[1,2,3,4]], "\\u0000": 1}',
            "two-documents": b'{"inputs": [[1,2,3,4]]}{"inputs": [[1,2,3,4]]}',
            "comment": b'{"inputs": [[1,2,3,4]] /* hello */}',
            "hex": ROW % b"0x10",
            "proto": b'{"__proto__": {"a": 1}, "inputs": [[1,2,3,4]]}',
            "long-key": b'{"' + b"k" * 50_000 + b'": 1}',
            "long-text": ROW % (b'"' + b"s" * 50_000 + b'"'),
            "markup-key": b'{"inputs": {"<script>alert(1)</script>": [[1]]}}',
            "many-keys": json.dumps({"inputs": {f"k{i}": 1 for i in range(5000)}}).encode(),
            "ragged": b'{"inputs": [[1,2,3,4],[1,2,3]]}',
            "empty": b"",
            "blank": b" " * 10_000,
            "form": b"inputs=1&inputs=2",
        }),
        ("/predict", NPY, {
            "npy-pickle": pickled(),
            "npy-objects": npy(plain("|O"), bytes(32)),
            "npy-no-magic": b"NUMPY" + bytes(100),
            "npy-cut-magic": b"\x93NUM",
            "npy-cut-length": b"\x93NUMPY\x01\x00\x10",
            "npy-cut-header": npy(plain()[:20]),
            "npy-cut-data": npy(plain(), bytes(15)),
            "npy-more-data": npy(plain(), bytes(17)),
            "npy-long-header": npy(plain(), bytes(16), 2, 0xFFFFFFFF),
            "npy-header-beyond": npy(plain(), bytes(16), 1, 65_535),
            "npy-version-9": npy(plain(), bytes(16), 9),
            "npy-code": npy("__import__('os').system('true')\n", bytes(16)),
            "npy-code-shape": npy(plain(shape="(__import__('os').getpid(), 4)"), bytes(16)),
            "npy-nested": npy("(" * 30_000, bytes(16)),
            "npy-huge-shape": npy(plain(shape="(1000000000000000000, 4)"), bytes(16)),
            "npy-overflow": npy(plain(shape="(4294967296, 4294967296)"), bytes(16)),
            "npy-negative": npy(plain(shape="(-1, 4)"), bytes(16)),
            "npy-many-axes": npy(plain(shape="(" + "1, " * 1000 + ")"), bytes(16)),
            "npy-text": npy(plain("<U1000000"), bytes(16)),
            "npy-record": npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,)}"),
            "npy-zero": npy(plain(shape="(0, 4)")),
            "npz-bomb": zip_bomb(),
        }),
        (V2, JSON, {
            "v2-negative": v2(shape=[-1, 4]),
            "v2-huge": v2(shape=[2**62, 4]),
            "v2-overflow": v2(shape=[2**32, 2**32]),
            "v2-too-few": v2(data=[1, 2]),
            "v2-ragged": v2(data=[[1, 2], [3]]),
            "v2-no-datatype": v2(datatype="FP31"),
            "v2-wrong-datatype": v2(datatype="BYTES", data=["a"]),
            "v2-name": v2(name="../../etc/passwd"),
            "v2-deep": b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}",
            "v2-shape-text": v2(shape="14"),
            "v2-shape-float": v2(shape=[1.0, 4.5]),
            "v2-nan": v2(data=[1, 2, 3, 4]).replace(b"4]}", b"NaN]}"),
            "v2-binary-missing": v2(parameters={"binary_data_size": 1 << 40}),
        }),
        (TFS, JSON, {
            "tfs-deep": b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}",
            "tfs-both": b'{"instances": [[1,2,3,4]], "inputs": [[1,2,3,4]]}',
            "tfs-b64": b'{"instances": [{"b64": "AAAA"}]}',
            "tfs-nan": b'{"instances": [[NaN,2,3,4]]}',
        }),
    )
    for name, body in bodies.items()
}  # fmt: skip
GZIPPED = gzip.compress(bytes(5_000_000), mtime=0)
BODIES |= {
    "gzip-bomb": (GZIPPED, {**JSON, "content-encoding": "gzip"}, "/predict", [413]),
    "v2-gzip-bomb": (GZIPPED, {**JSON, "content-encoding": "gzip"}, V2, [413]),
    "gzip-cut": (GZIPPED[:-9], {**JSON, "content-encoding": "gzip"}, "/predict", [400, 413]),
    "gzip-not": (GZIPPED[1:], {**JSON, "content-encoding": "gzip"}, "/predict", [400]),
    "deflate-raw": (
        zlib.compress(b"{}")[2:-4], {**JSON, "content-encoding": "deflate"}, "/predict", [400],
    ),
    "coding-twice": (GZIPPED, {**JSON, "content-encoding": "gzip, gzip"}, "/predict", [415]),
    "xml": (b"<!DOCTYPE a [<!ENTITY a 'a'>]>", {"content-type": "text/xml"}, "/predict", [415]),
    "pickle-type": (pickled(), {"content-type": "application/x-pickle"}, "/predict", [415]),
    "timeout-text": (ROW % b"4", {**JSON, "x-timeout-ms": "1e9"}, "/predict", [400]),
    "v2-length-lie": (
        v2(), {"inference-header-content-length": "999999999"}, V2, [400],
    ),
    "v2-length-text": (v2(), {"inference-header-content-length": "-5"}, V2, [400]),
    "raw-shape-lie": (
        bytes(16),
        {"content-type": "application/octet-stream", "x-shape": "4,4"},
        "/predict",
        [400],
    ),
    "raw-shape-huge": (
        bytes(16),
        {"content-type": "application/octet-stream", "x-shape": "999999999999999999,4"},
        "/predict",
        [400],
    ),
    "unload-anonymous": (b"{}", JSON, "/v2/repository/models/animals/unload", [401, 403]),
    "load-anonymous": (b"{}", JSON, "/v2/repository/models/..%2f..%2fetc/load", [401, 403, 404]),
}  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, color: int, data: bytes, *more: bytes) -> bytes:
    """A PNG of rows that all are `data` decompressed, with more chunks before them."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    end = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + end


def part(disposition: bytes, content: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + b"\r\n"


PIXEL = zlib.compress(b"\0\xff\xff\xff", 9)
BLACK = zlib.compress(bytes(20_000 * 2501), 9)  # 20,000 rows of 20,000 bits
TEXT_BOMB = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(30_000_000), 9))
PROFILE_BOMB = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(30_000_000), 9))
PICTURES = {
    "png-bomb": (png(20_000, 20_000, 1, 0, BLACK), [413]),
    "png-claims": (png(2**31 - 1, 2**31 - 1, 8, 2, PIXEL), [413]),
    "png-no-size": (png(0, 0, 8, 2, PIXEL), [400]),
    "png-too-few": (png(50, 50, 8, 2, PIXEL), [400]),
    "png-text-bomb": (png(50, 50, 8, 2, PIXEL, TEXT_BOMB), [400]),
    "png-profile-bomb": (png(50, 50, 8, 2, PIXEL, PROFILE_BOMB), [400]),
    "png-cut": (png(1, 1, 8, 2, PIXEL)[:40], [400]),
    "png-wrong-sum": (png(1, 1, 8, 2, PIXEL).replace(b"IHDR", b"IHDX"), [400]),
    "gif": (b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;", [400]),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>', [400]),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(id) system\n", [400]),
    "tiff": (b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 500, [400]),
    "bmp": (b"BM" + b"\xff" * 100, [400]),
    "jpeg-head": (b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3\1\x11\0", [400, 413]),
}
BODIES |= {
    f"image-{name}": (content, {"content-type": "image/png"}, "/models/vision/predict", statuses)
    for name, (content, statuses) in PICTURES.items()
}
MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
BODIES |= {
    f"multipart-{name}": (content, MULTIPART, "/models/vision/predict", [400, 413])
    for name, content in {
        "traversal": part(b'form-data; name="a"; filename="../../etc/passwd"', b"x") + b"--b--",
        "no-end": part(b'form-data; name="a"', b"x"),
        "no-boundary": b"nothing of it",
        "long-header": b"--b\r\n" + b"X: " + b"y" * 50_000,
        "many-headers": b"--b\r\n" + b"X: y\r\n" * 5000,
        "many-parts": part(b"form-data", b"") * 2000 + b"--b--",
        "only-ends": b"--b--" * 5000,
    }.items()
}

GOOD = b'{"inputs": [[1,2,3,4]]}'


def post(head: bytes, body: bytes = GOOD, path: bytes = b"/predict", length: bool = True) -> bytes:
    size = b"Content-Length: %d\r\n" % len(body) if length else b""
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%b%b\r\n%b" % (path, size, head, body)


def get(path: bytes, head: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path, head)


CHUNKED = b"Transfer-Encoding: chunked\r\n"
RAW: dict[str, bytes] = {
    "length-and-chunked": post(CHUNKED),
    "chunked-twice": post(CHUNKED * 2 + b"Content-Length: 3\r\n", length=False),
    "chunked-not-last": post(b"Transfer-Encoding: chunked, gzip\r\n", length=False),
    "length-twice": post(b"Content-Length: 5\r\n"),
    "length-negative": post(b"Content-Length: -5\r\n", length=False),
    "length-plus": post(b"Content-Length: +5\r\n", length=False),
    "length-hex": post(b"Content-Length: 0x17\r\n", length=False),
    "length-list": post(b"Content-Length: 23, 23\r\n", length=False),
    "length-huge": post(b"Content-Length: 99999999999999999999999\r\n", length=False),
    "length-large": post(b"Content-Length: 999999999999999999\r\n", length=False),
    "chunk-no-hex": post(CHUNKED, b"zz\r\n", length=False),
    "chunk-negative": post(CHUNKED, b"-1\r\n", length=False),
    "chunk-huge": post(CHUNKED, b"FFFFFFFFFFFFFFFFF\r\n", length=False),
    "chunk-large": post(CHUNKED, b"FFFFFFF\r\n" + b"x" * 40_000, length=False),
    "chunk-no-end": post(CHUNKED, b"3\r\nabcdef\r\n0\r\n\r\n", length=False),
    "chunk-one-byte": post(CHUNKED, b"1\r\n[\r\n" * 5000 + b"0\r\n\r\n", length=False),
    "chunk-bare-newline": post(CHUNKED, b"3\nabc\n0\n\n", length=False),
    "chunk-bare-return": post(CHUNKED, b"3\rabc\r\n0\r\n\r\n", length=False),
    "chunk-extension-long": post(
        CHUNKED, b"3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n", length=False
    ),
    "chunk-extension-return": post(CHUNKED, b"3;a\rb\r\nabc\r\n0\r\n\r\n", length=False),
    "chunk-size-spaces": post(CHUNKED, b" 3\r\nabc\r\n0\r\n\r\n", length=False),
    "chunk-size-underscore": post(CHUNKED, b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n", length=False),
    "chunk-trailer-folded": post(CHUNKED, b"0\r\nA: b\r\n c\r\n\r\n", length=False),
    "chunk-trailer-flood": post(CHUNKED, b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n", length=False),
    "chunked-1.0": b"POST /predict HTTP/1.0\r\nHost: x\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "host-none": b"GET / HTTP/1.1\r\n\r\n",
    "host-none-of-a-prediction": b"POST /predict HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "host-twice": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "host-twice-the-same": b"GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n",
    "line-bare-newline": b"GET / HTTP/1.1\nHost: x\n\n",
    "line-mixed-ends": b"GET / HTTP/1.1\r\nHost: x\nX-Y: z\r\n\r\n",
    "header-folded": get(b"/", b"X-Y: a\r\n b\r\n"),
    "header-folded-tab": get(b"/", b"X-Y: a\r\n\tb\r\n"),
    "header-folded-length": post(b"Content-Length:\r\n 2\r\n", b"{}", length=False),
    "header-before-all": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "header-no-colon": get(b"/", b"no colon here\r\n"),
    "header-space": get(b"/", b"X Y: z\r\n"),
    "header-space-before-colon": get(b"/", b"X-Y : z\r\n"),
    "header-nul": get(b"/", b"X-Y: a\0b\r\n"),
    "header-lone-return": get(b"/", b"X-Request-ID: a\rSet-Cookie: b\r\n"),
    "header-empty-name": get(b"/", b": z\r\n"),
    "header-flood": get(b"/", b"".join(b"h%d: v\r\n" % i for i in range(2000))),
    "header-same-flood": get(b"/", b"h: v\r\n" * 5000),
    "header-long": get(b"/", b"X-Y: " + b"z" * 50_000 + b"\r\n"),
    "header-long-name": get(b"/", b"X" * 50_000 + b": y\r\n"),
    "cookie-flood": get(b"/", b"Cookie: " + b"a=b; " * 10_000 + b"\r\n"),
    "url-long": get(b"/" + b"a" * 60_000),
    "url-empty": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "url-control": b"GET /\x01\x02 HTTP/1.1\r\nHost: x\r\n\r\n",
    "url-high": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "no-version": b"GET /nowhere\r\n\r\n",
    "version-9": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "method-unknown": b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n",
    "method-long": b"G" * 40_000 + b" / HTTP/1.1\r\n\r\n",
    "method-lower": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT internal:22 HTTP/1.1\r\nHost: x\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    "http2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls-hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "binary": bytes(range(256)) * 20,
    "traversal": get(b"/../../../../etc/passwd"),
    "traversal-model": get(b"/models/../../../etc/passwd"),
    "traversal-encoded": get(b"/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
    "traversal-twice-encoded": get(b"/models/%252e%252e%252fetc"),
    "traversal-overlong": get(b"/models/%c0%ae%c0%ae%c0%afetc"),
    "traversal-backslash": get(b"/models/..%5c..%5cwindows"),
    "traversal-predict": post(b"", path=b"/models/%2e%2e/predict"),
    "traversal-version": post(b"", path=b"/models/animals/versions/%2e%2e/predict"),
    "traversal-v2": post(b"", path=b"/v2/models/%2e%2e%2fanimals/infer"),
    "traversal-tfs": post(b"", path=b"/v1/models/..%2f..:predict"),
    "model-nul": post(b"", path=b"/models/a%00b/predict"),
    "model-newline": post(b"", path=b"/models/a%0d%0aX-Evil:%201/predict"),
    "model-markup": post(b"", path=b"/models/%3Cscript%3Ealert(1)%3C%2Fscript%3E/predict"),
    "model-long": post(b"", path=b"/models/" + b"m" * 20_000 + b"/predict"),
    "model-format": post(b"", path=b"/models/%25s%25n{0.__class__}/predict"),
    "version-huge": post(b"", path=b"/models/animals/versions/" + b"9" * 5000 + b"/predict"),
    "version-unicode": post(b"", path=b"/models/animals/versions/%D9%A1/predict"),
    "id-newline": post(b"X-Request-ID: a%0d%0aSet-Cookie:%20b\r\n", body=b"{"),
    "id-long": post(b"X-Request-ID: " + b"a" * 5000 + b"\r\n", body=b"{"),
    "id-folded": post(b"X-Request-ID: a\r\n Set-Cookie: b\r\n", body=b"{"),
    "id-markup": post(b"X-Request-ID: <script>\r\n", body=b"{"),
    "query-long": get(b"/nowhere?" + b"q=1&" * 5000),
    "websocket": post(b"Upgrade: websocket\r\nConnection: Upgrade\r\n", body=b"{"),
    "h2c": post(b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n", body=b"{"),
    "key-flood": get(b"/nowhere", b"Authorization: Bearer " + b"k" * 20_000 + b"\r\n"),
}


def external(location: str) -> TensorProto:
    tensor = TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def adding(tensor: TensorProto, batch: int | str = "batch", name: str = "x") -> bytes:
    x = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])
    add = helper.make_node("Add", [name, "W"], ["y"])
    graph = helper.make_graph([add], "g", [x], [y], [tensor])
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def weights(*dims: int) -> TensorProto:
    return TensorProto(name="W", data_type=TensorProto.FLOAT, dims=dims, raw_data=bytes(16))


FINE = adding(weights(4))


def manifest(**changes: object) -> bytes:
    import hashlib

    whole = {
        "name": "m",
        "version": 1,
        "files": {"model.onnx": {"sha256": hashlib.sha256(FINE).hexdigest(), "bytes": len(FINE)}},
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 4]}],
        **changes,
    }
    return json.dumps(whole).encode()


def declared(text: bytes) -> dict[str, bytes]:
    return {"model.onnx": FINE, "model.json": text}


def entry(content: bytes) -> dict[str, object]:
    import hashlib

    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def with_test(content: bytes) -> dict[str, bytes]:
    """A manifest whose self-test is `content`, with the right hash."""
    files = {"model.onnx": entry(FINE), "selftest.npz": entry(content)}
    return {
        **declared(manifest(files=files, self_test={"atol": {"y": 1.0}})),
        "selftest.npz": content,
    }


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name.replace("__", ":") + ".npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, content)
    return file.getvalue()


MODELS: dict[str, dict[str, bytes]] = {
    "external-parent": {"model.onnx": adding(external("../../../secret.bin"))},
    "external-absolute": {"model.onnx": adding(external("/etc/passwd"))},
    "external-device": {"model.onnx": adding(external("/dev/zero"))},
    "external-missing": {"model.onnx": adding(external("gone.bin"))},
    "huge-weights": {"model.onnx": adding(weights(2**40))},
    "overflowing-weights": {"model.onnx": adding(weights(2**32, 2**32))},
    "negative-weights": {"model.onnx": adding(weights(-4))},
    "huge-input": {"model.onnx": adding(weights(4), batch=2**40)},
    "cut": {"model.onnx": FINE[:-9]},
    "text": {"model.onnx": b"import os\n" * 50},
    "empty": {"model.onnx": b""},
    "manifest-deep": declared(b"[" * 60_000),
    "manifest-cut": declared(manifest()[:50]),
    "manifest-1e400": declared(manifest().replace(b'"version": 1', b'"version": 1e400')),
    "manifest-nan": declared(manifest(metrics={"a": 1.5}).replace(b"1.5", b"NaN1")),
    "manifest-huge-dim": declared(
        manifest(inputs=[{"name": "x", "dtype": "float32", "shape": [10**300, 4]}])
    ),
    "manifest-escape": declared(
        manifest(files={"../model.onnx": entry(FINE), "model.onnx": entry(FINE)})
    ),
    "manifest-backslash": declared(
        manifest(files={"..\\model.onnx": entry(FINE), "model.onnx": entry(FINE)})
    ),
    "manifest-other-name": declared(manifest(name="../../etc")),
    "manifest-markup": declared(manifest(name="<script>alert(1)</script>")),
    "manifest-unknown-key": declared(manifest(run="rm -rf /")),
    "selftest-pickle": with_test(zipped(input__x=pickled(), output__y=pickled())),
    "selftest-code": with_test(
        zipped(input__x=npy(plain(shape="(__import__('os').getpid(), 4)"), bytes(16)))
    ),
    "selftest-huge": with_test(zipped(input__x=npy(plain(shape="(1000000000000, 4)"), bytes(16)))),
    "selftest-text": with_test(b"PK\x03\x04 no archive"),
}


def write() -> None:
    for folder in ("bodies", "raw", "models"):
        (HERE / folder).mkdir(exist_ok=True)
    index = {}
    for name, (body, headers, path, statuses) in sorted(BODIES.items()):
        (HERE / "bodies" / name).write_bytes(body)
        index[name] = {"path": path, "headers": headers, "status": statuses}
    (HERE / "bodies" / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    for name, content in RAW.items():
        (HERE / "raw" / name).write_bytes(content)
    for name, files in MODELS.items():
        folder = HERE / "models" / name
        folder.mkdir(exist_ok=True)
        for file, content in files.items():
            named = content.replace(b'"name": "m"', f'"name": "{name}"'.encode())
            (folder / file).write_bytes(named)


if __name__ == "__main__":
    write()
