"""KServe's Python server with a model of our own; it has no batching."""

from __future__ import annotations

from benchmarks.serving import wire
from benchmarks.serving.peer import Model, Peer, Route, port, serving

PEER = Peer(
    "kserve", "KServe", ("kserve==0.21.0", "onnxruntime==1.31.1"),
    ("-m", "benchmarks.serving.peers.k_serve"),
    (
        Route("v2-json", False, wire.v2_json, wire.v2_answer),
        Route("v2-binary", True, wire.v2_binary, wire.v2_answer),
    ),
    "its Python server, one worker; no batching inside (a sidecar does that on Kubernetes)",
)  # fmt: skip

if serving():
    import logging

    import kserve
    import numpy as np

    class Onnx(kserve.Model):
        def __init__(self) -> None:
            self.served = Model.served()
            super().__init__(self.served.name)
            self.session = self.served.session()
            self.ready = True

        def predict(
            self,
            payload: kserve.InferRequest,
            headers: dict[str, str] | None = None,  # noqa: ARG002
        ) -> kserve.InferResponse:
            tensor: np.ndarray = payload.inputs[0].as_numpy()
            (found,) = self.session.run([self.served.output], {self.served.input: tensor})
            output = kserve.InferOutput(self.served.output, list(found.shape), "FP32")
            asked = payload.request_outputs or []
            output.set_data_from_numpy(found, binary_data=any(o.binary_data for o in asked))
            return kserve.InferResponse(payload.id or "", self.name, [output])

    if __name__ == "__main__":
        server = kserve.ModelServer(
            http_port=port(), enable_grpc=False, workers=1, enable_latency_logging=False
        )
        for name in ("uvicorn.access", "kserve.trace"):  # a line or two for each request
            logging.getLogger(name).disabled = True
        server.start([Onnx()])
