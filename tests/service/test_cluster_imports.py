"""Ray's processes run our package, though the folder of the user has one of the same name."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

import service
from service.cluster.imports import of_this_package
from tests.serving import serving

ROOT = Path(__file__).parents[2]
HOSTILE = "import sys\nsys.exit('the file of the user was run')\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a project that has a package `service` and more."""
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text(HOSTILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_folder_and_pythonpath_are_ours_while_ray_starts(here: Path) -> None:
    home = str(ROOT)
    for given, wanted in [
        (None, None),
        ("", ""),
        ("/nowhere", "/nowhere"),
        (f"{home}{os.pathsep}{here}", f"{home}{os.pathsep}{here}"),  # ours is first already
        (f"{here}{os.pathsep}{home}", f"{home}{os.pathsep}{here}{os.pathsep}{home}"),
        (str(here), f"{home}{os.pathsep}{here}"),
        (os.pathsep, os.pathsep),  # the current folder, which is another then
    ]:
        environ = {} if given is None else {"PYTHONPATH": given}
        with of_this_package(environ):
            assert Path.cwd() == Path(service.__file__).parents[1] == ROOT
            assert environ.get("PYTHONPATH") == wanted
        assert Path.cwd() == here


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra [ray]")
def test_replicas_and_proxies_are_ours(here: Path) -> None:
    (here / "onnxruntime.py").write_text(HOSTILE)  # not on PYTHONPATH, only in the folder
    other = here / "other"
    (other / "service").mkdir(parents=True)
    (other / "service" / "__init__.py").write_text(HOSTILE)
    (here / "bin").mkdir()
    script = here / "bin" / "foldserve"
    script.write_text("import sys\nfrom foldserve.command import main\nsys.exit(main())\n")
    scratch = tempfile.mkdtemp(prefix="r", dir="/tmp")  # a short path: sockets lie in it
    command = [
        sys.executable, str(script), "serve", "--models", str(ROOT / "models"), "--port", "0",
        "--engine", "ray", "--max-replicas", "1",
    ]  # fmt: skip
    environ = {**os.environ, "RAY_TMPDIR": scratch, "HOME": scratch}
    environ["PYTHONPATH"] = os.pathsep.join([str(other), str(ROOT)])
    try:
        with serving(command, env=environ) as url:
            asked = (ROOT / "models" / "mnist" / "example.json").read_bytes()
            answer = httpx.post(f"{url}/predict", content=asked, timeout=60)
            assert answer.json()["predictions"][0]["label"] == "7", answer.text
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
