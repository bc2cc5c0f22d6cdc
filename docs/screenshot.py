"""Make the picture of the page, docs/playground.png: `python docs/screenshot.py`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

HERE = Path(__file__).parent
SEVEN = ((0.25, 0.2), (0.5, 0.2), (0.75, 0.2), (0.65, 0.45), (0.55, 0.65), (0.48, 0.85))


def main() -> None:
    command = [
        sys.executable,
        "-m",
        "service",
        "--port",
        "0",
        "--models",
        str(HERE.parent / "models"),
    ]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        assert server.stdout is not None
        url = next(line.split()[1] for line in server.stdout if line.strip().startswith("url "))
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(f"{url}/")
        box = page.locator("canvas.pad").bounding_box()
        assert box is not None
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in SEVEN]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=5)
        page.mouse.up()
        expect(page.locator("#verdict")).to_have_text(re.compile("^7, "))
        page.screenshot(path=HERE / "playground.png")
        server.terminate()


if __name__ == "__main__":
    main()
