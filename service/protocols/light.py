"""What takes so little time that the event loop may do it; more than that belongs in a thread."""

from __future__ import annotations

from service.signature import Tensors

# Beyond these, reading or writing text, or copying numbers, takes milliseconds.
LARGE_TEXT_BYTES = 256 * 1024
_LARGE_OUTPUT_ELEMENTS = 64 * 1024
_LARGE_COPY_ELEMENTS = 1024 * 1024
# A string takes about as long to write as this many elements to copy.
_TEXT_IN_ELEMENTS = 16


def light_answer(outputs: Tensors, *, copied: bool) -> bool:
    """Whether the outputs may be encoded on the event loop.

    Args:
        copied: their numbers are copied as they are; otherwise they are written as text.
    """
    size = 0
    for array in outputs.values():
        size += array.size if array.dtype.kind != "O" else array.size * _TEXT_IN_ELEMENTS
    return size <= (_LARGE_COPY_ELEMENTS if copied else _LARGE_OUTPUT_ELEMENTS)
