"""What a certificate changes in a verdict, and what it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.certificate import Certified, NotCertified, certify
from converter.cli import main
from converter.evaluation.normalize import normalize
from converter.evaluation.runtime import runner
from converter.pipeline import fold
from converter.proof import Proof, verify
from converter.proof.conclusion import conclusion
from converter.proof.draws import STANDARD
from converter.proof.excused import FLIPS, against
from converter.proof.judging import Judgement
from converter.proof.measure import GROSS, Case, Measurement
from converter.proof.plan import Plan
from converter.proof.trials import Trial
from converter.publishing.versions import publish
from converter.report.facts import EXIT_CODES, describe_proof
from converter.sources import LoadOptions, load
from converter.sources.inputs import describe
from converter.sources.loaded import Reference
from patterns.graphs import Graph
from tests.converter.proof.test_coverage import choose
from tests.converter.proof.test_verify import changed, folded, net

Kernel = Callable[[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]
DOUBT = NotCertified("nothing is known of 'y', a Mystery.")


def proved(model: ir.Model, candidate: ir.Model | None = None, **more: Any) -> Proof:
    """By a certificate and by measurement, as `fold` does it."""
    candidate = candidate or folded(model)
    more.setdefault("certificate", certify(model, candidate))
    return verify(model, normalize(model), candidate, describe(model), **more)


def chaotic(layers: int = 12, gain: float = 40.0) -> ir.Model:
    """Each layer enlarges errors: in the end, none can be told from a mistake."""
    g = Graph("float32", seed=3)
    y = g.input("x", "N", 4, 5, 5)
    for index in range(layers):
        y = g.bn(g.op("Conv", y, g.weight(4, 4, 1, 1, name=f"conv{index}.weight")), 4, f"bn{index}")
        y = g.op("Sin", g.op("Mul", y, g.const(gain)))
    g.output(g.rename(y, "y"), shape=["N", 4, 5, 5])
    return g.model()


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel], None]:
    """Let the runtime's kernels give something else for the candidate."""

    def wrong(kernel: Kernel) -> None:
        def made(model: ir.Model, *, optimize: bool) -> Any:
            found = runner(model, optimize=optimize)
            if optimize:
                right = found.run
                found.run = lambda feeds: {  # type: ignore[method-assign]
                    name: kernel(name, y) for name, y in right(feeds).items()
                }
            return found

        monkeypatch.setattr("converter.proof.trials.runner", made)

    return wrong


def test_a_chaotic_network_rests_on_its_certificate() -> None:
    model = chaotic()
    proof = proved(model)
    assert isinstance(proof.certificate, Certified), str(proof.certificate)
    assert proof.unmeasured == ("y",), "no input tells anything"
    assert (proof.verdict, proof.rests_on) == ("equal", ("certificate",))
    assert conclusion(proof) == (
        "Proven by the certificate: folded equals original for every input. Nothing could be "
        "measured at 'y'."
    )
    told = describe_proof(proof)
    assert (told["passed"], told["verdict"]) == (True, "equal")
    assert told["rests_on"] == ["certificate"]
    assert not proof.batch_invariant, "nothing shows that it is"
    for certificate in (None, DOUBT):
        strict = proved(model, certificate=certificate)
        assert (strict.verdict, strict.rests_on) == ("unmeasured", ())
        assert "not refuted" in conclusion(strict)
    wrong = changed(folded(model), "conv5.weight", lambda w: w * 1.001)
    assert proved(model, wrong).verdict == "unmeasured", "of a wrong fold there is no certificate"


def test_a_chaotic_network_is_written_published_and_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, report = tmp_path / "a.onnx", tmp_path / "r.json"
    onnx.save(ir.to_proto(chaotic()), a)
    words = ["fold", str(a), "-o", str(tmp_path / "b.onnx"), "--publish", str(tmp_path / "m")]
    assert main([*words, "--json", str(report)]) == 0
    out = capsys.readouterr().out
    assert "cannot tell" in out
    assert "Proven by the certificate: folded equals original for every input." in out
    assert len(json.loads(report.read_text())["written"]) == 2
    assert (tmp_path / "b.onnx").is_file()
    # The service ran the self-test before it was called published, and does so again.
    assert (tmp_path / "m" / "1" / "selftest.npz").is_file()
    assert main(["verify", str(a), str(tmp_path / "b.onnx"), "--certify"]) == 0
    assert main(["verify", str(a), str(tmp_path / "b.onnx")]) == 3


@pytest.mark.parametrize("make", [net, chaotic])
def test_a_kernel_that_gives_no_number(
    make: Callable[[], ir.Model], kernels: Callable[[Kernel], None]
) -> None:
    def broken(_: str, y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        y = y.copy()
        y.reshape(-1)[0] = np.nan
        return y

    kernels(broken)
    proof = proved(make())
    assert proof.certificate
    assert proof.verdict == "differs"
    assert "NaN or infinity" in conclusion(proof)
    assert "A kernel of the runtime is wrong there" in conclusion(proof)


@pytest.mark.parametrize("off", [1e-3, 1e-1, 2.0])
def test_a_wrong_kernel_refuses_what_is_certified(
    off: float, kernels: Callable[[Kernel], None]
) -> None:
    """As one of fewer bits would be, or one with a mistake."""
    kernels(lambda _, y: (y * (1 + off)).astype(y.dtype))
    proof = proved(net())
    assert proof.certificate
    assert (proof.verdict, EXIT_CODES[proof.verdict]) == ("differs", 1)
    assert proof.rests_on == ()
    assert "is certified, but differs as it runs, at output 'logits'" in conclusion(proof)


@pytest.mark.parametrize(
    ("times", "strict", "certified"),
    [(0.5, "equal", "equal"), (3.0, "differs", "equal"), (99.0, "differs", "differs")],
)
def test_a_few_times_what_is_allowed(
    times: float, strict: str, certified: str, kernels: Callable[[Kernel], None]
) -> None:
    """One number of each output is off by so many times what its worst input is allowed."""
    model = net()
    first = proved(model)
    limit = {name: max(m.allowed for m in first.measurements if m.output == name)
             for name in first.truth}  # fmt: skip

    def off(name: str, y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        y = y.copy()
        y.reshape(-1)[0] += times * limit[name]
        return y

    kernels(off)
    assert proved(model, certificate=None).verdict == strict
    assert proved(model, certificate=DOUBT).verdict == strict
    proof = proved(model)
    assert proof.certificate
    assert proof.verdict == certified
    if strict == certified == "equal":
        assert proof.rests_on == ("certificate", "measurement")
        assert not proof.excused
        assert conclusion(proof).endswith("for every input and as measured.")
    elif certified == "equal":
        assert proof.rests_on == ("certificate",)
        assert {m.output for m in proof.excused} == set(limit)
        worst = max(m.times for m in proof.excused)
        assert 2 < worst < 5
        (note,) = (note for note in proof.notes if "without a certificate" in note)
        assert f"the error is {worst:.2g} times what is allowed" in note
        assert "further from float64 than is allowed" in conclusion(proof)


def test_the_command_tells_what_is_excused(
    tmp_path: Path, kernels: Callable[[Kernel], None], capsys: pytest.CaptureFixture[str]
) -> None:
    a = tmp_path / "a.onnx"
    onnx.save(ir.to_proto(net()), a)
    limit = max(m.allowed for m in fold(load(a, LoadOptions())).proof.measurements)
    kernels(lambda _, y: y + np.float32(4 * limit))
    report = tmp_path / "r.json"
    words = ["fold", str(a), "--publish", str(tmp_path / "m"), "--json", str(report)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "rounding" in out
    assert "DIFFERS" not in out
    assert "times what is allowed without a certificate" in out
    proof = json.loads(report.read_text())["proof"]
    assert (proof["passed"], proof["rests_on"]) == (True, ["certificate"])
    differ = [m["excused"] for m in proof["measurements"] if m["verdict"] == "differs"]
    assert differ, "by the strict rule"
    assert all(differ)
    assert (tmp_path / "m" / "1" / "selftest.npz").is_file()


def test_small_numbers_beside_large_ones_keep_their_own_border(
    kernels: Callable[[Kernel], None],
) -> None:
    """Of an output that is excused as a whole: scores of 1 that are off by a hundredth, beside
    boxes of 1e5."""
    g = Graph("float32")
    x = g.input("x", "N", 6)
    large = g.op("MatMul", x, g.const(1e5 * g.rng.standard_normal((6, 40))))
    small = g.op("MatMul", x, g.weight(6, 40))
    g.output(g.rename(g.op("Concat", large, small, axis=1), "y"), shape=["N", 80])
    model = g.model()
    first = proved(model)
    limit = max(m.allowed for m in first.measurements)

    def off(boxes: float, scores: float) -> Kernel:
        def kernel(_: str, y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            y = y.copy()
            y[:, 0] += boxes
            y[:, 40:] += scores
            return y

        return kernel

    kernels(off(3 * limit, 0.0))
    assert proved(model).verdict == "equal"
    kernels(off(3 * limit, 0.01))
    proof = proved(model)
    assert proof.verdict == "differs"
    assert "40-79 of 80 on axis 1" in conclusion(proof)


@pytest.mark.parametrize(("flipped", "equal"), [(1, True), (5, False)])
def test_labels_of_scores_that_are_nearly_equal(
    flipped: int, equal: bool, kernels: Callable[[Kernel], None]
) -> None:
    """In the batch of five, so many labels are others; on the other inputs none is."""
    g = Graph("float32")
    y = g.bn(g.op("Gemm", g.input("x", "N", 3), g.weight(3, 4)), 4)
    g.output(g.rename(g.op("ArgMax", y, axis=1, keepdims=0), "label"), dtype="int64", shape=["N"])
    model = g.model()

    def other(_: str, labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        labels = labels.copy()
        if len(labels) == 5:
            labels[:flipped] = (labels[:flipped] + 1) % 4
        return labels

    kernels(other)
    assert proved(model, certificate=None).verdict == "differs"
    proof = proved(model)
    assert proof.certificate
    assert proof.verdict == ("equal" if equal else "differs")
    told = " ".join(proof.notes) if equal else conclusion(proof)
    where, what = "at output 'label', batch 5", f"{flipped} of 5 whole numbers differ"
    assert f"{where}{', ' if equal else ': '}{what}" in told
    assert "inf" not in told


def test_more_is_drawn_before_a_kernel_is_called_wrong() -> None:
    """The original may be near the truth by luck, on few inputs."""
    inputs = describe(net())
    trials: Any = [Trial(Case("batch 1", proved(net()).sample), {}, {}, {})]

    def drawn(certified: bool, **more: Any) -> int:
        m = Measurement("logits", "batch 1", 1.0, 0.5, GROSS + 1, 1.0, **more)
        judged = Judgement((m,), (), ())
        plan = Plan(inputs, True, 0, [STANDARD], certified=certified)
        return sum(len(case.feeds["x"]) for case in plan.next(judged, trials, ["logits"]))

    assert drawn(certified=False) == 0
    assert drawn(certified=True) >= 16
    assert drawn(certified=True, unlike=True, problem="NaN") == 0, "that is no luck"


def of(wrong: float, size: float, **more: Any) -> Measurement:
    return Measurement("label", "batch 1", size, 0.0, wrong, 0.0, exact=True, **more)


def test_labels_may_flip_where_floats_are_nearly_equal() -> None:
    one, many = of(1, 1), of(0, 40)
    assert against([one], (), certified=True), "all of them"
    assert not against([one, many], (), certified=True)
    assert against([one, many], (), certified=False)
    limit = int(40 * FLIPS)
    assert not against([of(limit, 40)], (), certified=True)
    assert against([of(limit + 1, 40), of(0, 10**6)], (), certified=True)
    assert against([of(0, 8), of(1, 8, unlike=True)], (), certified=True)


@pytest.mark.parametrize(("times", "speaks"), [(GROSS * 0.999, False), (GROSS * 1.001, True)])
def test_the_border(times: float, speaks: bool) -> None:
    m = Measurement("y", "batch 1", 1.0, 0.5, times, 1.0)
    assert bool(against([m], (), certified=True)) is speaks
    assert against([m], (), certified=False)
    assert against([], [m], certified=True), "what the framework gives is not certified"
    far = replace(m, problem="the original itself is 50% away", candidate_error=6.0)
    assert not against([far], (), certified=True)
    assert against([replace(far, unlike=True)], (), certified=True)


@pytest.mark.parametrize("certify_it", [False, True])
def test_a_wrong_export_is_refused(certify_it: bool) -> None:
    model = net()
    first = proved(model)
    more = {} if certify_it else {"certificate": None}
    outputs = {name: (y * 1.001).astype(np.float32) for name, y in first.truth.items()}
    proof = proved(model, framework=Reference(inputs=first.sample, outputs=outputs), **more)
    assert proof.verdict == "differs"
    assert conclusion(proof) == (
        "Not proven: the export does not compute what the original framework computes."
    )


def test_small_numbers_of_an_export_have_their_own_scale() -> None:
    g = Graph("float32")
    x = g.input("x", "N", 6)
    large = g.op("MatMul", x, g.const(1e5 * g.rng.standard_normal((6, 40))))
    g.output(g.op("Concat", large, g.op("MatMul", x, g.weight(6, 40)), axis=1), shape=["N", 80])
    model = g.model()
    first = proved(model)
    for off, verdict in ((0.0, "equal"), (0.05, "differs")):
        outputs = {name: y.astype(np.float32) for name, y in first.truth.items()}
        for y in outputs.values():
            y[:, 40:] += np.float32(off)
        proof = proved(model, framework=Reference(inputs=first.sample, outputs=outputs))
        assert proof.verdict == verdict
        assert proof.framework[0].passed, "boxes of 1e5 hide it"
        parts = [m.part for m in proof.framework[1:]]
        assert len(parts) == (off > 0)
        assert all(part.startswith("40-") and part.endswith("of 80 on axis 1") for part in parts)


@pytest.mark.parametrize("share", [0.0, 1e-3])
def test_small_numbers_in_a_batch_have_their_own_scale(share: float) -> None:
    """A small output that also reads the other samples."""
    g = Graph("float32")
    x = g.input("x", "N", 6)
    large = g.op("MatMul", x, g.const(1e5 * g.rng.standard_normal((6, 40))))
    small = g.op("MatMul", x, g.weight(6, 40))
    mean = g.op("ReduceMean", small, g.const(np.array([0])), keepdims=1)
    small = g.op("Add", small, g.op("Mul", mean, g.const(share)))
    g.output(g.op("Concat", large, small, axis=1), shape=["N", 80])
    proof = proved(g.model())
    assert proof.passed
    assert proof.batch_invariant is (share == 0.0)
    if share:
        assert proof.invariance is not None
        assert "others in its batch" in proof.invariance.problem
        assert ", 40-" in proof.invariance.problem


def never(weight: float) -> ir.Model:
    """A branch for a mean that no input has, behind which nothing fits."""
    g = Graph("float32")
    x = g.input("x", "N", 4)
    y = choose(
        g, g.op("Less", g.op("ReduceMean", g.op("Abs", x), keepdims=0), g.const(-1.0)),
        lambda b: b.op("Mul", b.op("Unsqueeze", x, b.const(np.array([0, 1]))), b.const(weight)),
        lambda b: b.op("Identity", x),
    )  # fmt: skip
    g.output(g.op("MatMul", g.op("Transpose", y, perm=[1, 0]), y), shape=[4, 4])
    return g.model()


@pytest.mark.parametrize(("weight", "covered"), [(2.0, True), (3.0, False)])
def test_a_branch_that_no_input_reaches(
    weight: float, covered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right fold of it is certified; of a wrong one nothing is known, as before."""
    monkeypatch.setattr("converter.proof.coverage.standing_alone", lambda *_: None)
    model = never(2.0)
    proof = proved(model, normalize(never(weight)))
    assert bool(proof.certificate) is covered, str(proof.certificate)
    assert proof.verdict == "equal"
    assert len(proof.unreached) == 1
    assert len(proof.uncovered) == (not covered)
    told = describe_proof(proof)["ran"]
    assert [ran["covered"] for ran in told] == [covered, True]
    assert [ran["turns"] for ran in told] == [0, 1]
    if covered:
        assert conclusion(proof).endswith("for every input and as measured.")
    else:
        assert conclusion(proof).startswith("Proven as far as it ran")
        assert proof.rests_on == ("measurement",)


def test_what_cannot_run_is_not_proven_by_a_certificate_alone() -> None:
    """A runtime's kernels are part of what is asked for, and none of them ran."""
    g = Graph("float32")
    y = g.op("Conv", g.input("x", "N", 4, 5), g.weight(2, 3, 1))
    g.output(y, shape=["N", 2, 5])
    certificate = Certified(0, 6, 0.0, 3.0, ({},), 0.0)
    model = g.model()
    proof = verify(model, model, model, describe(model), certificate=certificate)
    assert proof.verdict == "unmeasured"
    assert "does not run" in conclusion(proof)


def test_numbers_that_the_runtime_cannot_hold_are_no_part_of_a_self_test(tmp_path: Path) -> None:
    """exp(60 x) is finite in float64 where float32 is infinite: there nothing is expected."""
    g = Graph("float32")
    y = g.bn(g.op("Conv", g.input("x", "N", 3, 4, 4), g.weight(4, 3, 1, 1)), 4)
    y = g.op("Exp", g.op("Mul", y, g.const(60.0)))
    g.output(g.rename(y, "y"), shape=["N", 4, 4, 4])
    path = tmp_path / "a.onnx"
    onnx.save(g.proto(), path)
    done = fold(load(path, LoadOptions()))
    assert done.certificate
    assert done.proof.passed
    missing = np.isnan(done.proof.truth["y"])
    assert 0 < missing.sum() < missing.size
    version = Path(publish(done, tmp_path / "models" / "m").path)
    with np.load(version / "selftest.npz") as arrays:
        assert np.isnan(arrays["output:y"]).sum() == missing.sum()
