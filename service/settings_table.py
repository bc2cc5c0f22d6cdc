"""The settings as a table for the documentation: `python -m service.settings_table`."""

from __future__ import annotations

import sys

from pydantic.fields import FieldInfo

from service.settings import Settings
from service.settings_read import flag, variable

BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
# The end of a name, and its unit.
_UNITS = {
    "_ms": "ms",
    "_us": "µs",
    "_bytes": "bytes",
    "_samples": "rows",
    "_requests": "requests",
    "_pixels": "pixels",
    "_size": "rows",
    "_replicas": "replicas",
    "_percent": "%",
    "cpus_per_replica": "CPUs",
    "gpus_per_replica": "GPUs",
}


def table() -> str:
    """Flag, variable, default, unit and description of every setting, in their order."""
    lines = ["| flag | variable | default | unit | |", "|---|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(
            f"| `{flag(name)}` | `{variable(name)}` | {_default(field)} | {_unit(name)} "
            f"| {field.description} |"
        )
    return "\n".join(lines) + "\n"


def replace(document: str) -> str:
    """The document with the table between its two marks brought up to date."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def _default(field: FieldInfo) -> str:
    return "" if field.default in (None, "") else f"`{field.default}`"


def _unit(name: str) -> str:
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


if __name__ == "__main__":
    sys.stdout.write(table())
