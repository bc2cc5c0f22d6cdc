"""What a request of the Open Inference Protocol says, over REST and gRPC alike."""

from __future__ import annotations

from typing import NamedTuple

from service.codecs import nested, wish
from service.codecs.v2_heads import Head, Wanted
from service.codecs.wish import Wish
from service.errors import InvalidBody, UnknownInput, UnknownOutput, WrongType
from service.manifest import TensorSpec
from service.signature import STRING, Signature, Tensors, listing

DATATYPES = {
    "bool": "BOOL",
    **{
        f"{kind}{bits}": f"{kind.upper()}{bits}"
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    STRING: "BYTES",
}

HINT = (
    'Send {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [...]}]}; '
    "GET /v2/models/<name> lists the inputs."
)


class InferRequest(NamedTuple):
    """`outputs` empty stands for all of them, binary if `binary` says so."""

    tensors: Tensors
    id: str | None
    outputs: list[Wanted]
    binary: bool
    head: Head | None = None
    wish: Wish = wish.NONE


def spec_of(name: object, datatype: object, signature: Signature) -> TensorSpec:
    """The input of that name; raises UnknownInput, or WrongType for another datatype."""
    if not isinstance(name, str):
        raise InvalidBody("An input has no 'name'.", hint=HINT)
    spec = signature.inputs.get(name)
    if spec is None:
        raise UnknownInput(f"The model has no input {name[:128]!r}; it has {signature.names()}.")
    expected = DATATYPES[spec.dtype]
    if datatype != expected:
        shown = datatype[:16] if isinstance(datatype, str) else nested.kind_of(datatype)
        raise WrongType(
            f"Input {name!r} has the datatype {shown}, expected {expected}.",
            hint=f"Convert the tensor to {spec.dtype} and send it as {expected}.",
        )
    return spec


def unknown_output(name: object, signature: Signature) -> UnknownOutput:
    """The error for an output that the model does not have."""
    if isinstance(name, str):
        return signature.unknown_output(name)
    shown = nested.kind_of(name)
    return UnknownOutput(f"The model has no output {shown}; it has {listing(signature.outputs)}.")
