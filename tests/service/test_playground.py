"""The page in a real browser: Chromium, driven by Playwright, against a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from browsing import CONTRAST, behind, keys_in
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from service import playground

if TYPE_CHECKING:
    from conftest import Served

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
SEVEN = ((0.25, 0.2), (0.5, 0.2), (0.75, 0.2), (0.65, 0.45), (0.55, 0.65), (0.48, 0.85))


@pytest.fixture(scope="module")
def digits(start: Callable[..., Served]) -> Served:
    return start(MODELS)


def draw(page: Page, points: tuple[tuple[float, float], ...] = SEVEN) -> None:
    box = page.locator("canvas.pad").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def test_a_seven_is_drawn_and_seen(visit: Callable[..., Page], digits: Served) -> None:
    page = visit(f"{digits.url}/")
    expect(page.locator("#health")).to_have_text("ready")
    draw(page)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, \d"))
    expect(page.locator(".bars li.best")).to_contain_text("7")
    assert page.locator(".bars li").count() == 10
    for stage in ("decode", "queue", "compute", "encode"):
        expect(
            page.locator("#times").get_by_role("rowheader", name=stage, exact=True)
        ).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#verdict")).to_have_text("Nothing was asked yet.")


def choose(page: Page, name: str) -> None:
    """Choose a model, and wait until its own inputs have taken the place of the former's."""
    expect(page.locator("#panel > *")).not_to_have_count(0)
    page.evaluate("document.querySelector('#panel').firstElementChild.dataset.former = ''")
    page.get_by_label("Predict with").select_option(name)
    expect(page.locator("[data-former]")).to_have_count(0)


def test_the_keyboard_draws(visit: Callable[..., Page], digits: Served) -> None:
    page = visit(f"{digits.url}/")
    page.locator("canvas.pad").focus()
    for _ in range(10):
        page.keyboard.press("ArrowUp")
    for _ in range(20):
        page.keyboard.press("Shift+ArrowDown")
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^1, "))


@pytest.fixture
def png(tmp_path: Path) -> Path:
    example = json.loads((MODELS / "mnist" / "example.json").read_text())["inputs"]
    pixels = np.asarray(example)[0, 0]
    path = tmp_path / "digit.png"
    Image.fromarray((pixels * 255).round().astype(np.uint8), "L").save(path)
    return path


def test_a_picture_is_chosen_or_dropped(
    visit: Callable[..., Page], digits: Served, png: Path
) -> None:
    page = visit(f"{digits.url}/")
    page.get_by_role("tab", name="Picture").click()
    page.locator("#file").set_input_files(png)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))
    expect(page.locator("#code")).to_contain_text("--data-binary @'digit.png'")
    page.get_by_role("tab", name="Draw").click()
    page.get_by_role("tab", name="Picture").click()
    expect(page.locator("#verdict")).to_have_text("Nothing was asked yet.")
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "digit.png", { type: "image/png" }));
            const drop = new DragEvent("drop", { dataTransfer: data, cancelable: true });
            document.querySelector(".drop").dispatchEvent(drop);
        }""",
        list(png.read_bytes()),
    )
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))


def test_a_picture_is_pasted(visit: Callable[..., Page], digits: Served, png: Path) -> None:
    """By Ctrl+V of what another page has put on the real clipboard."""
    page = visit(f"{digits.url}/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("tab", name="Picture").click()
    page.evaluate(
        """bytes => navigator.clipboard.write([new ClipboardItem({
            "image/png": new Blob([new Uint8Array(bytes)], { type: "image/png" }) })])""",
        list(png.read_bytes()),
    )
    page.keyboard.press("Control+V")
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))
    # Text is nothing to look at, and a picture that is pasted elsewhere is not sent.
    page.get_by_role("tab", name="Numbers").click()
    page.keyboard.press("Control+V")
    expect(page.locator("#verdict")).to_have_text("Nothing was asked yet.")


def test_a_photograph_is_turned_upright(
    visit: Callable[..., Page], digits: Served, png: Path
) -> None:
    """A camera's JPEG lies on its side and says so."""
    page = visit(f"{digits.url}/")
    page.get_by_role("tab", name="Picture").click()
    assert page.locator("#file").get_attribute("accept") == "image/*"  # offers the camera
    jpeg, exif = png.with_suffix(".jpg"), Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees clockwise to see it
    with Image.open(png) as image:
        large = image.resize((280, 280)).transpose(Image.Transpose.ROTATE_90)
        large.save(jpeg, exif=exif, quality=95)
    page.locator("#file").set_input_files(jpeg)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))


def test_a_phone_is_wide_enough(
    visit: Callable[..., Page], digits: Served, server: Served, png: Path
) -> None:
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    page = visit(f"{digits.url}/", viewport={"width": 340, "height": 700})
    page.get_by_role("tab", name="Picture").click()
    assert page.evaluate(wide) <= 0
    page.locator("#file").set_input_files(png)
    expect(page.locator(".bars li.best")).to_be_visible()
    assert page.evaluate(wide) <= 0
    starts = {
        box["x"] for box in (bar.bounding_box() for bar in page.locator(".track").all()) if box
    }
    assert len(starts) == 1  # all bars begin at one line
    page = visit(f"{server.url}/", viewport={"width": 340, "height": 700})
    for name in ("animals", "pair", "free"):
        choose(page, name)
        page.get_by_role("button", name="Predict").click()
        assert page.evaluate(wide) <= 0


def test_the_browser_prepares_what_the_service_cannot_read(
    visit: Callable[..., Page], digits: Served, png: Path
) -> None:
    """A picture of another type goes as numbers; so does a PNG where Pillow is not installed."""
    webp = png.with_suffix(".webp")
    Image.open(png).save(webp, lossless=True)
    page = visit(f"{digits.url}/")
    page.get_by_role("tab", name="Picture").click()
    page.locator("#file").set_input_files(webp)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))
    expect(page.locator("#code")).to_contain_text("curl --json @input.json")


def test_no_picture_at_all(visit: Callable[..., Page], digits: Served, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    page = visit(f"{digits.url}/")
    page.get_by_role("tab", name="Picture").click()
    page.locator("#file").set_input_files(path)
    expect(page.get_by_role("alert")).to_contain_text("no picture that the browser can read")


def test_numbers_and_their_errors(visit: Callable[..., Page], server: Served) -> None:
    page = visit(f"{server.url}/")
    choose(page, "animals")
    expect(page.get_by_role("tab")).to_have_text(["Numbers"])
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^(ant|bee|cat), "))
    editor = page.get_by_label("Inputs as JSON")
    editor.fill('{"inputs": [[1, 2')
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("alert")).to_contain_text("This is no JSON")
    editor.fill('{"inputs": [[1, 2]]}')
    editor.press("Control+Enter")
    refused = httpx.post(f"{server.url}/models/animals/predict", json={"inputs": [[1, 2]]}).json()
    expect(page.get_by_role("alert")).to_contain_text(refused["message"])
    expect(page.get_by_role("alert")).to_contain_text(refused["hint"])
    page.get_by_role("button", name="Random numbers").click()
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^(ant|bee|cat), "))


def test_the_last_choice_is_shown(visit: Callable[..., Page], server: Served) -> None:
    """What the page asked of a model that was chosen before may come last."""
    page = visit(f"{server.url}/")
    held: list[Route] = []
    page.route("**/models/pair", lambda route: held.append(route))
    page.get_by_label("Predict with").select_option("pair")
    page.get_by_label("Predict with").select_option("fixed")
    expect(page.locator("#code")).to_contain_text("/models/fixed/")
    with page.expect_response("**/models/pair"):
        held[0].continue_()
    page.wait_for_timeout(200)
    expect(page.locator("#code")).to_contain_text("/models/fixed/")


def test_every_row_is_answered(visit: Callable[..., Page], server: Served) -> None:
    page = visit(f"{server.url}/")
    choose(page, "animals")
    page.get_by_label("Inputs as JSON").fill(json.dumps({"inputs": [[1, 2, 3, 4]] * 6}))
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^row 1: .*; row 4: [^;]*$"))
    expect(page.locator(".bars")).to_have_count(4)
    expect(page.locator("#outputs")).to_contain_text("2 more rows")
    choose(page, "fixed")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator(".values")).to_have_text(re.compile(r"^(\S+  \S+  \S+\n?){2}$"))


@pytest.mark.parametrize("name", ["pair", "embedding", "int64", "not", "half", "free", "scalar"])
def test_the_example_fits_every_signature(
    visit: Callable[..., Page], server: Served, name: str
) -> None:
    page = visit(f"{server.url}/")
    choose(page, name)
    expect(page.locator("#facts")).to_contain_text("input")
    page.get_by_role("tab", name="Numbers").click()
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#verdict")).to_have_text(re.compile("answered"))


def test_markup_of_a_model_stays_text(
    visit: Callable[..., Page], start: Callable[..., Served], tmp_path: Path
) -> None:
    folder = tmp_path / "evil" / "1"
    shutil.copytree(MODELS / "mnist" / "1", folder)
    manifest = json.loads((folder / "model.json").read_text())
    attack = "<img src=x onerror=\"document.title='owned'\">"
    manifest["name"], manifest["description"] = "evil", attack
    manifest["classification"]["labels"] = [f"{attack}{i}" for i in range(10)]
    manifest["provenance"]["source"] = attack
    (folder / "model.json").write_text(json.dumps(manifest))
    served = start(tmp_path)
    page = visit(f"{served.url}/")
    expect(page.locator("#about")).to_have_text(attack)
    draw(page)
    expect(page.locator("#verdict")).to_contain_text(attack)
    assert page.title() == "Foldserve"
    assert page.locator("main img").count() == 0
    assert served.stop() == 0


def test_scripts_from_elsewhere_do_not_run(browser: Browser, digits: Served) -> None:
    page = browser.new_page()
    page.goto(f"{digits.url}/")
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'owned'";
            document.body.append(script);
        }"""
    )
    assert page.title() == "Foldserve"
    assert (
        page.evaluate("fetch('http://127.0.0.2/').then(() => 'sent', () => 'blocked')") == "blocked"
    )
    page.close()


def test_a_key_is_asked_for_once(
    visit: Callable[..., Page], start: Callable[..., Served], tmp_path: Path
) -> None:
    served = start(MODELS, *keys_in(tmp_path))
    page = visit(f"{served.url}/")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.get_by_label("API key").fill("a-wrong-key")
    page.get_by_role("button", name="Use it").click()
    expect(dialog).to_be_visible()
    page.get_by_label("API key").fill("a-good-key-of-some-length")
    page.get_by_role("button", name="Use it").click()
    draw(page)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))
    expect(page.locator("#code")).to_contain_text("X-API-Key: $FOLDSERVE_KEY")
    assert "a-good-key" not in page.content()
    page.reload()
    draw(page)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))
    expect(dialog).to_be_hidden()
    assert served.stop() == 0


def test_the_report_names_each_batch_norm(visit: Callable[..., Page], digits: Served) -> None:
    page = visit(f"{digits.url}/")
    page.locator("#fold summary").click()
    report = page.locator("#report")
    expect(report).to_contain_text("6 of 6 batch-norms")
    for number in range(1, 7):
        row = report.get_by_role("row", name=f"bn{number} folded backward into")
        expect(row).to_be_visible()
    expect(report.get_by_role("row", name=re.compile("batch-norms 6 0"))).to_be_visible()


CURVES = [
    {"name": "train_loss", "steps": [1, 50, 99], "values": [2.5, 0.25, 0.0125]},
    {"name": "validation_loss", "steps": [50, 99], "values": [0.5, 0.025]},
    {"name": "validation_accuracy", "steps": [50, 99], "values": [0.5, 0.99]},
]


def test_how_it_was_trained(
    visit: Callable[..., Page], start: Callable[..., Served], digits: Served, tmp_path: Path
) -> None:
    folder = tmp_path / "mnist" / "1"
    shutil.copytree(MODELS / "mnist" / "1", folder)
    manifest = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(manifest | {"curves": CURVES}))
    served = start(tmp_path)
    page = visit(f"{served.url}/", color_scheme="dark")
    page.locator("#training > summary").click()
    loss = page.get_by_role("img", name=re.compile("^Loss by step"))
    expect(loss).to_have_accessible_name(
        "Loss by step: train loss from 2.5 at step 1 to 0.0125 at step 99; "
        "validation loss from 0.5 at step 50 to 0.025 at step 99."
    )
    assert page.locator("#curves svg[role=img]").count() == 2
    # The larger the loss, the higher: y grows downwards.
    path = loss.locator("path.curve-0").get_attribute("d") or ""
    heights = [float(point.split()[1]) for point in path[1:].split("L")]
    assert heights == sorted(heights)
    assert heights[0] < heights[-1]
    page.get_by_text("Loss as a table").click()
    rows = page.get_by_role("region", name="Loss by step").get_by_role("row")
    expect(rows).to_have_text([re.compile(t) for t in ("^step", "1.*2.5.*-", "50", "99")])
    assert page.evaluate(CONTRAST) == []
    assert served.stop() == 0


def test_a_model_without_a_record_has_no_curves(visit: Callable[..., Page], server: Served) -> None:
    page = visit(f"{server.url}/")
    choose(page, "pair")
    expect(page.locator("#facts")).to_contain_text("positive")
    expect(page.locator("#training")).to_be_hidden()


def test_charts_move(visit: Callable[..., Page], digits: Served) -> None:
    page = visit(f"{digits.url}/")
    page.locator("#live summary").click()
    draw(page)
    captions = page.locator("#charts figcaption")
    expect(captions).to_have_count(3)
    expect(captions.first).to_have_text(re.compile(r"requests a second: [0-9]"), timeout=15_000)


def test_what_is_copied_runs(visit: Callable[..., Page], digits: Served, tmp_path: Path) -> None:
    page = visit(f"{digits.url}/")
    draw(page)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))
    with page.expect_download() as download:
        page.get_by_role("link", name="Save this input").click()
    download.value.save_as(tmp_path / "input.json")
    clients = page.get_by_label("Copy as")
    code = page.locator("#code")

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    if shutil.which("curl"):
        assert json.loads(run("sh", "-c", code.inner_text()))["predictions"][0]["label"] == "7"
    clients.select_option("Python")
    assert "'label': '7'" in run(sys.executable, "-c", code.inner_text())
    clients.select_option("tritonclient")
    numbers = re.findall(r"-?\d+\.\d+", run(sys.executable, "-c", code.inner_text()))
    assert max(range(10), key=lambda i: float(numbers[i])) == 7


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "FOLDSERVE_KEY": "a-good-key-of-some-length"},
    )  # fmt: skip
    return done.stdout


def interpreter(client: str) -> list[str]:
    return ["sh", "-c"] if client == "curl" else [sys.executable, "-c"]


@pytest.mark.parametrize("client", ["curl", "Python", "tritonclient"])
def test_what_is_copied_runs_with_a_key_and_two_inputs(
    visit: Callable[..., Page],
    start: Callable[..., Served],
    zoo: Path,
    tmp_path: Path,
    client: str,
) -> None:
    if client == "curl" and not shutil.which("curl"):
        pytest.skip("no curl")
    keys = tmp_path / "keys"
    keys.write_text("a-good-key-of-some-length\n")
    keys.chmod(0o600)
    served = start(zoo, "--api-keys-file", str(keys))
    page = visit(f"{served.url}/")
    page.get_by_label("API key").fill("a-good-key-of-some-length")
    page.get_by_role("button", name="Use it").click()
    choose(page, "pair")
    expect(page.locator("#facts")).to_contain_text("positive")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#verdict")).to_have_text(re.compile("answered"))
    with page.expect_download() as download:
        page.get_by_role("link", name="Save this input").click()
    download.value.save_as(tmp_path / "input.json")
    page.get_by_label("Copy as").select_option(client)
    code = page.locator("#code").inner_text()
    assert "a-good-key" not in code
    # y = a + b with a = b = (0, 0.84): the page's example, sin(0) and sin(1)
    assert re.search(r"1\.68", run([*interpreter(client), code], tmp_path))
    assert served.stop() == 0


@pytest.mark.parametrize("client", ["curl", "Python"])
def test_a_copied_picture_runs(
    visit: Callable[..., Page], digits: Served, png: Path, client: str
) -> None:
    if client == "curl" and not shutil.which("curl"):
        pytest.skip("no curl")
    page = visit(f"{digits.url}/")
    page.get_by_role("tab", name="Picture").click()
    page.locator("#file").set_input_files(png)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))
    page.get_by_label("Copy as").select_option(client)
    code = page.locator("#code").inner_text()
    assert re.search("label.{1,6}7", run([*interpreter(client), code], png.parent))


def test_models_come_fail_and_go(
    visit: Callable[..., Page], start: Callable[..., Served], tmp_path: Path
) -> None:
    shutil.copytree(MODELS / "mnist" / "1", tmp_path / "mnist" / "1")
    served = start(tmp_path, "--watch-interval-ms", "100")
    page = visit(f"{served.url}/")
    draw(page)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))
    # A second model that cannot be loaded: its reason is told, and the drawing stays.
    broken = tmp_path / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"no model")
    told = page.get_by_role("list", name="Not served")
    expect(told).to_contain_text("broken, version 1, is not served:", timeout=20_000)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))
    # Nothing is left.
    shutil.rmtree(tmp_path / "mnist")
    expect(page.locator("#about")).to_contain_text("No model is served.", timeout=20_000)
    for part in ("#input", "#answer", "#copy", "#fold", "#training"):
        expect(page.locator(part)).to_be_hidden()
    expect(told).to_contain_text("broken, version 1, is not served:")
    # And it comes back.
    shutil.copytree(MODELS / "mnist" / "1", tmp_path / "mnist" / "1")
    expect(page.locator("canvas.pad")).to_be_visible(timeout=20_000)
    draw(page)
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))
    assert served.stop() == 0


def test_behind_a_path_prefix(visit: Callable[..., Page], digits: Served) -> None:
    with behind("/some/prefix", digits.url) as url:
        page = visit(f"{url}/some/prefix/")
        draw(page)
        expect(page.locator("#verdict")).to_have_text(re.compile(r"^7, "))


def test_the_server_goes_away(visit: Callable[..., Page], start: Callable[..., Served]) -> None:
    served = start(MODELS)
    page = visit(f"{served.url}/")
    expect(page.locator("#health")).to_have_text("ready")
    expect(page.locator("canvas.pad")).to_be_visible()  # the page has asked all that it needs
    assert served.stop() == 0
    draw(page)
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")


def test_both_colour_schemes_can_be_read(visit: Callable[..., Page], digits: Served) -> None:
    """WCAG 2.2, 1.4.3: text against its ground, at least 4.5 : 1."""
    for scheme in ("light", "dark"):
        page = visit(f"{digits.url}/", color_scheme=scheme)
        draw(page)
        expect(page.locator(".bars li.best")).to_be_visible()
        assert page.evaluate(CONTRAST) == []


def test_others_than_browsers_get_json(client: httpx.Client) -> None:
    assert client.get("/").json()["name"] == "Foldserve"
    page = client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == playground.POLICY
    again = client.get("/", headers={"accept": "text/html", "if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", sorted(playground.FILES))
def test_each_file_is_served(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/playground/{name}")
    assert answer.content == playground.FILES[name].content
    assert answer.headers["content-security-policy"] == playground.POLICY


@pytest.mark.parametrize("name", ["x.js", "..%2f__init__.py", "%2e%2e/__init__.py", "main.js%00"])
def test_nothing_else_is(client: httpx.Client, name: str) -> None:
    assert client.get(f"/playground/{name}").status_code == 404


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    for name, file in playground.FILES.items():
        text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(src|href|import|url|from)\W{1,3}(https?:)?//", text), name
