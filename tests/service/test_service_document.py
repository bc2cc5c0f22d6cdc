"""docs/service.md says what the settings and the metrics are."""

from __future__ import annotations

import re
from pathlib import Path

from service.settings import Settings
from service.settings_table import replace, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "service.md"


def test_the_table_is_that_of_the_settings():
    """If this fails: put the output of `python -m service.settings_table` between the marks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert replace(text) == text


def test_the_table_has_a_row_for_every_knob_with_variable_default_and_unit():
    rows = table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    body = next(row for row in rows if "--max-body-bytes" in row)
    assert "| `FOLDSERVE_MAX_BODY_BYTES` | `16777216` | bytes |" in body
    wait = next(row for row in rows if "--max-wait-us" in row)
    assert "| µs |" in wait


def test_every_flag_that_the_text_names_exists():
    flags = {"--" + name.replace("_", "-") for name in Settings.model_fields}
    flags |= {"--publish", "--if-changed", "--certify", "--json"}  # the converter's
    text = DOCUMENT.read_text(encoding="utf-8")
    assert set(re.findall(r"`?(--[a-z][a-z-]+)", text)) <= flags
