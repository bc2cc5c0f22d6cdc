"""Stages for the tests of the runner: they start in no time and measure nothing.

An architecture's name says what happens to it: `test:ok`, `test:slow`, `test:busy`, `test:large`,
`test:crash`, `test:unexportable`.
"""

import json
import sys
import time
from pathlib import Path

EXPORTED = {
    "input": [[3, 8, 8]],
    "export_seconds": 1.0,
    "batchnorms": 2,
    "errors": {"y": 1e-7},
    "sensitivity": 0.5,
}
FOLDED = {
    "left": 1, "left_through_relu": 1,
    "sites": [2, 1], "scale_shifts": [0, 0], "merges": 0, "exact": 1e-15,
    "reasons": {"padding": [1, "bn: a padded convolution is behind it."]}, "verdict": "proven",
    "why": "", "max_abs": 1.0, "error_original": 1e-7, "error_folded": 1e-7, "fold_seconds": 0.1,
    "proof_seconds": 0.2,
}  # fmt: skip
CERTIFIED = {
    "certified": True, "certificate": "Certified for every input: 2 of 2 batch-norms.",
    "certify_seconds": 0.1, "certified_weights": 10, "largest_move": 0.5,
}  # fmt: skip


def main(words: list[str]) -> None:
    stage, name, folder, *more = words
    log = Path(folder).parent / "started"
    with log.open("a") as file:
        file.write(f"{stage} {name} {' '.join(more)}\n")
    result: dict[str, object] = {}
    if stage == "export":
        if name == "test:unexportable":
            result = {"error": {"class": "TypeError", "sentence": "no"}}
        else:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name in ("model.onnx", "user.onnx"):
                (Path(folder) / name).write_bytes(b"0" * 500)
            result = EXPORTED | {"asked": more[0]}
    elif stage == "peers":
        result = {"peers": {peer: {"left": 2} for peer in more}}
    elif stage == "certify":
        result = CERTIFIED | {"certified": name != "test:doubtful"}
    elif stage == "fold":
        if name == "test:slow":
            time.sleep(60)
        while name == "test:busy":
            pass
        if name == "test:crash":
            sys.exit("out of luck")
        if name == "test:large":
            held = bytearray(400_000_000)
            held[::4096] = b"1" * len(held[::4096])
            time.sleep(60)
        result = FOLDED | CERTIFIED
    sys.stdout.write("noise of a library\n")
    sys.stdout.write(json.dumps(result | {"peak_mb": 100}))
