"""MLServer: a custom runtime with adaptive batching."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.serving import wire
from benchmarks.serving.peer import DELAY_MS, MAX_BATCH, Model, Peer, Route, serving


def _prepare(model: Model, folder: Path, port: int) -> None:
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2,
        "parallel_workers": 1, "debug": False, "metrics_dir": str(folder / "metrics"),
    }  # fmt: skip
    of_model = {
        "name": model.name,
        "implementation": "benchmarks.serving.peers.ml_server.Onnx",
        "max_batch_size": MAX_BATCH,
        "max_batch_time": DELAY_MS / 1000,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(of_model))


PEER = Peer(
    "mlserver", "MLServer", ("mlserver==1.7.1", "onnxruntime==1.31.1", "uvloop==0.21.0"),
    ("-c", "from mlserver.cli import main; main()", "start", "{folder}"),
    (Route("v2-json", False, wire.v2_json, wire.v2_answer),),
    f"adaptive batching up to {MAX_BATCH}, {DELAY_MS} ms; one parallel worker",
    prepare=_prepare,
)  # fmt: skip

if serving():
    from mlserver import MLModel
    from mlserver.codecs import NumpyCodec
    from mlserver.types import InferenceRequest, InferenceResponse

    class Onnx(MLModel):
        async def load(self) -> bool:
            self.served = Model.served()
            self.session = self.served.session()
            return True

        async def predict(self, payload: InferenceRequest) -> InferenceResponse:
            tensor = NumpyCodec.decode_input(payload.inputs[0])
            (found,) = self.session.run([self.served.output], {self.served.input: tensor})
            output = NumpyCodec.encode_output(self.served.output, found)
            return InferenceResponse(model_name=self.name, outputs=[output])
