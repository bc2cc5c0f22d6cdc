"""Does the service answer what the trained network answers? On all 10,000 test images.

    python -m benchmarks.accuracy --data-dir FOLDER [--url http://127.0.0.1:8000]

Every test image goes through `POST /predict`, a batch a request, and through the checkpoint in
torch. The predicted labels must be the same ones: the exit status is 1 if a single one differs.
Without `--url` the service is started on a free port for the length of the measurement.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import torch
from torch import Tensor

from converter.errors import UserError
from converter.sources import checkpoint
from converter.training import download, mnist
from converter.training.data import Split, pixels
from converter.training.evaluate import logits

START = 60.0  # seconds that the service may take until it is ready
ANSWER = 60.0  # seconds that one request may take


@dataclass(frozen=True)
class Comparison:
    """What the two gave for the same images.

    Attributes:
        images: how many.
        torch_accuracy, service_accuracy: the share of right labels, in [0, 1].
        differing: how many labels the two predicted differently.
        largest_logit_difference: max |service - torch| over all images and classes.
        images_per_second: of the service, one request at a time.
    """

    images: int
    torch_accuracy: float
    service_accuracy: float
    differing: int
    largest_logit_difference: float
    images_per_second: float


@contextmanager
def service(models: Path) -> Iterator[str]:
    """Run `python -m service` for `models` on a free port, and yield its URL once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "service", "--port", str(port), "--models", str(models)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=sys.stderr.fileno()) as process:
        try:
            _wait_until_ready(process, url)
            yield url
        finally:
            process.terminate()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UserError(f"the service ended with status {process.returncode} before it started")
        try:
            if httpx.get(f"{url}/health/ready", timeout=1, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise UserError(f"the service was not ready after {START:g} seconds")


def ask(url: str, images: Tensor, labels: list[str], batch: int) -> tuple[Tensor, Tensor]:
    """Send `images`, uint8 (N, 1, 28, 28), `batch` at a time, to `url`/predict.

    Returns:
        int64 (N,) places in `labels` of the predicted labels, and float64 (N, classes) logits.
    """
    places: list[int] = []
    outputs: list[list[float]] = []
    with httpx.Client(base_url=url, timeout=ANSWER, trust_env=False) as client:
        for piece in torch.split(images, batch):
            response = client.post("/predict", json={"inputs": pixels(piece).tolist()})
            if not response.is_success:
                raise UserError(f"{url}/predict answered {response.status_code}: {response.text}")
            answer = response.json()
            if len(answer["predictions"]) != len(piece):
                raise UserError(f"{len(answer['predictions'])} predictions of {len(piece)} images")
            places += [labels.index(prediction["label"]) for prediction in answer["predictions"]]
            (output,) = answer["outputs"].values()
            outputs += output
    return torch.tensor(places), torch.tensor(outputs, dtype=torch.float64)


def compare(url: str, weights: Path, test: Split, batch: int) -> Comparison:
    """Both answers for every image of `test`."""
    trained = checkpoint.read(weights)
    expected = logits(trained.module(), test.images)  # (N, classes)
    started = time.perf_counter()
    places, outputs = ask(url, test.images, trained.labels, batch)
    seconds = time.perf_counter() - started
    if outputs.shape != expected.shape:
        raise UserError(f"the outputs have shape {list(outputs.shape)}, not {list(expected.shape)}")
    own = expected.argmax(dim=1)
    return Comparison(
        images=len(test),
        torch_accuracy=float((own == test.labels).double().mean()),
        service_accuracy=float((places == test.labels).double().mean()),
        differing=int((own != places).sum()),
        largest_logit_difference=float((outputs - expected).abs().max()),
        images_per_second=len(test) / seconds,
    )


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, help="the four files of MNIST; else downloaded")
    parser.add_argument("--url", help="a running service; else one is started for --models")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--checkpoint", type=Path, default=Path("models/mnist/checkpoint.pt"))
    parser.add_argument("--batch", type=int, default=100, help="images a request (default: 100)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(words)
    try:
        test = mnist.load(args.data_dir or download.fetch()).test
        if args.url:
            found = compare(args.url, args.checkpoint, test, args.batch)
        else:
            with service(args.models) as url:
                found = compare(url, args.checkpoint, test, args.batch)
    except (UserError, httpx.HTTPError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"test images                {found.images:,}")
    print(f"accuracy, torch            {found.torch_accuracy:.2%}")
    print(f"accuracy, service          {found.service_accuracy:.2%}")
    print(f"differing predictions      {found.differing}")
    print(f"largest logit difference   {found.largest_logit_difference:.2g}")
    print(f"service                    {found.images_per_second:,.0f} images/s as JSON, one client")
    if args.json:
        args.json.write_text(json.dumps(asdict(found), indent=2) + "\n")
    return 1 if found.differing else 0


if __name__ == "__main__":
    sys.exit(main())
