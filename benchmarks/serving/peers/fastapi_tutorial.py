"""What the tutorials show: FastAPI, a pydantic list of floats, a `def` handler."""

from __future__ import annotations

from benchmarks.serving import wire
from benchmarks.serving.peer import Model, Peer, Route, serving

PEER = Peer(
    "fastapi", "the tutorial FastAPI service",
    ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", "onnxruntime==1.31.1"),
    (
        "-m", "uvicorn", "benchmarks.serving.peers.fastapi_tutorial:app",
        "--port", "{port}", "--log-level", "warning",
    ),
    (Route("json", False, wire.inputs("/predict", flat=True), wire.key("outputs")),),
    "a pydantic list of floats, a `def` handler, uvicorn[standard]; no batching",
)  # fmt: skip

if serving():
    import numpy as np
    from fastapi import FastAPI
    from pydantic import BaseModel

    model = Model.served()
    session = model.session()
    app = FastAPI()

    class Sample(BaseModel):
        inputs: list[float]

    @app.post("/predict")
    def predict(sample: Sample) -> dict[str, list[list[float]]]:
        tensor = np.array(sample.inputs, np.float32).reshape(1, *model.shape)
        (found,) = session.run([model.output], {model.input: tensor})
        return {"outputs": found.tolist()}
