"""POST /predict: our own protocol. A tensor or an image in, JSON or a tensor out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.types import Scope

from service import http
from service.codecs import images, json_, multipart, npy, raw
from service.errors import NotAcceptable, UnsupportedMediaType
from service.models.classify import predictions
from service.models.model import ServedModel
from service.protocols import media, nonfinite
from service.protocols.endpoint import Decoded, Inference, Reply
from service.protocols.light import LARGE_TEXT_BYTES
from service.settings import Settings
from service.signature import STRING, Tensors, dtype_name

# The body: bytes, or any buffer for one of tensors as they are (`Predict.binary`).
Reader = Callable[[Scope, Any, ServedModel, Settings], Tensors]


class Predict(Inference):
    """The route. `scope["path_params"]` may have `name` and `version`."""

    def check_headers(self, scope: Scope) -> None:
        """Refuse what is compressed in another way, or of a media type that nothing here reads."""
        super().check_headers(scope)
        media.of_body(http.header(scope, b"content-type"))

    def binary(self, scope: Scope) -> int | None:
        return 0 if media.of_body(http.header(scope, b"content-type")) in _LIGHT else None

    def light(self, scope: Scope, body: http.Body) -> bool:
        kind = media.of_body(http.header(scope, b"content-type"))
        return kind in _LIGHT or (kind == media.JSON and len(body) <= LARGE_TEXT_BYTES)

    def decode(self, scope: Scope, body: http.Body, model: ServedModel) -> Decoded:
        read = _READERS[media.of_body(http.header(scope, b"content-type"))]
        answer = media.of_answer(http.header(scope, b"accept"))
        if answer == media.JSON:
            return Decoded(read(scope, body, model, self.context.settings), self._encode)
        output = media.only_output(model, scope["query_string"])
        if answer == media.NPY and model.signature.outputs[output].dtype == STRING:
            raise NotAcceptable(
                f"Output {output!r} holds strings, which a .npy file holds as Python objects only.",
                hint=f"Accept JSON, or {media.OCTETS}: each string behind its length.",
            )

        def encode(model: ServedModel, outputs: Tensors) -> Reply:  # noqa: ARG001
            array = outputs[output]
            nonfinite.check({output: array}, self.context.settings.nan_policy)
            if answer == media.NPY:
                return Reply(npy.encode(array), media.NPY.encode())
            sizes = ",".join(map(str, array.shape)).encode()
            headers = [(b"x-shape", sizes), (b"x-dtype", dtype_name(array).encode())]
            return Reply(raw.bytes_of(array), media.OCTETS.encode(), headers)

        return Decoded(read(scope, body, model, self.context.settings), encode, light=True)

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


def _json(scope: Scope, body: bytes, model: ServedModel, settings: Settings) -> Tensors:  # noqa: ARG001
    return json_.decode(body, model.signature)


def _npy(scope: Scope, body: http.Body, model: ServedModel, settings: Settings) -> Tensors:  # noqa: ARG001
    spec = raw.only_input(model.signature.inputs, "a .npy body")
    return {spec.name: npy.decode(body, spec)}


def _octets(scope: Scope, body: http.Body, model: ServedModel, settings: Settings) -> Tensors:  # noqa: ARG001
    spec = raw.only_input(model.signature.inputs, "a body of raw bytes")
    media.check_dtype(http.header(scope, b"x-dtype"), spec.dtype)
    shape = media.shape(http.header(scope, b"x-shape"))
    if shape is None:
        shape = raw.deduce_shape(spec, len(body))
    return {spec.name: raw.array(body, spec, shape)}


def _image(scope: Scope, body: bytes, model: ServedModel, settings: Settings) -> Tensors:
    kind = http.header(scope, b"content-type") or b""
    how = model.manifest.preprocessing
    spec = raw.only_input(model.signature.inputs, "an image")
    if how is None:
        raise UnsupportedMediaType(
            f"Model {model.name!r} does not say how an image becomes its input.",
            hint="Send a tensor, or add `preprocessing` to its model.json.",
        )
    files = [body]
    if media.of_body(kind) == media.MULTIPART:
        most = model.batcher.capacity_samples
        files = multipart.contents(body, kind.decode("latin-1"), most)
        model.batcher.check_room(len(files))
    charge = http.exchange(scope).make
    return {spec.name: images.rows(files, how, spec, settings.max_image_pixels, charge)}


_READERS: dict[str, Reader] = {
    media.JSON: _json,
    media.NPY: _npy,
    media.OCTETS: _octets,
    **dict.fromkeys((*media.IMAGES, media.MULTIPART), _image),
}
# Their tensors are looked at where they lie.
_LIGHT = frozenset(media.BINARY)
