"""Example inputs for a module: from the user, from what is known about the file, or by trying.

The batch axis of an example is 2: torch.export treats an axis of size 1 as special.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from converter.errors import UserError, gist
from converter.sources import hints
from converter.sources.calls import BATCH, BATCHES, Call, name_of, path_of
from converter.sources.infer import FirstLayer, spatial_shapes
from converter.sources.loaded import InputShape, Known
from converter.sources.remembered import outputs_of
from converter.sources.wording import words
from converter.system.quiet import silent


class InContainer(UserError):
    """The model takes a list or a dict, not a tensor; the hint says how to state it."""


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
    values: Mapping[str, Any] | None = None,
) -> Call:
    """Find inputs with which `module` runs.

    Args:
        given: the shapes that the user gave; they must work, and nothing else is tried.
        known: a shape from the file or from the architecture.
        layer: the first layer, to try shapes that it takes.
        float_dtype: the type of floating inputs.
        names: as `parameters_of` returns them, where `forward` has no Python signature.
        values: the values that the user gave for inputs.

    Raises:
        UserError: when what was given does not fit, or nothing was given and nothing runs.
    """
    every, required, variadic = names or parameters_of(module.forward)
    star = variadic if not every else ""
    default = (layer.dtype if layer else "") or float_dtype
    kinds = {} if names else hints.annotations_of(module.forward)
    given, constants = _with_values(given, values or {}, every, required, _takes_any(module, names))
    said = {str(path[0]) for path, _ in constants}
    required = [name for name in required if name not in said]
    base = Call(
        (),
        (),
        tuple(every),
        star,
        constants=constants,
        keywords=frozenset() if names else _keywords(module.forward),
        rest=variadic if every else "",
    )
    if given:
        shapes = _match(given, every, required, variadic, kinds, layer, _takes_any(module, names))
        lone = default if len(given) == 1 else ""
        shapes = [replace(s, dtype=s.dtype or lone or float_dtype) for s in shapes]
        calls = _filled_in(_called(base, shapes))
        return _first_that_runs(module, calls, layer, not any(0 in s.sizes for s in shapes))
    if len(required) > 1:
        raise UserError(
            f"the model has {len(required)} inputs: {', '.join(required)}",
            "say each, the shapes without the batch axis: " + hints.for_all(required, kinds, layer),
        )
    left = [name for name in every if name not in said]
    name = (required or left or [variadic and f"{variadic}_0"])[0]
    if not name:
        raise UserError("the model's forward() takes no input", "give a model that takes a tensor")
    attempts = [(known.sizes, known.source)] if known else []
    if layer:
        attempts += [
            (sizes, f"the first layer, {layer.what}, and trying") for sizes in layer.shapes
        ]
    failure, inside = "", ""
    for sizes, source in attempts:
        shape = InputShape(sizes, name, default)
        try:
            call = _run(module, _called(base, [shape]), layer)
        except UserError as error:
            inside = inside or (error.hint if isinstance(error, InContainer) else "")
            failure = failure or f" ({error.message})"
            if inside:
                break
            continue
        call.notes.append(f"input shape {words(shape)} from {source}; --input-shape overrides it")
        return call
    usual = hints.sizes_of(layer)
    kind = hints.for_parameter(name, kinds.get(name, ""), usual)
    example_of = kind if ".0=" in kind or ".KEY=" in kind else f"--input-shape {usual}"
    raise UserError(
        f"no input shape was found with which the model runs{failure}",
        inside
        or f"say the shape of one sample of {name}, without the batch axis, as in {example_of} "
        "(for indices, --input-shape 128:int64)",
    )


def _keywords(forward: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(forward).parameters.values()
    return frozenset(p.name for p in parameters if p.kind == p.KEYWORD_ONLY)


def _takes_any(module: Any, names: object) -> bool:
    """Whether forward has a `**kwargs`, which takes any name."""
    if names is not None:
        return False
    return any(
        p.kind == p.VAR_KEYWORD for p in inspect.signature(module.forward).parameters.values()
    )


def _with_values(
    given: Sequence[InputShape],
    values: Mapping[str, Any],
    every: Sequence[str],
    required: Sequence[str],
    takes_any: bool,
) -> tuple[list[InputShape], tuple[tuple[tuple[str | int, ...], Any], ...]]:
    """Values of inputs that have a shape fill their examples; the others are constants.

    Raises:
        UserError: forward has no such parameter, or the value for a tensor is not a number.
    """
    filled, used = [], set()
    for shape in given:
        name = shape.name or next(iter(required or every), "")
        if name in values and name not in used:
            used.add(name)
            value = values[name]
            if not isinstance(value, int | float):
                raise UserError(
                    f"--input-value {name}={value} is not a number, and --input-shape makes a "
                    f"tensor of {name}",
                    "leave --input-shape out to give forward() the value itself",
                )
            shape = replace(shape, fill=value)
        filled.append(shape)
    constants = []
    for name, value in values.items():
        if name in used:
            continue
        path = path_of(name)
        if not path or (str(path[0]) not in every and not takes_any):
            raise UserError(
                f"--input-value names {name}, which is not an input of the model",
                f"the model's inputs are: {', '.join(every)}",
            )
        constants.append((path, value))
    return filled, tuple(constants)


def _called(base: Call, shapes: Sequence[InputShape]) -> Call:
    """The call with these inputs. Raises UserError when two have the same name in the graph."""
    star = base.star
    paths = [
        (star, int(str(s.name).removeprefix(f"{star}_")))
        if star and str(s.name).removeprefix(f"{star}_").isdigit()
        else path_of(str(s.name))
        for s in shapes
    ]
    names = tuple(map(name_of, paths))
    if len(set(names)) < len(names):
        raise UserError(
            f"two inputs would be called {next(n for n in names if names.count(n) > 1)}"
        )
    if star:
        paths = [(name,) for name in names]
    return replace(base, names=names, shapes=tuple(shapes), paths=tuple(paths))


def _match(
    given: Sequence[InputShape],
    every: list[str],
    required: list[str],
    variadic: str,
    kinds: dict[str, str],
    layer: FirstLayer | None,
    takes_any: bool,
) -> list[InputShape]:
    """Bring the user's shapes into the order of forward's parameters, each with its name."""
    if not every and not takes_any:
        return [replace(s, name=s.name or f"{variadic}_{index}") for index, s in enumerate(given)]
    if len(given) == 1 and given[0].name is None:
        given = [replace(given[0], name=next(iter(required or every), ""))]
    names = [str(s.name) for s in given if s.name]
    if len(set(names)) < len(given):
        raise UserError(
            "every --input-shape needs its own name when there are several",
            f"the model's inputs are: {', '.join(every)}",
        )
    tops = {name: str(path_of(name)[0]) for name in names if path_of(name)}
    others = [n for n in names if tops.get(n) not in every and tops.get(n) != variadic]
    if others and not takes_any:
        raise UserError(
            f"--input-shape names {', '.join(others)}, but there is no such input",
            f"the model's inputs are: {', '.join(every)}",
        )
    if missing := [name for name in required if name not in tops.values()]:
        example_of = hints.for_all(missing, kinds, None if tops else layer)
        option = "--input-shape" if "--input-shape" in example_of else "--input-value"
        raise UserError(
            f"{option} is missing for {', '.join(missing)}", f"for example {example_of}"
        )
    order = {name: place for place, name in enumerate(every)}
    return sorted(given, key=lambda s: order.get(tops[str(s.name)], len(order)))


def _filled_in(call: Call) -> Iterator[Call]:
    """The call; where it leaves sizes to be found, one with each of the usual sizes."""
    most = max((s.sizes.count(0) for s in call.shapes), default=0)
    if not most:
        yield call
        return
    for sizes in spatial_shapes(0, min(most, 3)):
        found = []
        for shape in call.shapes:
            usual = iter((*sizes[1:], *sizes[1:2] * len(shape.sizes)))
            filled = tuple(size or next(usual) for size in shape.sizes)
            found.append(replace(shape, sizes=filled))
        yield replace(call, shapes=tuple(found))


def _first_that_runs(
    module: nn.Module, calls: Iterator[Call], layer: FirstLayer | None, given_all: bool
) -> Call:
    failure: UserError | None = None
    for call in calls:
        try:
            found = _run(module, call, layer, BATCHES if given_all else (BATCH, 1))
        except UserError as error:
            failure = failure or error
            continue
        if call.has_open_axes and not given_all:
            found.notes.append(f"sizes of the example: {' '.join(map(words, found.shapes))}")
        return found
    assert failure is not None
    raise failure


def _run(
    module: nn.Module, call: Call, layer: FirstLayer | None, batches: Sequence[int] = (BATCH, 1)
) -> Call:
    """The call with its output. Raises UserError with torch's message when it fails."""
    failures: list[Exception] = []
    nested = any(isinstance(step, int) for path in call.paths for step in path[1:])
    numbers = [(path, value) for path, value in call.constants if isinstance(value, int | float)]
    variants = [call, replace(call, sequence=tuple)] if nested else [call]
    if numbers:  # forward may want a tensor of one number where the user gave the number
        tensors = tuple(
            (p, torch.tensor(v)) if isinstance(v, int | float) else (p, v)
            for p, v in call.constants
        )
        variants += [replace(variant, constants=tensors) for variant in tuple(variants)]
    for batch in batches:
        for variant in variants:
            attempt = replace(variant, batch=batch, notes=[])
            args, kwargs = attempt.arguments()
            try:
                with silent():
                    output = outputs_of(module, args, kwargs)
            except Exception as error:  # noqa: BLE001  a model is the user's code
                failures.append(error)
                continue
            if batch != BATCH:
                what = "only runs" if batch == 1 else "does not run with one sample or two, but"
                attempt.notes.append(
                    f"the model {what} with a batch of {batch} (with {BATCH}: {gist(failures[0])})"
                )
            return replace(attempt, output=output)
    shapes = " ".join(words(shape) for shape in call.shapes)
    message = f"the model does not run with input shape {shapes}: {gist(failures[0])}"
    if inside := hints.container(module, call):
        raise InContainer(message, inside) from failures[0]
    raise UserError(message, hints.of_shapes(call, layer, batches)) from failures[0]
