"""What a pickle would import, read from its opcodes. Nothing is unpickled, so no code can run."""

from __future__ import annotations

import pickletools
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from converter.sources import harmless

# What tensors are made of, and what torch.load(weights_only=True) therefore accepts. Only used
# to find the name that an error message shows: what is loaded is decided by torch.
_TENSOR_PARTS = re.compile(
    r"collections\.(OrderedDict|defaultdict|Counter)"
    r"|torch\.(_utils\._rebuild_\w+|_tensor\._rebuild_\w+|nn\.parameter\.\w+|storage\.\w+)"
    r"|torch\.(\w*Storage|Size|Tensor|device|strided|sparse_\w+|per_\w+)"
    r"|torch\.(b?float|double|half|complex|u?int|long|short|qu?int|bool|bits)\w*"
    r"|torch\.serialization\._get_layout"
    r"|_codecs\.encode|builtins\.(set|bytearray|complex)"
)

_PYTHON_2 = {"long": "int", "unicode": "str", "xrange": "range"}


@dataclass(frozen=True)
class Scan:
    """The outermost object of a pickle, and everything that it names.

    Attributes:
        root: the class of the outermost object as `module.name`; "" when it is a plain
            dictionary, list, tuple, number or text.
        globals: every class and function that it names, in order of appearance.
    """

    root: str
    globals: tuple[str, ...]

    @property
    def foreign(self) -> tuple[str, ...]:
        """Those that neither tensors nor harmless objects need."""
        return tuple(
            name
            for name in map(_of_today, self.globals)
            if name not in harmless.NAMES and not _TENSOR_PARTS.fullmatch(name)
        )


def _of_today(name: str) -> str:
    """Python 2's name of a module as Python 3's name, which torch looks up as well."""
    module, _, kind = name.partition(".")
    return f"builtins.{_PYTHON_2.get(kind, kind)}" if module == "__builtin__" else name


def scan(stream: BinaryIO) -> Scan:
    """Read one pickle from the stream and leave it after its end.

    Raises:
        ValueError: when it is not a pickle.
    """
    found: dict[str, None] = {}
    root: str | None = None
    texts: list[str] = []  # strings as they were pushed: STACK_GLOBAL takes the last two
    memo: dict[int, str | None] = {}
    last: str | None = None  # the string on top of the stack, if it is one
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME" | "MARK":
                continue
            case "MEMOIZE":
                memo[len(memo)] = last
                continue
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[int(argument or 0)] = last
                continue
            case "GET" | "BINGET" | "LONG_BINGET":
                last = memo.get(int(argument or 0))
            case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8" | "UNICODE":
                last = str(argument)
            case _:
                last = None
        if last is not None:
            texts.append(last)
            continue
        name = ""
        if opcode.name in {"GLOBAL", "INST"}:
            name = str(argument).replace(" ", ".", 1)
        elif opcode.name == "STACK_GLOBAL":
            name = ".".join(texts[-2:]) if len(texts) >= 2 else "an object of a hidden name"
        if name:
            found[name] = None
        if root is None:
            root = name
    return Scan(root or "", tuple(found))


def scan_file(path: Path) -> Scan:
    """The scan of a torch.save file, of today's zip format or of the one before torch 1.6.

    Raises:
        ValueError: when there is no pickle where torch puts it.
        OSError: when the file cannot be read.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(n for n in archive.namelist() if n.partition("/")[2] == "data.pkl")
                with archive.open(name) as file:
                    return scan(file)  # type: ignore[arg-type]
        with path.open("rb") as file:
            # Three small pickles come first: a magic number, the version, sizes of types.
            for _ in range(3):
                scan(file)
            return scan(file)
    except OSError:
        raise
    except Exception as error:  # a hostile pickle makes pickletools raise anything
        raise ValueError(str(error) or "the archive is damaged") from error
