"""Let the converter try the TorchScript exporter first: it needs a tenth of the time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from benchmarks.zoo.names import EXPORTERS
from converter.sources import export, module
from converter.sources.interface import NameOutputsPass

NOTE = "the TorchScript exporter was asked for"


@contextlib.contextmanager
def first(name: str) -> Iterator[None]:
    """Meanwhile `from_module` takes the exporter `name`, and the other if that fails."""
    if name == EXPORTERS[0]:
        yield
        return
    usual = module.export

    def quick(net: Any, call: Any) -> export.Exported:
        try:
            made = export.script(net, call)
            NameOutputsPass([path for path, _ in export.leaves(call.output)])(made.model)
        except Exception:  # noqa: BLE001  the exporter runs the network's code
            return usual(net, call)
        made.notes.append(NOTE)
        made.reference = export.reference(call, made)
        return made

    module.export = quick
    try:
        yield
    finally:
        module.export = usual
