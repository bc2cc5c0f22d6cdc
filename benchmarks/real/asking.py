"""A real server for one published model, asked over HTTP: JSON, and V2 with binary tensors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ml_dtypes
import numpy as np

ROOT = Path(__file__).parents[2]
_URL = re.compile(r"^  url +http://127\.0\.0\.1:(\d+)$", re.MULTILINE)
_BROKEN = re.compile(r"^  BROKEN +(.*)$", re.MULTILINE)
_SETTLED = re.compile(r"^  ready +(\w+)", re.MULTILINE)
_HEADER = "Inference-Header-Content-Length"
# The names that the Open Inference Protocol has for numpy's.
DATATYPES = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "bfloat16": "BF16", "bool": "BOOL",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
_TYPES = {datatype: name for name, datatype in DATATYPES.items()}

Arrays = dict[str, np.ndarray]


class NotServedError(Exception):
    """The service does not serve the model; the sentence is its own."""


class Server:
    """`python -m service` with one models folder, as a context."""

    def __init__(self, models: Path, seconds: float = 120.0) -> None:
        self._words = [
            sys.executable, "-m", "service", "--models", str(models), "--port", "0",
            "--request-timeout-ms", "120000", "--log-level", "warning",
        ]  # fmt: skip
        self._seconds = seconds

    def __enter__(self) -> Self:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("FOLDSERVE_")}
        self._out = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._words, cwd=ROOT, stdout=self._out, stderr=subprocess.STDOUT, env=clean
        )
        end = time.monotonic() + self._seconds
        while not _SETTLED.search(said := self._said()):
            if self._process.poll() is not None or time.monotonic() > end:
                self._end()
                raise NotServedError(f"the service did not start: {said.strip()[-300:]}")
            time.sleep(0.05)
        found = _URL.search(said)
        assert found is not None, said
        self.port = int(found[1])
        if broken := _BROKEN.search(said):
            self._end()
            raise NotServedError(broken[1])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def peak_megabytes(self) -> int:
        """Of the server's process, so far."""
        return peak_megabytes(self._process.pid)

    def post(
        self, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=180)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def _said(self) -> str:
        self._out.seek(0)
        return self._out.read()

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._out.close()


def through_json(server: Server, model: str, feeds: Arrays) -> Arrays:
    """`POST /models/NAME/predict`, nested lists both ways; dtypes are what JSON gives."""
    body = json.dumps({"inputs": {name: _listed(array) for name, array in feeds.items()}})
    path, headers = f"/models/{model}/predict", {"Content-Type": "application/json"}
    status, _, answer = server.post(path, body.encode(), headers)
    if status != 200:
        raise NotServedError(f"JSON: {status} {answer[:300].decode(errors='replace')}")
    outputs: dict[str, Any] = json.loads(answer)["outputs"]
    # What is not finite is null in JSON.
    return {name: np.asarray(value, np.float64) for name, value in outputs.items()}


def through_v2(server: Server, model: str, feeds: Arrays) -> Arrays:
    """`POST /v2/models/NAME/infer`, binary tensors both ways."""
    chunks = [np.ascontiguousarray(array).tobytes() for array in feeds.values()]
    document = {
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": DATATYPES[array.dtype.name],
                "parameters": {"binary_data_size": len(chunk)},
            }
            for (name, array), chunk in zip(feeds.items(), chunks, strict=True)
        ],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(document).encode()
    headers = {"Content-Type": "application/octet-stream", _HEADER: str(len(head))}
    path = f"/v2/models/{model}/infer"
    status, said, answer = server.post(path, head + b"".join(chunks), headers)
    if status != 200:
        raise NotServedError(f"V2: {status} {answer[:300].decode(errors='replace')}")
    length = int(said.get(_HEADER.lower(), len(answer)))
    found, offset = {}, length
    for entry in json.loads(answer[:length])["outputs"]:
        size = entry.get("parameters", {}).get("binary_data_size")
        dtype = np.dtype(
            ml_dtypes.bfloat16 if entry["datatype"] == "BF16" else _TYPES[entry["datatype"]]
        )
        if size is None:
            array = np.asarray(entry["data"], dtype)
        else:
            array = np.frombuffer(answer, dtype, size // dtype.itemsize, offset)
            offset += size
        found[entry["name"]] = array.reshape(entry["shape"])
    if offset != len(answer):
        raise NotServedError(f"V2: {len(answer) - offset} bytes belong to no output")
    return found


def _listed(array: np.ndarray) -> Any:
    if array.dtype.name in ("float16", "float32", "bfloat16"):
        # float64's shortest digits of a float32 are twice as long.
        array = array.astype(np.float64)
    return array.tolist()


def peak_megabytes(process: int | str = "self") -> int:
    """Largest resident memory of a process so far."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0
