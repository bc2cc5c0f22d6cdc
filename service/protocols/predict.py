"""POST /predict: our own protocol. A tensor or an image in, JSON or a tensor out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from starlette.types import Scope

from service import http
from service.codecs import images, json_, multipart, npy, raw
from service.errors import NotAcceptable, UnsupportedMediaType
from service.models.classify import predictions
from service.models.model import ServedModel
from service.protocols import media, nonfinite
from service.protocols.call import How, Reader, Reply
from service.protocols.endpoint import Inference
from service.protocols.light import LARGE_TEXT_BYTES
from service.signature import STRING, Tensors, dtype_name

Charge = Callable[[int], object]


class _Said(NamedTuple):
    """What the head says: Content-Type, X-Dtype, X-Shape; and the settings, of pictures."""

    kind: bytes
    dtype: bytes | None
    shape: bytes | None
    max_pixels: int


class Predict(Inference):
    """The route. `scope["path_params"]` may have `name` and `version`."""

    def reader(self, scope: Scope) -> Reader:
        content_type = http.header(scope, b"content-type")
        kind = media.of_body(content_type)
        answer = media.of_answer(http.header(scope, b"accept"))
        said = _Said(
            content_type or b"", http.header(scope, b"x-dtype"), http.header(scope, b"x-shape"),
            self.context.settings.max_image_pixels,
        )  # fmt: skip
        read, write = _READERS[kind], self._write
        query = scope["query_string"]

        in_json = How(self._encode)

        def decode(body: Any, model: ServedModel, charge: Charge) -> tuple[Tensors, How]:
            if answer == media.JSON:
                return read(body, model, said, charge), in_json
            output = media.only_output(model, query)
            if answer == media.NPY and model.signature.outputs[output].dtype == STRING:
                raise NotAcceptable(
                    f"Output {output!r} holds strings, which a .npy file holds as Python objects "
                    "only.",
                    hint=f"Accept JSON, or {media.OCTETS}: each string behind its length.",
                )
            raw = How(partial(write, output, answer), light=True)
            return read(body, model, said, charge), raw

        recall = self.context.recall("predict", *said, answer, query)
        if kind in media.BINARY:  # their tensors are looked at where they lie
            return Reader(decode, math.inf, front=0, recall=recall)
        light = LARGE_TEXT_BYTES if kind == media.JSON else -1
        return Reader(decode, light, recall=recall)

    def _write(self, output: str, answer: str, _: ServedModel, outputs: Tensors) -> Reply:
        array = outputs[output]
        nonfinite.check(outputs, self.context.settings.nan_policy, [output])
        if answer == media.NPY:
            return Reply(npy.encode(array), media.NPY.encode())
        sizes = ",".join(map(str, array.shape)).encode()
        headers = [(b"x-shape", sizes), (b"x-dtype", dtype_name(array).encode())]
        return Reply(raw.bytes_of(array), media.OCTETS.encode(), headers)

    def _encode(self, model: ServedModel, outputs: Tensors) -> Reply:
        warnings = nonfinite.check(outputs, self.context.settings.nan_policy)
        payload: dict[str, Any] = {
            "model": {"name": model.name, "version": model.version},
            "outputs": {name: json_.tensor(array) for name, array in outputs.items()},
        }
        how = model.manifest.classification
        if how is not None:
            payload["predictions"] = predictions(outputs[how.output], how)
        if warnings:
            payload["warnings"] = [f"{warning} They are null here." for warning in warnings]
        return Reply(json_.encode(payload))


def _json(body: bytes, model: ServedModel, said: _Said, charge: Charge) -> Tensors:  # noqa: ARG001
    return json_.decode(body, model.signature, charge)


def _npy(body: http.Body, model: ServedModel, said: _Said, charge: Charge) -> Tensors:  # noqa: ARG001
    spec = raw.only_input(model.signature.inputs, "a .npy body")
    return {spec.name: npy.decode(body, spec)}


def _octets(body: http.Body, model: ServedModel, said: _Said, charge: Charge) -> Tensors:  # noqa: ARG001
    spec = raw.only_input(model.signature.inputs, "a body of raw bytes")
    media.check_dtype(said.dtype, spec.dtype)
    shape = media.shape(said.shape)
    if shape is None:
        shape = raw.deduce_shape(spec, len(body))
    return {spec.name: raw.array(body, spec, shape)}


def _image(body: bytes, model: ServedModel, said: _Said, charge: Charge) -> Tensors:
    steps = model.manifest.preprocessing
    spec = raw.only_input(model.signature.inputs, "an image")
    if steps is None:
        raise UnsupportedMediaType(
            f"Model {model.name!r} does not say how an image becomes its input.",
            hint="Send a tensor, or add `preprocessing` to its model.json.",
        )
    files = [body]
    if media.of_body(said.kind) == media.MULTIPART:
        most = model.batcher.capacity_samples
        files = multipart.contents(body, said.kind.decode("latin-1"), most)
        model.batcher.check_room(len(files))
    return {spec.name: images.rows(files, steps, spec, said.max_pixels, charge)}


_READERS: dict[str, Callable[[Any, ServedModel, _Said, Charge], Tensors]] = {
    media.JSON: _json,
    media.NPY: _npy,
    media.OCTETS: _octets,
    **dict.fromkeys((*media.IMAGES, media.MULTIPART), _image),
}
