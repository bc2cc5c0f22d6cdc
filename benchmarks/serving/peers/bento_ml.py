"""BentoML: a service with a batchable API."""

from __future__ import annotations

from benchmarks.serving import wire
from benchmarks.serving.peer import MAX_BATCH, Model, Peer, Route, serving

PEER = Peer(
    "bentoml", "BentoML", ("bentoml==1.4.39", "onnxruntime==1.31.1"),
    (
        "-m", "bentoml", "serve", "benchmarks.serving.peers.bento_ml:Service",
        "--host", "127.0.0.1", "--port", "{port}",
    ),
    (Route("json", False, wire.inputs("/predict"), wire.key()),),
    f"batchable, up to {MAX_BATCH}; it has a target latency in place of a delay: 10 s, so that "
    "nothing is shed; one worker",
    environment={"BENTOML_DO_NOT_TRACK": "True"},
)  # fmt: skip

if serving():
    import bentoml
    import numpy as np

    @bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
    class Service:
        def __init__(self) -> None:
            self.model = Model.served()
            self.session = self.model.session()

        @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=10_000)
        def predict(self, inputs: np.ndarray) -> np.ndarray:
            inputs = inputs.astype(np.float32, copy=False)
            found: np.ndarray = self.session.run([self.model.output], {self.model.input: inputs})[0]
            return found
