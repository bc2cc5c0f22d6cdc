"""Example inputs for a module: from the user, from what is known about the file, or by trying.

The batch axis of an example is 2: torch.export treats an axis of size 1 as special.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from converter.errors import UserError
from converter.sources.infer import FirstLayer
from converter.sources.loaded import InputShape
from converter.sources.remembered import outputs_of

BATCH = 2


@dataclass(frozen=True)
class Known:
    """A shape that something else than the user tells, and who told it."""

    sizes: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class Call:
    """A call of `forward` that works, and what it returned.

    Attributes:
        names: the inputs' names: forward's parameters, or what a `*xs` parameter is filled with.
        shapes: what each input is, without the batch axis.
        every: all of forward's parameters, in order.
        star: the name of forward's `*xs` parameter, when it has no other.
        batch: the size of the example's batch axis: `BATCH`, or 1 if nothing else works.
        output: what `forward` returned for `inputs(BATCH)`.
        notes: what was assumed.
    """

    names: tuple[str, ...]
    shapes: tuple[InputShape, ...]
    every: tuple[str, ...] = ()
    star: str = ""
    batch: int = BATCH
    output: Any = None
    notes: list[str] = field(default_factory=list)

    def tensors(self, seed: int = 0) -> list[Tensor]:
        return [example(shape, self.batch, seed) for shape in self.shapes]

    def arguments(self) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The example as `module(*args, **kwargs)` takes it."""
        return self.filled(self.tensors())

    def filled(self, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Positional ones when the inputs are forward's first parameters, else by name."""
        if self.star or self.names == self.every[: len(self.names)]:
            return tuple(tensors), {}
        return (), dict(zip(self.names, tensors, strict=True))


def example(shape: InputShape, batch: int, seed: int = 0) -> Tensor:
    """Seeded normal numbers, or zeros for whole numbers, which are valid indices everywhere.

    Another seed than 0 draws whole numbers as well, 0 or 1, which mostly are indices.
    """
    dtype: torch.dtype = getattr(torch, shape.dtype or "float32")
    generator = torch.Generator().manual_seed(seed)
    if not dtype.is_floating_point:
        return torch.randint(0, 2 if seed else 1, (batch, *shape.sizes), generator=generator).to(
            dtype
        )
    return torch.randn(batch, *shape.sizes, generator=generator).to(dtype)


def parameters_of(forward: Callable[..., Any]) -> tuple[list[str], list[str], str]:
    """Names of forward's parameters, of those without a default, and of `*xs` ("" if none)."""
    signature = inspect.signature(forward)
    named = [
        p for p in signature.parameters.values() if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}
    ]
    variadic = [p.name for p in signature.parameters.values() if p.kind == p.VAR_POSITIONAL]
    required = [p.name for p in named if p.default is p.empty]
    return [p.name for p in named], required, variadic[0] if variadic else ""


def resolve(
    module: nn.Module,
    given: Sequence[InputShape],
    known: Known | None,
    layer: FirstLayer | None,
    float_dtype: str,
    names: tuple[list[str], list[str], str] | None = None,
) -> Call:
    """Find inputs with which `module` runs.

    Args:
        given: what the user said; it must work, and nothing else is tried.
        known: a shape from the file or from the architecture.
        layer: the first layer, to try shapes that it takes.
        float_dtype: the type of floating inputs.
        names: as `parameters_of` gives them, where `forward` has no Python signature.

    Raises:
        UserError: when what was given does not fit, or nothing was given and nothing runs.
    """
    every, required, variadic = names or parameters_of(module.forward)
    star = variadic if not every else ""
    default = (layer.dtype if layer else "") or float_dtype
    if given:
        shapes = _match(given, every, required, variadic, default if len(given) == 1 else "")
        shapes = [InputShape(s.sizes, s.name, s.dtype or float_dtype) for s in shapes]
        named = tuple(str(s.name) for s in shapes)
        return _run(module, Call(named, tuple(shapes), tuple(every), star))
    if len(required) > 1:
        raise UserError(
            f"the model has {len(required)} inputs: {', '.join(required)}",
            "say the shape of each, without the batch axis: "
            + " ".join(f"--input-shape {name}=3,224,224" for name in required),
        )
    name = (required or every or [variadic and f"{variadic}_0"])[0]
    if not name:
        raise UserError("the model's forward() takes no input", "give a model that takes a tensor")
    attempts = [(known.sizes, known.source)] if known else []
    if layer:
        attempts += [
            (sizes, f"the first layer, {layer.what}, and trying") for sizes in layer.shapes
        ]
    failure = ""
    for sizes, source in attempts:
        shape = InputShape(sizes, name, default)
        try:
            call = _run(module, Call((name,), (shape,), tuple(every), star))
        except UserError as error:
            failure = failure or f" ({error.message})"
            continue
        call.notes.append(f"input shape {_words(shape)} from {source}; --input-shape overrides it")
        return call
    raise UserError(
        f"no input shape was found with which the model runs{failure}",
        "say the shape of one sample, without the batch axis: --input-shape 3,224,224 "
        "(or, for indices, --input-shape 128:int64)",
    )


def _match(
    given: Sequence[InputShape], every: list[str], required: list[str], variadic: str, default: str
) -> list[InputShape]:
    """Bring the user's shapes into the order of forward's parameters, each with its name."""
    if not every:
        return [
            InputShape(s.sizes, s.name or f"{variadic}_{index}", s.dtype or default or None)
            for index, s in enumerate(given)
        ]
    if len(given) == 1 and given[0].name is None:
        named = {(required or every)[0]: given[0]}
    else:
        named = {str(s.name): s for s in given if s.name}
        if len(named) < len(given):
            raise UserError(
                "every --input-shape needs its own name when there are several",
                f"the model's inputs are: {', '.join(every)}",
            )
    if unknown := [name for name in named if name not in every]:
        raise UserError(
            f"--input-shape names {', '.join(unknown)}, which is no input of the model",
            f"the model's inputs are: {', '.join(every)}",
        )
    if missing := [name for name in required if name not in named]:
        raise UserError(
            f"--input-shape is missing for {', '.join(missing)}",
            "for example " + " ".join(f"--input-shape {name}=3,224,224" for name in missing),
        )
    return [
        InputShape(named[name].sizes, name, named[name].dtype or default or None)
        for name in every
        if name in named
    ]


def _run(module: nn.Module, call: Call) -> Call:
    """The call with its output. Raises UserError with torch's message when it fails."""
    failures: list[Exception] = []
    for batch in (BATCH, 1):
        attempt = replace(call, batch=batch, notes=[])
        args, kwargs = attempt.arguments()
        try:
            output = outputs_of(module, args, kwargs)
        except Exception as error:  # noqa: BLE001  a model is the user's code
            failures.append(error)
            continue
        if failures:
            attempt.notes.append(
                f"the model only runs with a batch of 1 (with {BATCH}: {gist(failures[0])})"
            )
        return replace(attempt, output=output)
    shapes = " ".join(_words(shape) for shape in call.shapes)
    raise UserError(
        f"the model does not run with input shape {shapes}: {gist(failures[0])}",
        "give the right one, without the batch axis: --input-shape 3,224,224",
    ) from failures[0]


def _words(shape: InputShape) -> str:
    sizes = ",".join(str(size) for size in shape.sizes) or "()"
    return sizes if shape.dtype in {None, "float32"} else f"{sizes}:{shape.dtype}"


def gist(error: BaseException, limit: int = 240) -> str:
    """The first telling line of an error, which is TorchScript's last one: torch writes pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = lines[-1 if "TorchScript interpreter" in lines[0] else 0].removeprefix("RuntimeError: ")
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
