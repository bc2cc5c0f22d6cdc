"""A model in one's own process: numpy in, numpy out, without a server.

    path -> place.find -> check (hashes, signature, session, warm-up, self-test) -> run

The check is the one of the service, so a model that it would not serve is not loaded here either.
There is no queue: a call runs the model in the thread of its caller, and calls of several threads
run at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from service import cpu, device
from service.batching.batch import Run, attempt
from service.batching.choose import why_not_batched
from service.codecs import images
from service.embedding import place
from service.embedding.arrays import plain
from service.embedding.errors import InvalidInput, ModelUnusable, PredictionFailed, translated
from service.errors import InferenceFailed, ServiceError
from service.manifest import MODEL_FILE, Manifest, TensorSpec
from service.models import warm_up
from service.models.bundle import Rejected
from service.models.check import Checked, check, check_file
from service.models.classify import Prediction, predictions
from service.models.signed import Trust
from service.signature import show
from service.signing.names import TrustUnusable, trusted

_MOST_PIXELS = 40_000_000


class Predictor:
    """A model that answers in this process. Thread-safe; a context manager, or `close()` it.

        with Predictor("models/mnist") as digits:
            scores = digits.predict(images)        # (rows, 1, 28, 28) float32 -> (rows, 10) float32

    `name`, `version`: of the model. `inputs`, `outputs`: {name: TensorSpec} with dtype and shape,
    open sizes by name. `labels`: the names of the classes, None without `classification` in
    model.json. `provider`: onnxruntime's, which runs it. `signer`: who has signed it, None unless
    that was asked. `manifest`: all that model.json says; of a lone file what its graph says.

    A process that is forked must make its own: threads of a session do not survive a fork.

    Args:
        path: a model folder (its newest version), a version folder, or an .onnx file.
        device: "cpu"; "cuda", or an error; "auto", CUDA where there is one.
        threads: of a run, unless model.json says otherwise; None for as many as CPUs are allowed.
        batch_size: rows of one run at most. Larger inputs are run in parts that are joined again,
            which bounds the memory of a run; None runs whatever comes in one.
        require_signature: a file of public keys or root certificates, one of which must have
            signed the version; None for no matter whose signature or none.

    Raises:
        ModelUnusable: there is no model, or it fails a check, with the reason: a file's hash, the
            signature, the self-test; CUDA that is not there; rows that must not be run apart.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: device.Device = "cpu",
        threads: int | None = None,
        batch_size: int | None = None,
        require_signature: str | Path | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ModelUnusable(f"batch_size is {batch_size}: a run has one row at least.")
        checked = _loaded(place.find(path), device, threads, _trusted(require_signature))
        self.manifest: Manifest = checked.manifest
        self.name = self.manifest.name
        self.version = self.manifest.version
        self.provider = checked.runtime.provider
        self.signer = checked.signer
        self._signature = checked.signature
        self.inputs: Mapping[str, TensorSpec] = self._signature.inputs
        self.outputs: Mapping[str, TensorSpec] = self._signature.outputs
        how = self.manifest.classification
        self.labels: list[str] | None = None if how is None else list(how.labels)
        self._only_input = next(iter(self.inputs)) if len(self.inputs) == 1 else ""
        self._only_output = next(iter(self.outputs)) if len(self.outputs) == 1 else ""
        self._batch_size = batch_size
        self._run: Run | None = checked.runtime.run
        if batch_size is not None:
            said = checked.declared.batch_invariant if checked.declared else None
            obstacle = why_not_batched(self._run, self._signature, said, checked.example)
            if obstacle:
                why = obstacle.removeprefix("not batched: ")
                raise ModelUnusable(f"batch_size cannot be used with {self.name!r}: {why}.")

    def predict(
        self, inputs: np.ndarray | Mapping[str, np.ndarray] | None = None, /, **named: np.ndarray
    ) -> Any:
        """Run the model.

            predict(x)    predict({"image": x, "meta": m})    predict(image=x, meta=m)

        Args:
            inputs: the model's only input, or all of them by name. Dtype and shape must be those of
                `self.inputs`: nothing is converted. Axis 0 may have any size where it is open.
            named: the inputs by name, in the place of `inputs`.

        Returns:
            The only output, an array with the dtype and shape that `self.outputs` says; or
            {name: array} of a model with several. The caller may keep and change it.

        Raises:
            InvalidInput: a name, a dtype or a shape is wrong, or the graph refused a value.
            PredictionFailed: the run failed, or the predictor is closed.
        """
        outputs = self.run(self._by_name(inputs, named))
        return outputs[self._only_output] if self._only_output else outputs

    __call__ = predict

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`predict` by name on both sides, however many inputs and outputs there are.

        Args:
            inputs: {name: array}, all of them.

        Returns:
            {name: array}, every output.

        Raises:
            InvalidInput, PredictionFailed: as `predict`.
        """
        run = self._run
        if run is None:
            raise PredictionFailed(f"The predictor of {self.name!r} is closed.")
        tensors = {name: plain(name, value, self.inputs) for name, value in inputs.items()}
        try:
            rows = self._signature.check(tensors)
            size = self._batch_size
            if size is None or rows <= size:
                return attempt(run, tensors)
            parts = [
                attempt(run, {name: array[start : start + size] for name, array in tensors.items()})
                for start in range(0, rows, size)
            ]
        except InferenceFailed as error:
            raise translated(error) from error.__cause__
        except ServiceError as error:
            raise translated(error) from None
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def classify(
        self, inputs: np.ndarray | Mapping[str, np.ndarray] | None = None, /, **named: np.ndarray
    ) -> list[Prediction]:
        """The most probable label of each row, as `predictions` of POST /predict has it.

        Args:
            inputs, named: as in `predict`.

        Returns:
            A dict for each row: "label" (str), "probability" (float) and "index" (int, from 0); all
            three None for a row whose scores have no maximum.

        Raises:
            InvalidInput, PredictionFailed: as `predict`.
            ModelUnusable: model.json has no `classification`.
        """
        how = self.manifest.classification
        if how is None:
            raise ModelUnusable(
                f"Model {self.name!r} has no labels: its model.json has no `classification`."
            )
        return predictions(self.run(self._by_name(inputs, named))[how.output], how)

    def preprocess(
        self, *pictures: str | Path | bytes, max_pixels: int = _MOST_PIXELS
    ) -> np.ndarray:
        """Pictures as the model expects them, by the `preprocessing` of its model.json.

        Args:
            pictures: paths of PNG or JPEG files, or what such files hold.
            max_pixels: of all pictures together, before they are resized.

        Returns:
            A row for each, of the input's dtype: (pictures, channels, height, width), or with the
            channels last where model.json says so. It goes to `predict` or `classify`.

        Raises:
            InvalidInput: a picture is broken, or too large.
            ModelUnusable: model.json has no `preprocessing`, or the extra [images] is missing.
            OSError: a file cannot be read.
        """
        how = self.manifest.preprocessing
        if how is None or not self._only_input:
            raise ModelUnusable(
                f"Model {self.name!r} does not say how a picture becomes its input: its model.json "
                "has no `preprocessing`."
            )
        if not pictures:
            raise InvalidInput("There is no picture to predict from.", "empty_batch")
        files = [each if isinstance(each, bytes) else Path(each).read_bytes() for each in pictures]
        try:
            return images.rows(files, how, self.inputs[self._only_input], max_pixels)
        except ServiceError as error:
            told = translated(error)
            if isinstance(told, InvalidInput):
                raise told from None
            raise ModelUnusable(f"{error.message} {error.hint}") from None

    def close(self) -> None:
        """Let go of the model. Calls under way end as usual; later ones are refused."""
        self._run = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        def told(specs: Mapping[str, TensorSpec]) -> str:
            return ", ".join(f"{s.name} {s.dtype} {show(s.shape)}" for s in specs.values())

        which = f"{self.name} version {self.version}"
        return f"<Predictor {which}: {told(self.inputs)} -> {told(self.outputs)}>"

    def _by_name(self, inputs: Any, named: Mapping[str, Any]) -> Mapping[str, Any]:
        if inputs is None:
            return named
        if named:
            raise InvalidInput("Give the inputs by position or by name, not both.", "invalid_body")
        if isinstance(inputs, Mapping):
            return inputs
        if not self._only_input:
            names = self._signature.names()
            raise InvalidInput(
                f"The model has the inputs {names}: give them by name.", "missing_input"
            )
        return {self._only_input: inputs}


def _trusted(keys: str | Path | None) -> Trust | None:
    if keys is None:
        return None
    try:
        return trusted(Path(keys), "require_signature")
    except TrustUnusable as error:
        raise ModelUnusable(str(error)) from None


def _loaded(
    found: place.Place, wanted: device.Device, threads: int | None, trust: Trust | None
) -> Checked:
    """The model, checked as the service checks it."""
    threads = threads or cpu.available().threads
    try:
        choice = device.choose(wanted)
        if found.lone:
            if trust is not None:
                raise Rejected("a file by itself has no signature; publish it with fold --sign")
            return check_file(found.path, found.name, choice, threads)
        checked = check(found.path, found.name, found.version, choice, threads, None, trust)
        run = partial(attempt, checked.runtime.run)
        warm_up.sizes(run, checked.manifest, checked.signature, checked.example)
        return checked
    except Rejected as error:
        where = found.path.name if found.lone else f"{found.name} version {found.version}"
        why = str(error).replace(MODEL_FILE, found.path.name) if found.lone else error
        raise ModelUnusable(f"{where} cannot be used: {why}.") from None
    except device.DeviceUnavailable as error:
        raise ModelUnusable(str(error)) from None
