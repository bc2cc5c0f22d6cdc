"""The models that are served, folded and published by this project's converter.

    resnet18   torchvision's, 3x224x224, random weights
    digits     the CNN of models/mnist, 1x28x28
    mlp        784-256-128-10 with batch-norms, random weights

`python -m benchmarks.serving.models FOLDER` makes them; it alone needs torch.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.serving.peer import Model

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).parents[2]
_RESNET, _MLP = "torchvision:resnet18", "benchmarks.serving.models:mlp"
NAMES = ("resnet18", "digits", "mlp")


def models(folder: Path, names: Sequence[str] = NAMES) -> dict[str, Model]:
    """These models by name; what is missing in `folder` is made.

    Raises:
        SystemExit: the converter could not make it.
    """
    missing = [name for name in names if not (folder / name / name / "1" / "model.json").is_file()]
    if missing:
        # In a process of its own: torch must not stay in memory beside what is measured.
        subprocess.run(
            [sys.executable, "-m", __name__, str(folder), *missing], check=True, cwd=ROOT
        )
    return {name: _read(folder / name, name) for name in names}


def _read(repository: Path, name: str) -> Model:
    version = repository / name / "1"
    manifest = json.loads((version / "model.json").read_text(encoding="utf-8"))
    (given,), (made,) = manifest["inputs"], manifest["outputs"]
    return Model(
        name, repository.resolve(), (version / "model.onnx").resolve(),
        given["name"], made["name"], tuple(given["shape"][1:]), made["shape"][1],
    )  # fmt: skip


def mlp() -> nn.Module:
    """784-256-128-10, a batch-norm before each relu."""
    from torch import nn

    layers: list[nn.Module] = []
    for before, after in ((784, 256), (256, 128)):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 10))


def _make(name: str, folder: Path) -> None:
    target = folder / name / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if name == "digits":
        newest = max((ROOT / "models" / "mnist").glob("[0-9]*"), key=lambda path: int(path.name))
        manifest = json.loads((newest / "model.json").read_text(encoding="utf-8"))
        shutil.copytree(newest, target / "1")
        text = json.dumps(manifest | {"name": name, "version": 1}, indent=2)
        (target / "1" / "model.json").write_text(text, encoding="utf-8")
        return
    _publish(name, folder, target)


def _publish(name: str, folder: Path, target: Path) -> None:
    """Random weights and settled statistics into a checkpoint; folded, proven, published."""
    import torch

    from converter.cli import main as converter
    from converter.sources import InputShape
    from patterns.networks import declare_torchvision_operators

    declare_torchvision_operators()
    from benchmarks.zoo.networks import network, randomize, settle

    if name == "resnet18":
        module, arch, shape = network(_RESNET, (224,)).module, _RESNET, "3,224,224"
    else:
        torch.manual_seed(0)
        module, arch, shape = mlp().eval().requires_grad_(False), _MLP, "784"
        randomize(module)
        settle(module, (InputShape((784,)),))
    weights = folder / f"{name}.pt"
    torch.save(module.state_dict(), weights)
    # Here and not in another process: this one can load torchvision without its compiled part.
    words = [
        "fold", str(weights), "--arch", arch, "--input-shape", shape, "--publish", str(target),
        "--output", f"{weights}.onnx",
    ]  # fmt: skip
    if converter(words):
        raise SystemExit(f"{name} could not be folded")
    for left in (weights, Path(f"{weights}.onnx")):
        left.unlink(missing_ok=True)


if __name__ == "__main__":
    for wanted in sys.argv[2:] or NAMES:
        _make(wanted, Path(sys.argv[1]))
