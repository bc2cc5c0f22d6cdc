"""This project's service with its defaults: validation, limits and metrics are on."""

from __future__ import annotations

from benchmarks.serving import wire
from benchmarks.serving.peer import Peer, Route

_COMMAND = ("-m", "service", "--models", "{repository}", "--port", "{port}")
_PREDICT = "/predict"
_JSON = Route("json", False, wire.inputs(_PREDICT), wire.by_output("outputs"))
_V2_BINARY = Route("v2-binary", True, wire.v2_binary, wire.v2_answer)

PEER = Peer(
    "foldserve", "Foldserve", (), _COMMAND,
    (
        _JSON,
        Route("v2-json", False, wire.v2_json, wire.v2_answer),
        _V2_BINARY,
        Route(
            "raw", True,
            wire.raw(_PREDICT, {"Accept": "application/octet-stream"}), wire.floats,
        ),
    ),
    "`python -m service`, defaults",
)  # fmt: skip

WORKERS = Peer(
    "foldserve-2", "Foldserve, two workers", (), (*_COMMAND, "--workers", "2"),
    (_JSON, _V2_BINARY),
    "`--workers 2`",
    models=("digits", "mlp"),
)  # fmt: skip
