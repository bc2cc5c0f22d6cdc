"""Ray Serve: one deployment with `serve.batch`."""

from __future__ import annotations

from benchmarks.serving import wire
from benchmarks.serving.peer import DELAY_MS, MAX_BATCH, Model, Peer, Route, port, serving

PEER = Peer(
    "ray", "Ray Serve", ("ray[serve]==2.60.0", "onnxruntime==1.31.1"),
    ("-m", "benchmarks.serving.peers.ray_serve"),
    (Route("json", False, wire.inputs("/"), wire.key("outputs")),),
    f"serve.batch up to {MAX_BATCH}, {DELAY_MS} ms; one replica",
    environment={"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"},
    restless=True,
)  # fmt: skip

if serving():
    import time
    from typing import Any

    import numpy as np
    import ray
    from ray import serve
    from starlette.requests import Request

    @serve.deployment(max_ongoing_requests=128, logging_config={"enable_access_log": False})
    class Onnx:
        def __init__(self) -> None:
            self.model = Model.served()
            self.session = self.model.session()

        @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=DELAY_MS / 1000)
        async def predict(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            (found,) = self.session.run(
                [self.model.output], {self.model.input: np.concatenate(inputs)}
            )
            return list(found)

        async def __call__(self, request: Request) -> dict[str, Any]:
            document = await request.json()
            found = await self.predict(np.asarray(document["inputs"], np.float32))
            return {"outputs": [found.tolist()]}

    if __name__ == "__main__":
        ray.init(include_dashboard=False, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": port()})
        serve.run(Onnx.bind())
        while True:
            time.sleep(3600)
