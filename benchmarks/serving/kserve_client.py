"""kserve's own inference client against this server, over REST and gRPC.

    python -m benchmarks.serving.kserve_client [--python PATH]

kserve pins packages that this project's constraints exclude, and brings the Kubernetes client
along: it cannot be part of the test extra. So it gets a virtual environment of its own (a few
minutes, 450 MB, removed at the end), or `--python` names an interpreter that has it. Prints a
line for each thing tried, and fails if one of them does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
KSERVE = "kserve==0.21.0"


def main() -> int:
    parser = argparse.ArgumentParser(description="kserve's client against this server.")
    parser.add_argument("--python", help="an interpreter that has kserve")
    parser.add_argument("--against", nargs=2, metavar=("URL", "HOST:PORT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.against:
        return asyncio.run(_try_all(*args.against))
    with tempfile.TemporaryDirectory(prefix="kserve-") as name:
        folder = Path(name)
        return _serve(folder, args.python or _install(folder / "venv"))


def _install(folder: Path) -> str:
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", KSERVE], check=True)
    return python


def _serve(folder: Path, python: str) -> int:
    from benchmarks.serving import subjects
    from benchmarks.serving.target import Target

    subjects.digits(folder / "models")
    with Target(folder / "models", "--grpc-port", "0") as target:
        found = re.search(r"^  grpc +(\S+)$", target.said, re.MULTILINE)
        assert found is not None, target.said
        against = [f"http://127.0.0.1:{target.port}", found[1]]
        return subprocess.run([python, __file__, "--against", *against], check=False).returncode


async def _try_all(url: str, grpc_address: str) -> int:
    """In the interpreter that has kserve."""
    import numpy as np
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
    from kserve import RESTConfig as Config

    array = np.random.default_rng(0).random((3, 1, 28, 28)).astype(np.float32)

    def request(*, binary: bool) -> InferRequest:
        tensor = InferInput("input", list(array.shape), "FP32")
        tensor.set_data_from_numpy(array, binary_data=binary)
        return InferRequest("digits", [tensor], request_id="one")

    answers = {}
    rest = InferenceRESTClient(Config(protocol="v2", retries=0))
    v1 = InferenceRESTClient(Config(protocol="v1", retries=0))
    grpc = InferenceGRPCClient(grpc_address, retries=0)
    held = {
        "REST live": await rest.is_server_live(url),
        "REST ready": await rest.is_server_ready(url),
        "REST model ready": await rest.is_model_ready(url, "digits"),
        "REST model that is not there": not await rest.is_model_ready(url, "nothing"),
        "gRPC live": await grpc.is_server_live(),
        "gRPC ready": await grpc.is_server_ready(),
        "gRPC model ready": await grpc.is_model_ready("digits"),
    }
    for way, binary in (("REST JSON", False), ("REST binary", True)):
        told = await rest.infer(url, request(binary=binary), model_name="digits")
        answers[way] = told.outputs[0].as_numpy()
    for way, binary in (("gRPC typed", False), ("gRPC raw", True)):
        answers[way] = (await grpc.infer(request(binary=binary))).outputs[0].as_numpy()
    told = await v1.infer(url, {"instances": array.tolist()}, model_name="digits")
    answers["v1"] = np.array(told["predictions"], np.float32)
    for way, answer in answers.items():
        held[way] = answer.shape == (3, 10) and bool(
            np.allclose(answer, answers["gRPC raw"], rtol=1e-5, atol=1e-5)
        )
    await rest.close()
    await v1.close()
    await grpc.close()
    print(f"kserve {version('kserve')}")
    for what, right in held.items():
        print(f"  {'ok   ' if right else 'WRONG'} {what}")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
