"""JSON schemas of KServe's resources, from the package that KServe publishes: `kserve` on PyPI.

Its models are generated from the project's OpenAPI document: a class for each schema, with
`openapi_types` (attribute -> type), `attribute_map` (attribute -> key of the JSON), and a refusal
of None in the setter of what is required. They are read as text out of the wheel, nothing of it is
imported. Types of Kubernetes itself (`V1Container`) are those of `kubernetes_validate`, strict.
"""

from __future__ import annotations

import ast
import json
import os
import re
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource

Schema = dict[str, Any]

_KUBERNETES = "kubernetes-json-schema/v1.31.0-local-strict/_definitions.json"
_CLASS = re.compile(r"(V1(alpha|beta)\d|Knative|NetUrl)\w+")
_REQUIRED = re.compile(r"client_side_validation and (\w+) is None:")
_PLAIN: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "ResourceQuantity": {"type": ["string", "number"]},
}


def find_wheel() -> Path | None:
    """kserve-*.whl in a folder of PATH, where tests/tools.sh puts it."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = sorted(Path(folder).glob("kserve-*.whl"))
        if found:
            return found[-1]
    return None


class Schemas:
    """The schemas of one wheel; `validate` refuses unknown keys, too."""

    def __init__(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            texts = [
                archive.read(name).decode()
                for name in archive.namelist()
                if name.startswith("kserve/models/v1")
            ]
        self._classes: dict[str, Schema] = {}
        kubernetes = json.loads((files("kubernetes_validate") / _KUBERNETES).read_text())
        self._kubernetes: Schema = kubernetes["$defs"]
        self._address = kubernetes["$id"]
        self._registry: Registry[Any] = Resource.from_contents(kubernetes) @ Registry()
        for text in texts:
            self._read(text)

    def _read(self, text: str) -> None:
        (found,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
        tables = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in found.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Dict)
        }
        keys = tables["attribute_map"]
        self._classes[found.name] = {
            "type": "object",
            "additionalProperties": False,
            "required": sorted({keys[name] for name in _REQUIRED.findall(text)}),
            "properties": {
                keys[name]: self._of(kind) for name, kind in tables["openapi_types"].items()
            },
        }

    def _of(self, kind: str) -> Schema | bool:
        """The schema of a type; False, which nothing satisfies, for one that nobody defines."""
        if kind in _PLAIN:
            return _PLAIN[kind]
        if kind.startswith("list["):
            return {"type": "array", "items": self._of(kind[5:-1])}
        if kind.startswith("dict(str, "):
            return {"type": "object", "additionalProperties": self._of(kind[10:-1])}
        if _CLASS.fullmatch(kind):
            return {"$ref": f"#/$defs/{kind}"}
        for group in ("api.core", "apimachinery.pkg.apis.meta", "api.apps"):
            name = f"io.k8s.{group}.v1.{kind.removeprefix('V1')}"
            if name in self._kubernetes:
                return {"$ref": f"{self._address}#/$defs/{name}"}
        return False

    def validate(self, document: dict[str, Any]) -> None:
        """Raises jsonschema.ValidationError, KeyError for a kind that KServe does not have."""
        version = document["apiVersion"].removeprefix("serving.kserve.io/")
        name = f"{version[0].upper()}{version[1:]}{document['kind']}"
        schema = {**self._classes[name], "$defs": self._classes}
        validator = jsonschema.Draft202012Validator(schema, registry=self._registry)
        validator.validate(document)
