"""TensorFlow Serving's REST API: the routes under /v1.

    GET  /v1/models                                  names of the models, as KServe tells them
    GET  /v1/models/{m}[/versions/{v}]               status of the versions
    GET  /v1/models/{m}[/versions/{v}]/metadata      the signature
    POST /v1/models/{m}[/versions/{v}]:predict

`/labels/{l}` in the place of `/versions/{v}` is answered with 404: versions have no labels
here. An error is {"error": "<sentence>"}.

Source: TensorFlow Serving, RESTful API.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from starlette.types import Scope

from service.codecs import tfs
from service.context import Context
from service.errors import InvalidBody, UnknownVersion
from service.manifest import TensorSpec
from service.models.model import ServedModel
from service.protocols import nonfinite, repository
from service.protocols.call import How, Reader, Reply
from service.protocols.endpoint import Inference
from service.protocols.routes import Fixed, OneText, Route, Routes
from service.signature import Tensors

DT = {
    "float16": "DT_HALF",
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "bool": "DT_BOOL",
    "string": "DT_STRING",
    **{
        f"{kind}{bits}": f"DT_{kind.upper()}{bits}"
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
}


def routes(context: Context) -> Routes:
    """The application for every path under /v1."""
    predict, other = Predict(context), Fixed(context, _not_served)
    status, metadata = Fixed(context, _status), Fixed(context, _metadata)
    labels = Fixed(context, _no_labels)
    made = [Route("GET", "/v1/models", Fixed(context, repository.names))]
    for which, version in (("", True), ("/versions/{version}", True), ("/labels/{label}", False)):
        path = "/v1/models/{name}" + which
        made += [
            Route("POST", path + ":predict", predict if version else labels),
            Route("GET", path, status if version else labels),
            Route("GET", path + "/metadata", metadata if version else labels),
            Route("POST", path + ":classify", other),
            Route("POST", path + ":regress", other),
        ]
    return Routes(made)


class Predict(OneText, Inference):
    """POST ...:predict."""

    def reader(self, scope: Scope) -> Reader:  # noqa: ARG002
        return Reader(self._read, recall=self.context.recall("tfs"))

    def _read(
        self, body: bytes, model: ServedModel, charge: Callable[[int], object]
    ) -> tuple[Tensors, How]:
        tensors, by_rows = tfs.decode(body, model.signature, charge)
        first = next(iter(tensors.values()))
        return tensors, How(partial(self._write, by_rows, len(first) if first.ndim else 1))

    def _write(self, by_rows: bool, rows: int, _: ServedModel, outputs: Tensors) -> Reply:
        nonfinite.check(outputs, self.context.settings.nan_policy)
        return Reply(tfs.encode(outputs, by_rows, rows))


def _status(context: Context, name: str, version: str | None = None) -> dict[str, Any]:
    """The state of each version, or of one; `ready` is what KServe's clients ask for."""
    entry = context.registry.entry(name)
    states = {str(number): _state("AVAILABLE") for number in entry.versions}
    for number, reason in entry.rejected.items():
        states[str(number)] = _state("END", "UNKNOWN", reason)
    if version is not None and version not in states:
        raise UnknownVersion(f"Could not find version {version[:20]!r} of that model.")
    rows = [
        {"version": number, **state}
        for number, state in states.items()
        if version in (None, number)
    ]
    ready = bool(entry.versions if version is None else rows[0]["state"] == "AVAILABLE")
    return {"name": entry.name, "ready": ready, "model_version_status": rows}


def _state(state: str, code: str = "OK", message: str = "") -> dict[str, Any]:
    return {"state": state, "status": {"error_code": code, "error_message": message}}


def _metadata(context: Context, name: str, version: str | None = None) -> dict[str, Any]:
    """Names, dtypes and shapes as a SignatureDef; open sizes are -1."""
    model = context.registry.find(name, version)
    signature = {
        "inputs": {s.name: _tensor_info(s) for s in model.signature.inputs.values()},
        "outputs": {s.name: _tensor_info(s) for s in model.signature.outputs.values()},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
        "metadata": {"signature_def": {"signature_def": {tfs.SIGNATURE: signature}}},
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    sizes = [str(dim) if isinstance(dim, int) else "-1" for dim in spec.shape]
    return {
        "dtype": DT[spec.dtype],
        "tensor_shape": {
            "dim": [{"size": size, "name": ""} for size in sizes],
            "unknown_rank": False,
        },
        "name": f"{spec.name}:0",
    }


def _no_labels(context: Context, name: str, **_: str) -> NoReturn:
    """.../labels/{label}: there are none."""
    context.registry.entry(name)
    raise UnknownVersion("The versions of this server have no labels.", hint="Use /versions/.")


def _not_served(context: Context, name: str, **_: str) -> NoReturn:
    """:classify and :regress, which take serialised tf.Example protocol buffers."""
    context.registry.entry(name)
    raise InvalidBody("Only :predict is served.", hint="Send the tensors to :predict.")
