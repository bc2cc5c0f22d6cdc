"""GET /docs in a real browser: nothing from another host, and what it describes can be sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from browsing import CONTRAST, behind, keys_in
from playwright.sync_api import Locator, Page, expect

if TYPE_CHECKING:
    from conftest import Served

pytestmark = pytest.mark.slow

MODELS = Path(__file__).parents[2] / "models"


def opened(page: Page, name: str) -> Locator:
    operation = page.locator(f"#{name}")
    operation.locator("> summary").click()
    return operation


# `visit` fails a test whose page asks another host for anything.
def test_every_operation_is_there(visit: Callable[..., Page], server: Served) -> None:
    page = visit(f"{server.url}/docs")
    document = httpx.get(f"{server.url}/openapi.json").json()
    operations = [o for of in document["paths"].values() for o in of.values()]
    expect(page.locator("details.operation")).to_have_count(len(operations))
    for operation in operations:
        expect(page.locator(f"#{operation['operationId']} > summary")).to_contain_text(
            operation["summary"]
        )


def test_an_operation_is_tried_out(visit: Callable[..., Page], server: Served) -> None:
    page = visit(f"{server.url}/docs")
    operation = opened(page, "predict_model")
    operation.get_by_label("name").fill("pair")
    operation.get_by_label("name").press("Tab")  # its example is in the editor now
    expect(operation.get_by_label("Body")).to_have_value(re.compile('"a": '))
    operation.get_by_role("button", name="Send").click()
    expect(operation.get_by_role("status")).to_contain_text("200 OK")
    expect(operation.get_by_label("Answer")).to_contain_text("positive")
    operation.get_by_label("Body").fill("{")
    operation.get_by_role("button", name="Send").click()
    expect(operation.get_by_role("status")).to_contain_text("400")
    expect(operation.get_by_label("Answer")).to_contain_text("malformed_json")


@pytest.mark.parametrize("protocol", ["post_v2_models_name_infer", "post_v1_models_name_predict"])
def test_other_protocols_have_examples(
    visit: Callable[..., Page], server: Served, protocol: str
) -> None:
    page = visit(f"{server.url}/docs#{protocol}")
    operation = page.locator(f"#{protocol}")
    operation.get_by_label("name", exact=True).fill("animals")
    operation.get_by_label("name", exact=True).press("Enter")
    expect(operation.get_by_role("status")).to_contain_text("200 OK")


def test_a_file_is_a_body(visit: Callable[..., Page], server: Served, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 4), np.float32))
    page = visit(f"{server.url}/docs")
    operation = opened(page, "predict_model")
    operation.get_by_label("name").fill("animals")
    operation.get_by_label("Content-Type").select_option("application/x-npy")
    operation.get_by_role("button", name="Send").click()
    expect(operation.locator(".problem")).to_contain_text("No file was chosen.")
    operation.get_by_label("File").set_input_files(tmp_path / "x.npy")
    operation.get_by_role("button", name="Send").click()
    expect(operation.get_by_label("Answer")).to_contain_text("scores")


def test_behind_a_prefix_with_a_key_in_both_schemes(
    visit: Callable[..., Page], start: Callable[..., Served], tmp_path: Path
) -> None:
    served = start(MODELS, *keys_in(tmp_path))
    for scheme in ("dark", "light"):
        with behind("/some/prefix", served.url) as url:
            page = visit(f"{url}/some/prefix/docs", color_scheme=scheme)
            page.get_by_label("API key").fill("a-good-key-of-some-length")
            page.get_by_role("button", name="Use it").click()
            operation = opened(page, "predict")
            operation.get_by_role("button", name="Send").click()
            expect(operation.get_by_label("Answer")).to_contain_text("predictions")
            assert page.evaluate(CONTRAST) == []
    assert served.stop() == 0
