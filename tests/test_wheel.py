"""What pip installs: built as it would be published, then used where there is no checkout.

Two environments get the wheel: an empty one with the base install only, which serves; and one in
which the heavy packages are those of this test's environment (torch alone takes minutes to
install), which folds. Both run in a folder full of files that have the names of packages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from converter.certificate.identity import checker_sha256
from tests.serving import serving

ROOT = Path(__file__).parents[1]
PACKAGES = ("foldserve", "service", "converter")
EXAMPLE = ROOT / "models" / "mnist" / "example.json"
NAMES_OF_PACKAGES = ("converter", "foldserve", "numpy", "onnx", "onnxruntime", "torch", "uvicorn")
HOSTILE = "import sys\nsys.exit('the file of the user was run: ' + __name__)\n"

pytestmark = pytest.mark.slow


def variables() -> dict[str, str]:
    """Of this process, without what leads back to the checkout."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONPATH", "VIRTUAL_ENV"} and not name.startswith("FOLDSERVE_")
    }


@dataclass(frozen=True)
class Environment:
    """A virtual environment with our wheel, used from a folder of its own."""

    folder: Path
    here: Path

    @property
    def command(self) -> str:
        return str(self.folder / "bin" / "foldserve")

    @property
    def variables(self) -> dict[str, str]:
        return variables()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, capture_output=True, text=True, check=False, cwd=self.here, env=self.variables
        )

    def python(self, program: str) -> list[str]:
        """What it prints, line by line; the current folder is not on its path."""
        done = self.run(str(self.folder / "bin" / "python"), "-P", "-c", program)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


def environment(folder: Path, *requirements: str) -> Environment:
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = str(folder / "venv" / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    # Where pip finds the checkout, by the path or as the current folder, it takes it for installed.
    subprocess.run(
        [*pip, "install", "--quiet", *requirements], check=True, cwd=folder, env=variables()
    )
    here = folder / "here"
    (here / "service").mkdir(parents=True)
    (here / "service" / "__init__.py").write_text(HOSTILE)
    for name in NAMES_OF_PACKAGES:
        (here / f"{name}.py").write_text(HOSTILE)
    return Environment(folder / "venv", here)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel built from it: a file that the sdist lacks, the wheel lacks too."""
    source = tmp_path_factory.mktemp("source") / "foldserve"
    # A copy: setuptools believes what it finds of an earlier build.
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "site", "__pycache__")
    shutil.copytree(ROOT, source, ignore=unwanted)
    built = tmp_path_factory.mktemp("built")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(built), str(source)],
        capture_output=True, text=True, check=False, cwd=built,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return built


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (found,) = distributions.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """`pip install foldserve`, and nothing else."""
    pins = str(ROOT / "constraints.txt")
    return environment(tmp_path_factory.mktemp("base"), "-c", pins, str(wheel))


@pytest.fixture(scope="module")
def full(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """`pip install 'foldserve[converter]'`, its dependencies borrowed from this environment."""
    made = environment(tmp_path_factory.mktemp("full"), "--no-deps", str(wheel))
    (site,) = made.folder.glob("lib/python*/site-packages")
    # Only a path: what an editable install hangs into this environment's start stays out.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return made


def ours(folder: Path) -> set[str]:
    """The files of our packages, by their paths below `folder`."""
    return {
        str(path.relative_to(folder))
        for package in PACKAGES
        for path in (folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (points,) = (name for name in names if name.endswith("entry_points.txt"))
        scripts = archive.read(points).decode()
    about = {name for name in names if ".dist-info/" in name}
    assert set(names) - about == ours(ROOT)
    assert {"converter/report/page/report.html", "service/playground/static/index.html"} < {*names}
    assert {f"{package}/py.typed" for package in PACKAGES} < {*names}
    assert scripts.split() == ["[console_scripts]", "foldserve", "=", "foldserve.command:main"]
    assert {"LICENSE", "NOTICE"} <= {name.rpartition("/")[2] for name in about}


def test_the_sdist_holds_what_the_wheel_is_made_of(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    left = {name for name in files - ours(ROOT) if ".egg-info/" not in name}
    assert left == {
        "LICENSE", "MANIFEST.in", "NOTICE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg",
    }  # fmt: skip
    assert ours(ROOT) <= files


def test_the_base_install_is_the_service_only(base: Environment) -> None:
    done = base.run(base.command, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    done = base.run(base.command)
    assert (done.returncode, done.stderr) == (2, "")
    assert "foldserve fold" in done.stdout
    done = base.run(base.command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"fold", "inspect", "serve"} <= set(done.stdout.split())
    program = "from importlib.util import find_spec as f\nprint(*filter(f, {!r}))"
    heavy = ["torch", "onnx", "onnx_ir", "onnxscript", "keras", "ray"]
    assert base.python(program.format([*heavy, "onnxruntime"])) == ["onnxruntime"]


@pytest.mark.parametrize("words", [["fold", "model.pt"], ["fold", "--help"], ["train"]])
def test_without_the_extra_it_says_which(base: Environment, words: list[str]) -> None:
    before = sorted(base.here.iterdir())
    done = base.run(base.command, *words)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert re.fullmatch(
        rf"error: `foldserve {words[0]}` needs \w+, which is not installed: .+", error
    )
    assert hint == "hint:  pip install 'foldserve[converter]'"
    assert sorted(base.here.iterdir()) == before


def test_the_wheel_folds_and_the_base_install_serves(base: Environment, full: Environment) -> None:
    program = "import {0}\nprint(*(p.__file__ for p in ({0})), sep='\\n')".format
    for made, packages in (full, PACKAGES), (base, PACKAGES[:2]):
        for file in made.python(program(", ".join(packages))):
            assert Path(file).is_relative_to(made.folder)

    shutil.copy(ROOT / "models" / "mnist" / "checkpoint.pt", full.here / "model.pt")
    models = base.here / "models"
    done = full.run(
        full.command, "fold", "model.pt", "--publish", str(models / "mine"), "--html", "r.html"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "<svg" in (full.here / "r.html").read_text(encoding="utf-8")
    manifest = json.loads((models / "mine" / "1" / "model.json").read_text(encoding="utf-8"))
    assert manifest["provenance"]["certificate"]["checker"] == checker_sha256(), "as in the tree"

    predict = "import json, foldserve, numpy\nwith foldserve.Predictor('models/mine') as model:\n"
    predict += f"    x = json.load(open({str(EXAMPLE)!r}))['inputs']\n"
    predict += "    print(model.classify(numpy.asarray(x, numpy.float32))[0]['label'])"
    assert base.python(predict) == ["7"]

    command = [base.command, "serve", "--port", "0", "--workers", "2"]
    with (
        serving(command, cwd=base.here, env=base.variables) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        answer = client.post("/predict", content=EXAMPLE.read_bytes()).json()
        assert answer["model"] == {"name": "mine", "version": 1}
        assert answer["predictions"][0]["label"] == "7"
        assert client.get("/models/mine").json()["certified"] is True
        page = client.get("/", headers={"accept": "text/html"})
        assert page.headers["content-type"].startswith("text/html")
        scripts = re.findall(r'(?:src|href)="(\S+?\.(?:js|css|svg))"', page.text)
        assert scripts
        for script in scripts:
            assert client.get(f"/{script.lstrip('/')}").is_success, script
