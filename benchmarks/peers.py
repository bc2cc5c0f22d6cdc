"""Other tools that fold batch-norms, each run on an ONNX file in a process of its own.

    outcome = PEERS["onnxslim"].run(source, target)
    left = None if outcome.error else batchnorms_in(target)

onnxruntime and onnxscript are in the project's environment. Each of the others gets one of its
own under `.cache/peers/NAME`, made on first use: their requirements are not the project's.
Give them a graph whose constants are evaluated (`converter.evaluation.normalize`): as torch's
exporter leaves it without its own optimisations, onnxruntime and onnxslim fold next to nothing.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import onnx

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".cache" / "peers"
_READY = "ready.json"


@dataclass(frozen=True)
class Outcome:
    """What became of one run: `error` is empty when the target was written."""

    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Peer:
    """A tool that turns one ONNX file into a simpler one.

    Attributes:
        package: the distribution whose version is quoted.
        program: Python that reads `source` and writes `target`.
        requirements: what pip installs into its own environment; none: the project's has it.
        torch: whether it needs torch there, too (the CPU build).
    """

    name: str
    package: str
    program: str
    requirements: tuple[str, ...] = ()
    torch: bool = False

    @property
    def python(self) -> Path:
        """The interpreter that has it."""
        return HOME / self.name / "bin" / "python" if self.requirements else Path(sys.executable)

    def install(self) -> str:
        """Make its environment if it is not there. Returns what went wrong, or ""."""
        folder = HOME / self.name
        if not self.requirements or (folder / _READY).is_file():
            return ""
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        torch = ["--no-deps", "-r", str(ROOT / "requirements" / "torch.txt")]
        steps = [*([torch] if self.torch else []), list(self.requirements)]
        for step in steps:
            done = subprocess.run([*pip, *step], capture_output=True, text=True)
            if done.returncode:
                return _last_line(done.stderr)
        (folder / _READY).write_text(json.dumps({"version": self.version()}))
        return ""

    def version(self) -> str:
        """The installed version, "" if it is not installed."""
        if not self.requirements:
            return metadata.version(self.package)
        ready = HOME / self.name / _READY
        if ready.is_file():
            return str(json.loads(ready.read_text())["version"])
        if not self.python.is_file():
            return ""
        code = f"import importlib.metadata as m; print(m.version({self.package!r}))"
        done = subprocess.run([str(self.python), "-c", code], capture_output=True, text=True)
        return done.stdout.strip() if not done.returncode else ""

    def run(
        self, source: Path, target: Path, *, seconds: float = 300.0, memory: int = 0
    ) -> Outcome:
        """Simplify `source` into `target`.

        Args:
            seconds: it is killed after that.
            memory: bytes of address space that it may take; 0 for any.
        """
        program = f"import sys\nsource, target = sys.argv[1:]\n{self.program}"
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [str(self.python), "-c", program, str(source), str(target)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                env={**os.environ, "PYTHONPATH": "", "PYTHONWARNINGS": "ignore"},
                cwd=target.parent,
                preexec_fn=(lambda: _limit(memory)) if memory else None,
            )
        except subprocess.TimeoutExpired:
            return Outcome(time.perf_counter() - start, f"took longer than {seconds:.0f} s")
        except OSError as error:
            return Outcome(0.0, f"cannot be started: {error}")
        taken = time.perf_counter() - start
        if done.returncode < 0:
            return Outcome(taken, f"was killed by signal {-done.returncode}")
        if done.returncode or not target.is_file():
            return Outcome(taken, _last_line(done.stderr) or f"exit status {done.returncode}")
        return Outcome(taken)


_ONNXRUNTIME = """
import onnxruntime as ort
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
options.optimized_model_filepath = target
options.log_severity_level = 4
ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
"""

# What every runtime can read: at EXTENDED it writes ops of its own.
_ONNXRUNTIME_BASIC = _ONNXRUNTIME.replace("EXTENDED", "BASIC")

_ONNXSCRIPT = """
import onnx_ir as ir
from onnxscript import optimizer, rewriter
model = ir.load(source)
optimizer.optimize(model)
ir.save(rewriter.rewrite(model), target)
"""

_ONNXSLIM = """
import onnxslim
onnxslim.slim(source, target)
"""

_AIMET = """
import onnx
from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight
model = onnx.load(source)
fold_all_batch_norms_to_weight(model)
onnx.save(model, target)
"""

_ONNXSIM = """
import onnx, onnxsim
model, _ = onnxsim.simplify(onnx.load(source))
onnx.save(model, target)
"""

_ONNXOPTIMIZER = """
import onnx, onnxoptimizer
onnx.save(onnxoptimizer.optimize(onnx.load(source), fixed_point=True), target)
"""

PEERS = {
    peer.name: peer
    for peer in (
        Peer("onnxruntime", "onnxruntime", _ONNXRUNTIME),
        Peer("onnxruntime-basic", "onnxruntime", _ONNXRUNTIME_BASIC),
        Peer("onnxscript", "onnxscript", _ONNXSCRIPT),
        Peer("onnxslim", "onnxslim", _ONNXSLIM, ("onnxslim==0.1.98", "onnxruntime==1.31.1")),
        Peer("aimet-onnx", "aimet-onnx", _AIMET, ("aimet-onnx==2.42.0",), torch=True),
        Peer("onnxsim", "onnxsim", _ONNXSIM, ("onnxsim==0.8.1",)),
        Peer("onnxoptimizer", "onnxoptimizer", _ONNXOPTIMIZER, ("onnxoptimizer==0.4.2",)),
    )
}

# What onnxsim proves of two files (`--certify`) needs Z3; as a tool it is tried without.
SOLVER = Peer("onnxsim-z3", "onnxsim", "", ("onnxsim==0.8.1", "z3-solver==5.4.1.0"))


def batchnorms_in(path: Path) -> int:
    """How many BatchNormalization nodes a file has, in its bodies and functions as well."""
    model = onnx.load(path, load_external_data=False)
    bodies: list[Iterable[onnx.NodeProto]] = [model.graph.node]
    bodies += [function.node for function in model.functions]
    return sum(map(_count, bodies))


def _count(nodes: Iterable[onnx.NodeProto]) -> int:
    total = 0
    for node in nodes:
        total += node.op_type == "BatchNormalization" and node.domain in {"", "ai.onnx"}
        for attribute in node.attribute:
            graphs = [attribute.g, *attribute.graphs]
            total += sum(_count(graph.node) for graph in graphs)
    return total


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _last_line(text: str, most: int = 200) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:most] if lines else ""
