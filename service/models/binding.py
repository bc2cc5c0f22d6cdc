"""A run on a GPU with its inputs and outputs bound, in the place of `session.run`.

    inputs    copied to the device once, before the run, each as a value of its own
    outputs   bound to host memory: the device writes them there at the end of the run

`session.run` decides about these copies node by node, and a provider that does not take a node
sends its tensors to and fro. A binding is made for each run, because one must not be shared by
threads, and costs little beside the copies. The inputs are held until the outputs are there: an
onnxruntime value of a host array does not own it.

Source: onnxruntime, Performance, I/O binding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from service.signature import Tensors


class BoundRun:
    """Calls a session by way of a binding; from several threads at a time, if need be.

    Args:
        outputs: names of all outputs, in the order of the answer.
        device: where the inputs go: "cuda", or "cpu" for a test without one.
    """

    def __init__(
        self, session: Any, outputs: Sequence[str], device: str = "cuda", device_id: int = 0
    ) -> None:
        self._session = session
        self._outputs = outputs
        self._device = device
        self._device_id = device_id

    def __call__(self, inputs: Tensors) -> list[np.ndarray]:
        """The outputs, in their order; onnxruntime's exceptions pass through."""
        binding = self._session.io_binding()
        held = []
        for name, array in inputs.items():
            array = np.ascontiguousarray(array)
            value = ort.OrtValue.ortvalue_from_numpy(array, self._device, self._device_id)
            binding.bind_ortvalue_input(name, value)
            held.append((array, value))
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        outputs: list[np.ndarray] = [value.numpy() for value in binding.get_outputs()]
        held.clear()
        return outputs
