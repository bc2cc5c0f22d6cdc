"""Which architectures hold batch-norms, and in which order they are run.

They are built on torch's meta device, where a network has shapes but no numbers: the whole zoo
takes a few minutes and no memory. The list is kept as `results/catalogue.json`, with the
versions of the libraries it was made with.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

# Networks that people ask about, or whose batch-norms other tools leave: run before the rest.
FIRST = (
    "timm:mobileone_s0",
    "timm:repvgg_a0",
    "timm:repvit_m1",
    "timm:fastvit_t8",
    "timm:efficientvit_m0",
    "timm:levit_128s",
    "timm:inception_next_atto",
    "timm:densenet121",
    "timm:dpn68",
    "timm:resnetv2_50",
    "timm:coatnet_nano_rw_224",
    "timm:convmixer_768_32",
    "timm:resnet18",
    "timm:resnet50",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_small_100",
)


@dataclass(frozen=True)
class Architecture:
    """A network by the name that `--arch` takes. `family` is the file that defines it."""

    name: str
    family: str
    batchnorms: int
    parameters: int


@dataclass(frozen=True)
class Catalogue:
    """The architectures with batch-norms, how many there are in all, and which do not build."""

    versions: dict[str, str]
    listed: dict[str, int]
    unbuildable: dict[str, str]
    architectures: tuple[Architecture, ...]


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("timm", "torchvision", "torch")}


def read(path: Path) -> Catalogue | None:
    """The kept list, None if there is none or it was made with other versions."""
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["versions"] != versions():
        return None
    return Catalogue(
        found["versions"],
        found["listed"],
        found["unbuildable"],
        tuple(Architecture(*row) for row in found["architectures"]),
    )


def write(path: Path, catalogue: Catalogue) -> None:
    """One architecture a line, so that a newer version shows as a short difference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = asdict(catalogue)
    rows = head.pop("architectures")
    lines = [json.dumps(list(row.values())) for row in rows]
    text = json.dumps(head)[:-1] + ', "architectures": [\n' + ",\n".join(lines) + "\n]}\n"
    path.write_text(text, encoding="utf-8")


def scan(progress: Callable[[str, int, int], None] = lambda *_: None) -> Catalogue:
    """Build every architecture on the meta device and count. `progress(name, done, of)`."""
    from torch.nn.modules.batchnorm import _BatchNorm

    names = [*_timm(), *_torchvision()]
    found: list[Architecture] = []
    unbuildable: dict[str, str] = {}
    for done, (name, family) in enumerate(names):
        progress(name, done, len(names))
        try:
            module = _build(name)
        except Exception as error:  # noqa: BLE001  the libraries' code
            unbuildable[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        norms = sum(isinstance(child, _BatchNorm) for child in module.modules())
        if norms:
            size = sum(parameter.numel() for parameter in module.parameters())
            found.append(Architecture(name, family, norms, size))
    listed = {library: sum(n.startswith(library) for n, _ in names) for library in _LIBRARIES}
    return Catalogue(versions(), listed, unbuildable, tuple(found))


_LIBRARIES = ("timm", "torchvision")


def _timm() -> Iterator[tuple[str, str]]:
    from patterns.networks import declare_torchvision_operators

    declare_torchvision_operators()
    import timm
    from timm.models import _registry

    for name in timm.list_models():
        yield f"timm:{name}", f"timm.{_registry._model_to_module[name]}"


def _torchvision() -> Iterator[tuple[str, str]]:
    from torchvision import models

    for name in models.list_models():
        module = models.get_model_builder(name).__module__
        yield f"torchvision:{name}", module.replace("torchvision.models", "torchvision")


def _build(name: str):  # type: ignore[no-untyped-def]
    """On the meta device, or with memory where a constructor looks at its numbers."""
    import torch

    from converter.sources.arch import build

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return build(name, {}).module
        except Exception:  # noqa: BLE001  the libraries' code
            return build(name, {}).module


# Seldom exported, or the same network once more with nodes for a later quantisation.
_LATE = ("detection", "quantization")
LARGE = 12_000_000


def in_order(architectures: Iterable[Architecture]) -> list[Architecture]:
    """So that stopping at any point leaves a representative part.

    1. `FIRST`; 2. the smallest of each family of timm; 3. torchvision by size, `_LATE` last;
    4. the second smallest of each family, the third, and so on; 5. those of more than `LARGE`
    parameters, smallest first: one takes as long as several others.
    """
    families: dict[str, list[Architecture]] = defaultdict(list)
    for architecture in sorted(architectures, key=lambda a: (a.parameters, a.name)):
        families[architecture.family].append(architecture)

    def place(item: tuple[int, Architecture]) -> tuple[int, int, int]:
        rank, architecture = item
        if architecture.name in FIRST:
            return 0, FIRST.index(architecture.name), 0
        if architecture.parameters > LARGE:
            return 4, architecture.parameters, 0
        if architecture.name.startswith("torchvision"):
            return 2, any(word in architecture.family for word in _LATE), architecture.parameters
        return (3 if rank else 1), rank, architecture.parameters

    ranked = [item for members in families.values() for item in enumerate(members)]
    return [architecture for _, architecture in sorted(ranked, key=place)]
