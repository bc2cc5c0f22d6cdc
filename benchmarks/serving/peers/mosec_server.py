"""mosec: a worker each for JSON and for raw bytes, with its batching."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.serving import wire
from benchmarks.serving.peer import DELAY_MS, MAX_BATCH, Model, Peer, Route, serving

_COMMAND = (
    "-m", "benchmarks.serving.peers.mosec_server", "--address", "127.0.0.1", "--port", "{port}",
    "--timeout", "30000", "--log-level", "warning",
)  # fmt: skip

PEER = Peer(
    "mosec", "mosec", ("mosec==0.9.8", "onnxruntime==1.31.1"), _COMMAND,
    (
        Route("json", False, wire.inputs("/json"), wire.key("outputs")),
        Route("raw", True, wire.raw("/raw"), wire.floats),
    ),
    f"batches up to {MAX_BATCH}, {DELAY_MS} ms; a worker for each route, JSON by its default "
    "(json of the standard library)",
    environment={"MOSEC_WORKERS": "1"},
)  # fmt: skip

WORKERS = replace(
    PEER, key="mosec-2", title="mosec, two workers", said="two workers of one thread each",
    environment={"MOSEC_WORKERS": "2"}, models=("digits", "mlp"),
)  # fmt: skip

if serving():
    import os
    from typing import Any

    import mosec
    import numpy as np

    _WORKERS = int(os.environ["MOSEC_WORKERS"])

    class Json(mosec.Worker):
        def __init__(self) -> None:
            self.model = Model.served()
            self.session = self.model.session(threads=1 if _WORKERS > 1 else None)

        def forward(self, data: list[Any]) -> list[Any]:
            return [
                {"outputs": [row.tolist()]}
                for row in self.run(
                    np.concatenate([np.asarray(d["inputs"], np.float32) for d in data])
                )
            ]

        def run(self, inputs: np.ndarray) -> np.ndarray:
            found: np.ndarray = self.session.run([self.model.output], {self.model.input: inputs})[0]
            return found

    class Raw(Json):
        def deserialize(self, data: bytes) -> np.ndarray:
            return np.frombuffer(data, np.float32)

        def serialize(self, data: np.ndarray) -> bytes:
            return data.tobytes()

        def forward(self, data: list[Any]) -> list[Any]:
            return list(self.run(np.stack(data).reshape(len(data), *self.model.shape)))

    if __name__ == "__main__":
        server = mosec.Server()
        server.register_runtime(
            {
                path: [
                    mosec.Runtime(
                        worker, num=_WORKERS, max_batch_size=MAX_BATCH, max_wait_time=DELAY_MS
                    )
                ]
                for path, worker in (("/json", Json), ("/raw", Raw))
            }
        )
        server.run()
