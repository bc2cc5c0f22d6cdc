"""Triton's HTTP server and batcher, by nvidia-pytriton; onnxruntime runs in its Python callable."""

from __future__ import annotations

from benchmarks.serving import wire
from benchmarks.serving.peer import DELAY_MS, MAX_BATCH, Model, Peer, Route, port, serving

PEER = Peer(
    "triton", "Triton (pytriton)", ("nvidia-pytriton==0.7.0", "onnxruntime==1.31.1"),
    ("-m", "benchmarks.serving.peers.pytriton_server"),
    (
        Route("v2-json", False, wire.v2_json, wire.v2_answer),
        Route("v2-binary", True, wire.v2_binary, wire.v2_answer),
    ),
    f"Triton 2.51.0 inside; dynamic batching up to {MAX_BATCH}, {DELAY_MS} ms; one instance of a "
    "Python callable",
)  # fmt: skip

if serving():
    import os
    import sysconfig

    import numpy as np
    from pytriton.decorators import batch
    from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    if __name__ == "__main__":
        # Its stub is linked to libpython, and must find that of this interpreter.
        places = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
        os.environ["LD_LIBRARY_PATH"] = ":".join(filter(None, places))
        model = Model.served()
        session = model.session()

        @batch
        def infer(**inputs: np.ndarray) -> list[np.ndarray]:
            return session.run([model.output], inputs)

        config = TritonConfig(
            http_address="127.0.0.1", http_port=port(), grpc_port=port() + 1,
            metrics_port=port() + 2, allow_metrics=True,
        )  # fmt: skip
        with Triton(config=config) as triton:
            triton.bind(
                model_name=model.name,
                infer_func=infer,
                inputs=[Tensor(name=model.input, dtype=np.float32, shape=model.shape)],
                outputs=[Tensor(name=model.output, dtype=np.float32, shape=(model.classes,))],
                config=ModelConfig(
                    max_batch_size=MAX_BATCH,
                    batcher=DynamicBatcher(max_queue_delay_microseconds=DELAY_MS * 1000),
                ),
                strict=True,
            )
            triton.serve()
