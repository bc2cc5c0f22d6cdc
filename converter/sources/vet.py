"""Check programs in archives before torch loads them.

torch.jit.load and torch.export.load are made for trusted files: a TorchScript program may
write files when it runs, and loading a torch.export program unpickles parts of it, evaluates its
size expressions as Python, and looks up its operators by name anywhere below `torch`. These rules
let through what exporters write, and nothing else; `--trust-pickle` skips them.

Archives are read with torch's own reader, so that both see the same entries.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from converter.errors import UserError, first_line

_TRUST = "--trust-pickle loads it all the same: only if you trust whoever made the file"

# Operators of TorchScript that act outside the program.
_REACHING_OUT = re.compile(r"\b(save|from_file|rpc_async|rpc_sync|rpc_remote)\s*\(")

# Operators that a torch.export graph may call: registered ones, and arithmetic on sizes.
_OPERATORS = re.compile(
    r"torch\.ops\.(?!load_library|import_module)_?[a-z]\w*\._?[A-Za-z]\w*(\._?[A-Za-z]\w*)?"
    r"|torch\.ops\.aten\.__[a-z]+__\.\w+"
    r"|_operator\.\w+|math\.[a-z]\w*|torch\.sym_\w+|torch\._sym_\w+|torch\.\w+\._sym_\w+"
)
_FORBIDDEN = ("torch.ops.aten.save", "torch.ops.aten.from_file")

# Functions that occur in expressions over sizes, as sympy and torch.utils._sympy print them.
_SIZE_FUNCTIONS = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|Abs|And|Or|Not|Eq|Ne|"
    r"Equality|Unequality|Lt|Le|Gt|Ge|StrictLessThan|LessThan|StrictGreaterThan|"
    r"GreaterThan|GreaterThanOrEqual|LessThanOrEqual|Piecewise|ExprCondPair|floor|"
    r"ceiling|FloorDiv|ModularIndexing|Where|PythonMod|CleanDiv|CeilDiv|CeilToInt|"
    r"FloorToInt|IntTrueDiv|FloatTrueDiv|ToFloat|TruncToInt|TruncToFloat|RoundToInt|"
    r"RoundDecimal|PowByNatural|FloatPow|Identity|LShift|RShift|BitwiseFn_bitwise_and|"
    r"BitwiseFn_bitwise_or"
)
_SIZE_NAMES = re.compile(r"[a-z]{1,3}[0-9]+|oo|zoo|int_oo|true|false")
_SIZE_NODES = (
    ast.Expression, ast.Load, ast.BinOp, ast.UnaryOp, ast.Compare, ast.keyword,
    ast.operator, ast.unaryop, ast.cmpop, ast.Tuple,
)  # fmt: skip

# Containers of inputs and outputs; others name a class or an enumeration that would be imported.
_CONTAINERS = re.compile(r"builtins\.(tuple|list|dict)|collections\.(OrderedDict|namedtuple)")


def torchscript(path: Path) -> None:
    """Raises UserError when the program could write files or talk to others."""
    reader = _reader(path)
    for name in reader.get_all_records():
        if name.startswith("code/") and name.endswith(".py"):
            code = reader.get_record(name).decode("utf-8", "replace")
            if found := _REACHING_OUT.search(code):
                raise UserError(
                    f"{path} is a TorchScript program that calls {found[1]}(), which reaches "
                    "outside of the program",
                    _TRUST,
                )


def exported_program(path: Path) -> None:
    """Raises UserError when loading the program could do more than load it, or it is damaged."""
    reader = _reader(path)
    try:
        _check_program(path, reader)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is a damaged torch.export program: {type(error).__name__}: {error}",
            "export it again",
        ) from error


def _check_program(path: Path, reader: Any) -> None:
    for name in reader.get_all_records():
        if name.startswith(("data/weights/", "data/constants/", "data/sample_inputs/")):
            if name.endswith("_config.json"):
                _check_payloads(path, json.loads(reader.get_record(name)), reader, name)
            elif name.endswith(".pt"):
                _check_pickle(path, name, reader)
        elif name.startswith("models/"):
            for complaint in complaints(json.loads(reader.get_record(name))):
                raise UserError(
                    f"{path} is not an ordinary torch.export program: {complaint}", _TRUST
                )


def complaints(program: Any) -> Iterator[str]:
    """What in a program's JSON no exporter would have written, one sentence each."""
    for key, value in _strings(program):
        if key in {"target", "as_operator"}:
            if not _OPERATORS.fullmatch(value) or value.startswith(_FORBIDDEN):
                yield f"it calls {value!r}"
        elif key == "expr_str" and not is_size_expression(value):
            yield f"one of its sizes is {value[:80]!r}"
        elif key in {"in_spec", "out_spec"}:
            _, spec = json.loads(value)
            for name, text in _strings(spec):
                if name == "type" and not _CONTAINERS.fullmatch(text):
                    yield f"its inputs or outputs hold a {text!r}"
                if name == "context" and "__enum__" in text:
                    yield "its inputs or outputs name an enumeration to import"


def is_size_expression(text: str) -> bool:
    """Whether it is arithmetic over named sizes: "Add(Symbol('s73', integer=True), Integer(-2))".

    torch evaluates it as Python, so anything else, like a call of `exec`, must not get there.
    """
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_size_node(node) for node in ast.walk(tree))


def _is_size_node(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name()):
            return True  # the name is a separate node
        case ast.Name(id=name):
            return bool(_SIZE_FUNCTIONS.fullmatch(name) or _SIZE_NAMES.fullmatch(name))
        case ast.Constant(value=str(text)):
            return bool(re.fullmatch(r"\w+|-?[0-9.e+-]+", text))
        case ast.Constant(value=value):
            return isinstance(value, bool | int | float)
    return isinstance(node, _SIZE_NODES)


def _check_payloads(path: Path, config: Any, reader: Any, name: str) -> None:
    """Weights are raw bytes; the few that are pickled, and constants, may only be tensors."""
    folder = name.rpartition("/")[0]
    for payload in config["config"].values():
        entry = f"{folder}/{payload['path_name']}"
        if payload["path_name"].startswith(("custom_obj_", "opaque_obj_")):
            raise UserError(f"{path} holds an object that is not a tensor: {entry}", _TRUST)
        if payload.get("use_pickle"):
            _check_pickle(path, entry, reader)


def _check_pickle(path: Path, name: str, reader: Any) -> None:
    content = reader.get_record(name)
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} holds a pickle of more than tensors in {name}: {first_line(error)}",
            _TRUST,
        ) from error


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a JSON value with the key that it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _strings(child, str(name))
    elif isinstance(value, list):
        for child in value:
            yield from _strings(child, key)


def _reader(path: Path) -> Any:
    try:
        return torch._C.PyTorchFileReader(str(path))
    except RuntimeError as error:
        raise UserError(
            f"{path} is a damaged archive: {first_line(error)}",
            "copy or download it again",
        ) from error
