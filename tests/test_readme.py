"""What the README says can be done: its commands parse, its files exist, its Python runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from converter import cli
from converter.commands.parsing import parsed
from service import settings_read

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [long_form(shlex.split(line, comments=True)) for line in lines]


def long_form(words: list[str]) -> list[str]:
    """`foldserve fold ...` is `python -m converter fold ...`, and `foldserve serve` the service."""
    match words:
        case ["foldserve", "serve", *rest]:
            return ["python", "-m", "service", *rest]
        case ["foldserve", *rest]:
            return ["python", "-m", "converter", *rest]
    return words


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_is_one_that_exists(command: list[str]) -> None:
    match command:
        case ["make", target, *variables]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
            assert all("=" in variable for variable in variables)
        case ["python", "-m", "converter", *arguments]:
            assert type(parsed(cli.parser(), arguments)).__name__.lower() == arguments[0]
        case ["python", "-m", "service", *arguments]:
            assert settings_read.parse(arguments, {}).models == Path("models")
        case ["docker", "compose", *arguments]:
            compose = (ROOT / "docker-compose.yml").read_text()
            for name in arguments[1:2] if arguments[0] == "up" else arguments[2:3]:
                assert re.search(rf"^  {name}:", compose, flags=re.MULTILINE)
        case ["curl", "--json", body, url]:
            assert url == "http://127.0.0.1:8000/predict"
            assert json.loads((ROOT / body.removeprefix("@")).read_text())["inputs"]
        case _:
            pytest.fail(f"nobody checks this command: {command}")


def test_the_answer_shown_is_that_of_the_shipped_model() -> None:
    (shown,) = (json.loads(block) for block in blocks("json"))
    folder = ROOT / "models" / "mnist"
    version = max(int(path.name) for path in folder.glob("[0-9]*"))
    asked = json.loads((folder / "example.json").read_text())["inputs"]
    session = ort.InferenceSession(folder / str(version) / "model.onnx")
    (name,) = (value.name for value in session.get_inputs())
    (logits,) = session.run(None, {name: np.array(asked, dtype=np.float32)})
    odds = np.exp(logits[0]) / np.exp(logits[0]).sum()
    assert shown["model"] == {"name": "mnist", "version": version}
    np.testing.assert_allclose(shown["outputs"]["output"], logits, atol=0.01)
    (told,) = shown["predictions"]
    assert (told["index"], told["label"]) == (7, "7")
    assert told["probability"] == pytest.approx(odds[7], abs=1e-6)


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "models" / "mnist" / "checkpoint.pt", tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "models" / "mine" / "1" / "model.json").is_file()


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target
