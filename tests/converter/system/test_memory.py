"""The end of memory: limits, and what is said where it comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from converter.cli import main
from converter.errors import UserError
from converter.files.onnx_file import write_onnx
from converter.system import memory
from patterns.graphs import Graph


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000000", 1_000_000), ("900MB", 900 * 2**20), ("2GiB", 2**31), ("1.5g", 3 * 2**29),
        (" 4 GB ", 2**32), ("512k", 2**19), ("1tb", 2**40),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert memory.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "4 apples", "1e9", "4GBs"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match="not an amount of memory"):
        memory.parse_size(text)


def test_the_least_of_machine_and_cgroups(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemAvailable:  4096 kB\nSwapFree:   1024 kB\n")
    assert memory.available(tmp_path) == 5120 * 1024
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    for path, limit in {"a": "max", "a/b": "3000000", "": "9000000"}.items():
        (tmp_path / "sys/fs/cgroup" / path).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / path / "memory.max").write_text(f"{limit}\n")
    assert memory.available(tmp_path) == 3_000_000
    (tmp_path / "sys/fs/cgroup/a/memory.max").write_text("2000000\n")
    assert memory.available(tmp_path) == 2_000_000


def test_cgroups_of_the_first_version(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("5:cpu,memory:/docker/x\n3:cpuset:/y\n")
    group = tmp_path / "sys/fs/cgroup/memory"
    (group / "docker").mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory.available(tmp_path) is None
    (group / "docker/memory.limit_in_bytes").write_text("7000000\n")
    assert memory.available(tmp_path) == 7_000_000


def exhaust_torch() -> None:
    torch.empty(2**52)


def exhaust_numpy() -> None:
    np.empty(2**52)


@pytest.mark.parametrize("exhaust", [exhaust_torch, exhaust_numpy])
def test_libraries_say_it_each_in_its_way(exhaust: object) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        exhaust()  # type: ignore[operator]
    assert memory.ended(caught.value)
    told = memory.shortage(caught.value, "at Conv 3")
    assert told.message.startswith("memory ran out at Conv 3 (it asked for ")
    assert "--input-shape" in told.hint


@pytest.mark.parametrize("error", [ValueError("bad_alloc"), RuntimeError("shapes"), OSError("x")])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not memory.ended(error)
    assert memory.behind(error) is None


def test_it_is_seen_behind_another_error() -> None:
    try:
        try:
            exhaust_torch()
        except RuntimeError as error:
            raise UserError("the model does not run", "another input shape?") from error
    except UserError as error:
        told = memory.behind(error)
    assert told is not None
    assert "not enough memory" in told.message


def large(folder: Path) -> Path:
    """A net whose maps take 32 MB in float64, 160 MB for the proof's batch of five."""
    g = Graph("float32")
    y = g.bn(g.op("Conv", g.input("x", "N", 1, 512, 512), g.weight(16, 1, 3, 3)), 16)
    g.output(g.op("ReduceMean", g.op("Relu", y), g.const([1, 2, 3])), shape=["N", 1, 1, 1])
    path = folder / "large.onnx"
    write_onnx(g.model(), path)
    return path


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is one of Linux")
@pytest.mark.parametrize(
    ("size", "code", "said"),
    [
        ("64GB", 0, "Wrote"),
        ("420MB", 2, "memory ran out at "),
        ("1MB", 2, "less than"),
        ("much", 2, "not an amount of memory"),
    ],
)
def test_the_limit_of_a_fold(tmp_path: Path, size: str, code: int, said: str) -> None:
    path = large(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "converter", "fold", str(path), "--max-memory", size],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "large.folded.onnx").exists() == (code == 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is one of Linux")
def test_the_limit_ends_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    g = Graph("float32")
    g.output(g.bn(g.op("Conv", g.input("x", "N", 1, 8, 8), g.weight(2, 1, 3, 3)), 2))
    path = tmp_path / "small.onnx"
    write_onnx(g.model(), path)
    assert main(["verify", str(path), str(path), "--max-memory", "64GB"]) == 0
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    capsys.readouterr()
