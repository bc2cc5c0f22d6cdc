"""LitServe: a LitAPI with its batching."""

from __future__ import annotations

from benchmarks.serving import wire
from benchmarks.serving.peer import DELAY_MS, MAX_BATCH, Model, Peer, Route, port, serving

PEER = Peer(
    "litserve", "LitServe", ("litserve==0.2.19", "onnxruntime==1.31.1"),
    ("-m", "benchmarks.serving.peers.lit_serve"),
    (Route("json", False, wire.inputs("/predict", alone=True), wire.key("outputs")),),
    f"batches up to {MAX_BATCH}, {DELAY_MS} ms; one worker",
    restless=True,
)  # fmt: skip

if serving():
    from typing import Any

    import litserve
    import numpy as np

    class Api(litserve.LitAPI):
        def setup(self, device: str) -> None:  # noqa: ARG002
            self.model = Model.served()
            self.session = self.model.session()

        # Without a type: LitServe would take it for a model of pydantic's, or a query.
        def decode_request(self, request):
            return np.asarray(request["inputs"], np.float32)  # a sample

        def predict(self, inputs: np.ndarray) -> np.ndarray:
            found: np.ndarray = self.session.run([self.model.output], {self.model.input: inputs})[0]
            return found

        def encode_response(self, output: np.ndarray) -> dict[str, Any]:
            return {"outputs": output.tolist()}

    if __name__ == "__main__":
        api = Api(max_batch_size=MAX_BATCH, batch_timeout=DELAY_MS / 1000)
        server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
        server.run(
            host="127.0.0.1", port=port(), generate_client_file=False, log_level="warning"
        )  # fmt: skip
