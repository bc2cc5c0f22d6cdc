"""A Keras model, .keras or .h5, through Keras 3 on its torch backend.

Keras is imported only here, when such a file is read. It uses one backend for the whole process,
chosen when it is imported: torch, unless the calling program has chosen already.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from converter.errors import UserError, gist
from converter.sources import examples, keras_graph, keras_inputs, keras_legacy, keras_vet
from converter.sources import inputs as graph_inputs
from converter.sources.arch import importable_here
from converter.sources.export import export
from converter.sources.exporters import Exported
from converter.sources.interface import NameInputsPass
from converter.sources.keras_module import KerasModule
from converter.sources.loaded import Loaded, LoadOptions, Reference
from converter.system.program import program
from converter.system.quiet import silent

_INSTALL = 'pip install "foldserve[keras]"'
# Keras' message for a class that it does not know, in the new and in the old format.
_UNKNOWN = re.compile(r"Could not locate \w+ '([^']+)'|Unknown \w+: '?(\w+)'?")


def load(path: Path, options: LoadOptions) -> Loaded:
    """Read a .keras or .h5 file.

    Raises:
        UserError: when Keras is missing or uses another backend, the file is damaged, holds code
            and is not trusted, needs classes that are not available, or cannot be exported.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    keras = import_keras(path)
    vetted = (keras_vet.archive if zipped else keras_vet.legacy)(path, options.trust_pickle)
    notes: list[str] = []
    with importable_here(), keras.device("cpu"):
        custom = custom_objects(options.custom_objects)
        with _no_more_weights_than(keras, path, vetted.weights):
            model = _model(keras, path, zipped, custom, vetted, options.trust_pickle)
        notes += _in_full_precision(model)
        specs, structure = keras_inputs.specs(model, vetted.config, path)
        module = KerasModule(keras, model, structure, getattr(model, "output_names", ()))
        module.eval().requires_grad_(False)
        given = keras_inputs.shapes(specs, options.input_shapes)
        call = examples.resolve(
            module, given, None, None, "float32", ([], [], "inputs"), options.input_values
        )
        exported = export(module, call)
    _name_inputs(exported, [spec.name for spec in specs])
    graph = keras_graph.clean(exported.model)
    return Loaded(
        model=graph,
        inputs=graph_inputs.describe(graph, exported.sizes, call.fills()),
        path=path,
        kind="a Keras model" if zipped else "a Keras model in HDF5",
        notes=notes + call.notes + exported.notes,
        warnings=exported.warnings,
        dynamic_batch=exported.dynamic_batch,
        reference=exported.reference,
    )


def import_keras(path: Path) -> Any:
    """Keras on torch.

    Raises:
        UserError: when it is not installed, or the process has it with another backend.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        with silent():
            keras = importlib.import_module("keras")
            importlib.import_module("h5py")
    except ImportError as error:
        raise UserError(
            f"{path} is a Keras model, and reading it needs the package {error.name or 'keras'!r}",
            _INSTALL,
        ) from error
    finally:
        if chosen is None:
            os.environ.pop("KERAS_BACKEND", None)
        else:
            os.environ["KERAS_BACKEND"] = chosen
    backend = getattr(getattr(keras, "config", None), "backend", lambda: "tensorflow")()
    if backend != "torch":
        raise UserError(
            f"Keras is in use in this process with the backend {backend}; here it needs torch",
            "set KERAS_BACKEND=torch before keras is first imported, or convert in a process of "
            f"its own: {program()} fold FILE",
        )
    return keras


def custom_objects(modules: Sequence[str]) -> dict[str, Any]:
    """Import the modules of `--custom-objects`: their classes and functions, by name.

    Raises:
        UserError: when one cannot be imported.
    """
    found: dict[str, Any] = {}
    for name in modules:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # importing runs code
            raise UserError(
                f"--custom-objects {name} cannot be imported: {gist(error)}",
                f"run in the folder that holds it; `python -c 'import {name}'` shows the error",
            ) from error
        own = (inspect.isclass, inspect.isfunction)
        found |= {
            key: value
            for key, value in vars(module).items()
            if any(kind(value) for kind in own) and value.__module__ == module.__name__
        }
    return found


def _model(
    keras: Any,
    path: Path,
    zipped: bool,
    custom: dict[str, Any],
    vetted: keras_vet.Vetted,
    trusted: bool,
) -> Any:
    """Build the network and fill it, from a link with the extension that Keras expects."""
    with tempfile.TemporaryDirectory(prefix="foldserve-") as folder, silent():
        link = Path(folder) / ("model.keras" if zipped else "model.h5")
        if zipped or not _translate(keras, path, custom, vetted, link):
            link.symlink_to(path.absolute())
        try:
            with keras_legacy.functions_of(vetted.version):
                return keras.saving.load_model(
                    link, custom_objects=custom, compile=False, safe_mode=not trusted
                )
        except UserError:
            raise
        except Exception as error:
            raise _explained(error, path, keras.__version__) from error


def _translate(
    keras: Any, path: Path, custom: dict[str, Any], vetted: keras_vet.Vetted, target: Path
) -> bool:
    """Write a copy of the .h5 file that Keras 3 reads as Keras 2 did, where that is needed."""
    keras_legacy.refuse_mirrored(path, vetted.config, vetted.version, vetted.backend)
    known = functools.partial(hasattr, keras.layers)
    config = keras_legacy.translated(vetted.config, path, known, frozenset(custom))
    if config == vetted.config:
        return False
    import h5py

    with h5py.File(path, "r") as old, h5py.File(target, "w") as new:
        new.attrs["model_config"] = json.dumps(config)
        if "model_weights" in old:
            old.copy("model_weights", new)
    return True


def _explained(error: Exception, path: Path, version: str) -> UserError:
    if unknown := _UNKNOWN.search(str(error)):
        name = unknown[1] or unknown[2]
        return UserError(
            f"{path} uses {name!r}, which is not a class of Keras {version}",
            "--custom-objects package.module imports the code that defines it "
            f"(decorate it with @keras.saving.register_keras_serializable(), or name it {name}); "
            "the layers of TensorFlow (tf.nn.relu(x) in a functional model) are gone in Keras 3",
        )
    return UserError(
        f"{path} cannot be read by Keras {version}: {gist(error)}",
        'where it was made, load it and save it again with model.save("model.keras")',
    )


@contextlib.contextmanager
def _no_more_weights_than(keras: Any, path: Path, stored: int) -> Iterator[None]:
    """A file of a few bytes may describe a layer of a terabyte: stop before it is filled.

    `stored`: how many bytes of weights the file has; all variables get their values from these.
    """
    budget = keras_vet.FLOOR + 8 * stored
    init = keras.Variable.__init__

    def counted(variable: Any, initializer: Any, shape: Any = None, *a: Any, **k: Any) -> None:
        nonlocal budget
        if shape is not None:
            budget -= 4 * math.prod(int(size) for size in shape)
        if budget < 0:
            raise UserError(
                f"{path} describes many times more weights than it holds",
                "such a file may be an attack; save the model again with model.save()",
            )
        init(variable, initializer, shape, *a, **k)

    keras.Variable.__init__ = counted
    try:
        yield
    finally:
        keras.Variable.__init__ = init


def _in_full_precision(model: Any) -> list[str]:
    """Drop mixed precision, which is for training: the weights are float32, and so is the graph."""
    mixed = [
        layer
        for layer in keras_inputs.layers_of(model)
        if str(getattr(layer.dtype_policy, "name", "")).startswith("mixed_")
    ]
    for layer in mixed:
        layer.dtype_policy = "float32"
    return ["mixed precision was turned off: the graph computes in float32"] if mixed else []


def _name_inputs(exported: Exported, names: Sequence[str]) -> None:
    """Give the graph's inputs the names that Keras has for them."""
    values = exported.model.graph.inputs
    taken = {v.name for node in exported.model.graph for v in node.outputs}
    taken |= set(exported.model.graph.initializers)
    if len(values) != len(names) or len(set(names)) != len(names) or taken & set(names):
        return
    renamed = {str(v.name): name for v, name in zip(values, names, strict=True)}
    NameInputsPass(names)(exported.model)
    old = exported.reference
    if old is not None:
        fresh = {renamed[key]: array for key, array in old.inputs.items()}
        exported.reference = Reference(fresh, old.outputs)
