"""What a file is, told by looking inside it. Its name and extension do not matter.

`FORMATS` is a table of rules, tried from the top. A row either names the loader that reads the
format, or is recognised only to be refused with a sentence that helps.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from converter.errors import UserError
from converter.files import wire
from converter.sources import folders

HEAD = 1024  # bytes of the file that the rules may look at
# Weights hardly compress, and torch and Keras store them as they are. An archive that unpacks to
# this many times its size, and to this many bytes, was built to fill memory.
LARGEST_GROWTH, HARMLESS = 20, 1 << 26


class Peek:
    """The little of a file that tells its format; nothing in it is executed or unpacked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.unpacked = 0  # bytes in a zip archive; known once `entries` is
        with path.open("rb") as file:
            self.head = file.read(HEAD)

    def starts(self, *magics: bytes) -> bool:
        return self.head.startswith(magics)

    @cached_property
    def text(self) -> str:
        """The beginning as text in lower case, to recognise pages and pointers."""
        return self.head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n").lower()

    @cached_property
    def entries(self) -> frozenset[str] | None:
        """Entries of a zip archive, without the folder that torch puts on top.

        None when the file is not a zip archive, or was cut off.
        """
        if not self.starts(b"PK\x03\x04"):
            return None
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
                self.unpacked = sum(entry.file_size for entry in archive.infolist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return None
        return frozenset(names) | {name.partition("/")[2] for name in names}

    @property
    def bomb(self) -> bool:
        """Whether it is a zip archive that is made to fill memory."""
        return self.entries is not None and self.unpacked > max(
            HARMLESS, LARGEST_GROWTH * self.size
        )

    def holds(self, *names: str) -> bool:
        """Whether it is a zip archive with all of these entries."""
        return self.entries is not None and self.entries.issuperset(names)

    def holds_folder(self, prefix: str) -> bool:
        """Whether it is a zip archive with an entry below this folder."""
        return any(name.startswith(prefix) for name in self.entries or ())

    @property
    def index(self) -> bool:
        """Whether it is the index of a model that Hugging Face's libraries cut into shards."""
        return self.text.startswith("{") and self.path.name.endswith(folders.INDEX)

    @property
    def of_arrays(self) -> bool:
        """Whether it is a zip archive of .npy entries and nothing else."""
        return bool(self.entries) and all(n.endswith(".npy") for n in self.entries or () if n)

    @cached_property
    def onnx(self) -> wire.Verdict:
        return wire.is_onnx(self.path)

    @property
    def safetensors(self) -> bool:
        """8 bytes little-endian: the length of the JSON header that follows, then `{`."""
        length = int.from_bytes(self.head[:8], "little")
        return len(self.head) > 8 and self.head[8:9] == b"{" and 2 <= length <= self.size - 8


@dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes:
        what: the format in words, as in "model.pt is {what}".
        matches: whether a file is of this format.
        loader: the module of `converter.sources` that reads it; "" when it is refused.
        hint: for a refused format, what to do instead.
    """

    what: str
    matches: Callable[[Peek], bool]
    loader: str = ""
    hint: str = ""


_COPY_AGAIN = "copy or download the file again and compare its size with the original"
_UNPACK = "unpack it and give the model file inside"
_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # torch.save before 1.6

FORMATS = (
    Format("an empty file", lambda p: p.size == 0, hint=_COPY_AGAIN),
    Format(
        "a git-lfs pointer, not the model itself",
        lambda p: p.text.startswith("version https://git-lfs"),
        hint="run `git lfs pull` in its repository to fetch the model",
    ),
    Format(
        "a web page, not a model",
        lambda p: p.text.startswith(("<!doctype html", "<html")),
        hint="the download link leads to a page: use the direct link to the file",
    ),
    Format(
        "an archive that unpacks to many times its size",
        lambda p: p.bomb,
        hint="such a file may be an attack; torch.save does not compress: save the model again",
    ),
    Format(
        "a Keras model (.keras)",
        lambda p: p.holds("config.json", "metadata.json") and p.holds_folder("model.weights."),
        loader="keras_",
    ),
    Format(
        "a Keras model in HDF5 (.h5)",
        lambda p: p.starts(b"\x89HDF\r\n\x1a\n"),
        loader="keras_",
    ),
    Format(
        "a compiled AOTInductor package",
        lambda p: p.holds_folder("data/aotinductor/"),
        hint="machine code cannot be folded: save the program with torch.export.save instead",
    ),
    Format(
        "a torch.export program",
        lambda p: p.holds("archive_format", "models/model.json"),
        loader="exported",
    ),
    Format(
        "a torch.export program of an older torch",
        lambda p: p.holds("serialized_exported_program.json"),
        hint="load and save it again with a torch of today, or export the model again",
    ),
    Format("a TorchScript archive", lambda p: p.holds("constants.pkl"), loader="torchscript"),
    Format("a torch.save file", lambda p: p.holds("data.pkl"), loader="torch_"),
    Format(
        "a torch.save file in the format before torch 1.6",
        lambda p: _LEGACY_MAGIC in p.head[:32],
        loader="torch_",
    ),
    Format("an .npz archive of arrays", lambda p: p.of_arrays, loader="numpy_"),
    Format("a TorchServe archive (.mar)", lambda p: p.holds("MAR-INF/MANIFEST.json"), hint=_UNPACK),
    Format("a zip archive", lambda p: p.entries is not None, hint=_UNPACK),
    Format(
        "a zip archive that was cut off or damaged", lambda p: p.starts(b"PK"), hint=_COPY_AGAIN
    ),
    Format("an index of weights in several files", lambda p: p.index, loader="pretrained"),
    Format("a safetensors file", lambda p: p.safetensors, loader="safetensors_"),
    Format(
        "a compressed file",
        lambda p: p.starts(
            b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf"
        ),
        hint=_UNPACK,
    ),
    Format("a tar archive", lambda p: p.head[257:262] == b"ustar", hint=_UNPACK),
    Format("an .npy array", lambda p: p.starts(b"\x93NUMPY"), hint="give the model, not its data"),
    Format(
        "a plain pickle, not written by torch.save",
        lambda p: p.head[:1] == b"\x80" and p.head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"},
        hint="load it where it was made and save its state_dict() with torch.save",
    ),
    Format(
        "a TensorFlow Lite model",
        lambda p: p.head[4:8] == b"TFL3",
        hint="convert the model that it was made from",
    ),
    Format(
        "an onnxruntime .ort model",
        lambda p: p.head[4:8] == b"ORTM",
        hint="give the .onnx that it was made from",
    ),
    Format("an ONNX model", lambda p: p.onnx is wire.Verdict.WHOLE, loader="onnx_"),
    Format(
        "an ONNX model that was cut off", lambda p: p.onnx is wire.Verdict.CUT, hint=_COPY_AGAIN
    ),
)

_READABLE = (
    "readable are: ONNX, torch.save (a state_dict or a checkpoint), safetensors, .npz, "
    "TorchScript, torch.export and Keras files"
)


def format_of(path: Path) -> Format:
    """The row of `FORMATS` that matches the file, always one with a loader.

    Raises:
        UserError: when there is no such file, it is a folder, or no loader reads it.
    """
    if path.is_dir() and folders.is_pretrained(path):
        return Format("a folder of Hugging Face's", lambda _: True, loader="pretrained")
    if path.is_dir():
        raise UserError(f"{path} is {_folder(path)}", _folder_hint(path))
    try:
        peek = Peek(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    for row in FORMATS:
        if row.matches(peek):
            if not row.loader:
                raise UserError(f"{path} is {row.what}", row.hint)
            return row
    raise UserError(f"{path} is not a model file of a kind that is known", _READABLE)


def _folder(path: Path) -> str:
    if (path / "saved_model.pb").exists():
        return "a TensorFlow SavedModel folder, which is not read"
    if (path / "config.json").exists() and (path / "metadata.json").exists():
        return "a Keras model that was saved with zipped=False"
    models = _models_in(path)
    return f"a folder (it holds {', '.join(models[:3])})" if models else "a folder"


def _folder_hint(path: Path) -> str:
    if (path / "saved_model.pb").exists():
        return (
            'where the model was made: model.save("model.keras"); or, without its code, '
            "`python -m tf2onnx.convert --saved-model FOLDER --output model.onnx` (pip install "
            "tf2onnx), and fold that"
        )
    if any((path / name).is_file() for name in folders.WEIGHTS):
        return "give the file of weights in it, with --arch: there is no config.json beside it"
    if (path / "config.json").exists() and (path / "metadata.json").exists():
        return "zip what is in it to model.keras: cd FOLDER && zip -0 -r ../model.keras ."
    return "give one model file"


def _models_in(path: Path) -> list[str]:
    return sorted(
        child.name
        for child in path.iterdir()
        if child.suffix in {".onnx", ".pt", ".pth", ".pt2", ".safetensors", ".keras", ".h5"}
    )
