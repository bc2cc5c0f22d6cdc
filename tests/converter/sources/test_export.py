"""From a module to a graph: batch-norms, names and sharing survive; nobody hears the exporters."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from source_nets import (
    BatchStatistics,
    CachedGrid,
    ConvNet,
    Counts,
    DecidesByValue,
    HooksItself,
    KnowsItsBatch,
    LooseSqueeze,
    Noisy,
    NoKernel,
    Outputs,
    Star,
    Tokens,
    TwoInputs,
)
from torch import nn

from converter.errors import UserError
from converter.sources import InputShape, Loaded, LoadOptions, export, exporters, trial
from converter.sources import module as module_source
from converter.sources.calls import Call
from converter.sources.exporters import Exported
from converter.sources.module import from_module
from patterns.graphs import ort_run
from patterns.networks import randomize_batchnorms

pytestmark = pytest.mark.slow


def make(module: nn.Module, *shapes: InputShape) -> Loaded:
    randomize_batchnorms(module)
    options = LoadOptions(input_shapes=shapes)
    return from_module(module, path=Path("model.pt"), kind="a test", options=options)


def names(loaded: Loaded) -> list[str | None]:
    return [value.name for value in loaded.model.graph.outputs]


def test_batch_norms_follow_every_linear_op(assert_same) -> None:
    module = ConvNet()
    loaded = make(module, InputShape((3, 8, 8)))
    norms = [n for n in loaded.model.graph if n.op_type == "BatchNormalization"]
    before = [n.inputs[0].producer().op_type for n in norms]
    assert before == ["Conv", "ConvTranspose", "Gemm"]
    assert set(loaded.model.graph.initializers) == {
        name for name in module.state_dict() if "num_batches" not in name
    }
    scopes = [ir_node.metadata_props["pkg.torch.onnx.name_scopes"] for ir_node in norms]
    assert [eval(scope)[1] for scope in scopes] == ["bn1", "bn2", "bn3"]
    assert_same(loaded, module)


def test_a_3d_convolution_without_a_bias(assert_same) -> None:
    """The exporter gives it a bias of a wrong shape."""
    module = nn.Sequential(nn.Conv3d(2, 4, 3, bias=False), nn.BatchNorm3d(4)).eval()
    assert_same(make(module, InputShape((2, 4, 5, 5))), module)


def test_weights_are_the_modules_own_memory() -> None:
    """A model of many gigabytes is not copied."""
    module = ConvNet()
    tensor = make(module, InputShape((3, 8, 8))).model.graph.initializers["conv.weight"].const_value
    assert tensor is not None
    assert np.shares_memory(tensor.numpy(), module.conv.weight.detach().numpy())


def test_no_traces_of_this_machine_are_left() -> None:
    loaded = make(ConvNet(), InputShape((3, 8, 8)))
    assert __file__.rpartition("/")[0] not in str(ir.to_proto(loaded.model))
    assert "stack_trace" not in str(ir.to_proto(loaded.model))


def test_tied_weights_stay_tied(assert_same) -> None:
    module = Tokens()
    loaded = make(module)
    tables = [v for v in loaded.model.graph.initializers.values() if list(v.shape) == [11, 6]]
    assert len(tables) == 1
    assert len(list(tables[0].uses())) == 2
    assert loaded.inputs[0].upper == 11
    assert_same(loaded, module)


def test_several_inputs_keep_their_names(assert_same) -> None:
    module = TwoInputs()
    loaded = make(module, InputShape((4,), "b"), InputShape((3,), "a"))
    assert [(i.name, i.shape) for i in loaded.inputs] == [("a", ("batch", 3)), ("b", ("batch", 4))]
    assert_same(loaded, module)
    all_three = InputShape((4,), "b"), InputShape((3,), "a"), InputShape((1,), "scale")
    assert [i.name for i in make(TwoInputs(), *all_three).inputs] == ["a", "b", "scale"]


def test_a_star_of_inputs() -> None:
    loaded = make(Star(), InputShape((4,)), InputShape((4,)))
    assert [i.shape for i in loaded.inputs] == [("batch", 4)] * 2
    assert loaded.reference is not None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("tuple", ["output_0", "output_1"]),
        ("dict", ["logits", "features_0", "features_1"]),
        ("dataclass", ["logits", "probability"]),
        ("twice", ["output_0", "output_1"]),
        ("input", ["output_0", "output_1"]),
    ],
)
def test_outputs_have_stable_names(shape: str, expected: list[str]) -> None:
    loaded = make(Outputs(shape), InputShape((4,)))
    assert names(loaded) == expected
    assert len(set(loaded.model.graph.outputs)) == len(expected)
    assert loaded.reference is not None
    assert list(loaded.reference.outputs) == expected


def test_an_input_called_output() -> None:
    class Confusing(nn.Linear):
        def forward(self, output: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(output)

    loaded = make(Confusing(3, 2))
    assert [i.name for i in loaded.inputs] == ["output"]
    assert names(loaded) == ["output_"]


@pytest.mark.parametrize("module", [ConvNet(), Outputs("tuple"), Outputs("twice")])
def test_the_reference_is_what_the_graph_gives(module: nn.Module) -> None:
    import onnxruntime

    loaded = make(module, InputShape((3, 8, 8) if isinstance(module, ConvNet) else (4,)))
    reference = loaded.reference
    assert reference is not None
    session = onnxruntime.InferenceSession(ir.to_proto(loaded.model).SerializeToString())
    outputs = session.run(list(reference.outputs), reference.inputs)
    for mine, theirs in zip(outputs, reference.outputs.values(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_batch_statistics_do_not_crash() -> None:
    loaded = make(BatchStatistics(), InputShape((3, 8, 8)))
    node = next(n for n in loaded.model.graph if n.op_type == "BatchNormalization")
    assert node.inputs[3] is not None
    assert not node.inputs[3].is_initializer()


def test_code_that_depends_on_the_batch_gets_a_fixed_one(assert_same) -> None:
    for module, said in (
        (KnowsItsBatch(2), "the batch size is fixed at 1: torch.export: the model's code depends"),
        (KnowsItsBatch(1), "the model only runs with a batch of 1"),
    ):
        loaded = make(module, InputShape((4,)))
        assert not loaded.dynamic_batch
        assert loaded.inputs[0].shape == (1, 4)
        assert any(note.startswith(said) for note in loaded.notes)
        assert_same(loaded, module, batches=(1,))


def test_the_second_exporter(assert_same, op_types) -> None:
    module = DecidesByValue()
    loaded = make(module, InputShape((4,)))
    assert loaded.dynamic_batch
    assert any("TorchScript exporter was used" in note for note in loaded.notes)
    assert "data-dependent" in loaded.notes[-1]
    assert len(loaded.warnings) == 1
    assert "decides in Python" in loaded.warnings[0]
    assert "source_nets.py:" in loaded.warnings[0]
    assert op_types(loaded).count("BatchNormalization") == 1
    assert names(loaded) == ["output"]
    assert_same(loaded, module)


def test_when_both_exporters_fail(capfd: pytest.CaptureFixture[str]) -> None:
    class Sparse(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            y = super().forward(x)
            return torch.linalg.eigvals(y.T @ y).real if float(y.sum()) < 1e30 else y

    with pytest.raises(UserError) as raised:
        make(Sparse(3, 3))
    assert "torch.export: " in raised.value.message
    assert "TorchScript: " in raised.value.message
    assert len(raised.value.message) < 600
    assert "\n" not in raised.value.message
    assert "\x1b" not in raised.value.message
    assert raised.value.hint
    assert capfd.readouterr() == ("", "")  # no graph, which the exporter prints by itself


@pytest.mark.parametrize("module", [ConvNet(), DecidesByValue()])
def test_nobody_hears_the_exporters(
    module: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(module, InputShape((3, 8, 8) if isinstance(module, ConvNet) else (4,)))
    assert caught == []
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if r.levelno > 10] == []
    assert list(tmp_path.iterdir()) == []


def test_training_mode_is_left(assert_same) -> None:
    module = ConvNet().train()
    loaded = make(module, InputShape((3, 8, 8)))
    assert_same(loaded, module)
    assert not module.training


def test_large_models_go_through_files(assert_same, monkeypatch: pytest.MonkeyPatch) -> None:
    """The TorchScript exporter keeps big weights beside the file, which then goes away."""
    module = DecidesByValue()
    loaded = make(module, InputShape((4,)))
    weight = loaded.model.graph.initializers["fc.weight"].const_value
    assert weight is not None
    assert not isinstance(weight, ir.ExternalTensor)
    np.testing.assert_array_equal(weight.numpy(), module.fc.weight.numpy())


def test_reasons_are_the_innermost() -> None:
    inner, outer = ValueError("\x1b[96mthis\x1b[0m\nand more"), RuntimeError("outer")
    outer.__cause__ = inner
    assert exporters.reason(outer) == "ValueError: this"


# --- an export is taken only when it has run ---------------------------------------------------


def test_what_a_module_remembers_is_no_constant_of_the_graph(assert_same) -> None:
    module = CachedGrid()
    loaded = make(module, InputShape((3, 6, 6)))
    assert loaded.dynamic_batch
    assert loaded.notes == []  # torch.export's
    assert module.cache == {}
    assert module.shape is None
    assert "grid" not in vars(module)
    assert_same(loaded, module)


@pytest.mark.parametrize("exporter", ["torch.export", "TorchScript"])
def test_hooks_of_the_first_run_are_not_hung_twice(
    assert_same, monkeypatch: pytest.MonkeyPatch, exporter: str
) -> None:
    """The note that they are there is forgotten after a run, and so are they."""
    only = tuple(attempt for attempt in export.ATTEMPTS if attempt.exporter == exporter)
    monkeypatch.setattr(module_source, "export", partial(export.export, attempts=only))
    module = HooksItself()
    loaded = make(module, InputShape((3, 6, 6)))
    assert loaded.dynamic_batch
    assert not module.hooked
    assert all(not layer._forward_hooks for layer in module.modules())
    assert_same(loaded, module)


def test_what_a_run_changes_is_changed_back() -> None:
    module = Counts()
    assert make(module, InputShape((3, 6, 6))).dynamic_batch
    assert module.seen == 0
    assert module.calls == []


def test_a_graph_that_does_not_load_is_not_taken(assert_same) -> None:
    module = LooseSqueeze()
    loaded = make(module, InputShape((3, 6, 6)))
    assert loaded.notes == [
        "the TorchScript exporter was used, as torch.export failed: its graph does not run in "
        "onnxruntime, Squeeze 'node_squeeze': Dimension of input 1 must be 1 instead of 4"
    ]
    assert_same(loaded, module)


def test_when_no_graph_runs_it_is_the_export_that_fails() -> None:
    with pytest.raises(UserError) as raised:
        make(NoKernel(), InputShape((3, 6, 6)))
    said = raised.value.message
    assert said.startswith("the model's export to ONNX does not run, before anything is folded.")
    assert "torch.export: its graph does not run in onnxruntime, Tan 'node_tan'" in said
    assert "TorchScript: its graph does not run in onnxruntime, Tan '/Tan'" in said
    assert "no kernel" in said


# For calls that leave no axis open but the batch.
PLAIN = tuple(attempt for attempt in export.ATTEMPTS if not attempt.resizable)


def wrong(by: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Exported]:
    """An exporter with a fault: what it exports gets `by` behind it."""

    class Faulty(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.inner = module

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return by(self.inner(image))

    def exporter(module: nn.Module, call: Call, *, free: bool, resizable: bool) -> Exported:
        return exporters.dynamo(Faulty(module).eval(), call, free=free, resizable=resizable)

    return exporter


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (lambda y: y * 1.01, "differs from the module's by"),
        (lambda y: torch.cat([y[:, :1] * 1e4, y[:, 1:]], 1), "differs"),
        (lambda y: y[:, :-1], "has the shape"),
        (lambda y: y + 0.1 * (y.shape[0] - 2), "with a batch of 3"),
    ],
)
def test_a_graph_that_is_wrong_is_not_taken(by, said: str, monkeypatch, assert_same) -> None:
    first, *others = PLAIN
    attempts = (replace(first, make=wrong(by)), *others)
    monkeypatch.setattr(module_source, "export", partial(export.export, attempts=attempts))
    module = ConvNet()
    loaded = make(module, InputShape((3, 8, 8)))
    assert "its graph is wrong: " in loaded.notes[0]
    assert said in loaded.notes[0] or "depends on the batch size" in loaded.notes[0]
    assert_same(loaded, module)
    monkeypatch.setattr(module_source, "export", partial(export.export, attempts=attempts[:1]))
    with pytest.raises(UserError, match="no export of the model to ONNX computes what"):
        make(module, InputShape((3, 8, 8)))


def test_a_small_channel_beside_a_large_one_is_seen() -> None:
    boxes = np.array([[[1e5, 2e5], [0.1, 0.2]]], np.float32)
    shifted = boxes + np.array([[[0], [0.1]]], np.float32)
    assert trial.agree(boxes + np.array([[[1], [0]]], np.float32), boxes)
    assert not trial.agree(shifted, boxes)
    assert trial.agree(boxes * np.float32(1 + 5e-5), boxes)
    assert not trial.agree(boxes * np.float32(1 + 2e-4), boxes)
    assert not trial.agree(np.full((2, 2), np.nan), np.ones((2, 2)))
    assert not trial.agree(np.array([1, 2]), np.array([1, 3]))


def test_a_coarse_kernel_makes_no_graph_wrong() -> None:
    """onnxruntime's Sigmoid is off by some 1e-9, here a hundredth of all that there is."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()).eval()
    with torch.no_grad():
        module[0].bias.fill_(-16.0)
    loaded = make(module, InputShape((4,)))
    assert loaded.dynamic_batch
    assert loaded.reference is not None
    assert float(loaded.reference.outputs["output"].max()) < 1e-6


def test_a_sensitive_network_may_differ_as_much_as_it_is_sensitive(assert_same) -> None:
    """A chaotic map: rounding decides its digits, in torch as in onnxruntime."""

    class Chaos(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.bn(x).sigmoid()
            for _ in range(24):
                y = 3.9 * y * (1 - y)
            return y

    loaded = make(Chaos(), InputShape((4,)))
    assert loaded.dynamic_batch
    assert loaded.notes == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("rand", r"draws random numbers .*: rand \(source_nets.py:\d+\)"),
        ("dropout", r"draws random numbers .*: dropout \(source_nets.py:\d+\)"),
        ("numpy", "answers the same input differently each time"),
    ],
)
def test_random_answers_are_named(kind: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        make(Noisy(kind), InputShape((3, 6, 6)))
    assert "eval mode" in raised.value.hint


def test_draws_without_consequence_are_none() -> None:
    assert make(Noisy("harmless"), InputShape((3, 6, 6))).dynamic_batch


def test_the_second_exporter_runs_only_when_the_first_failed(monkeypatch) -> None:
    def never(*_: object, **__: object) -> Exported:
        raise AssertionError

    attempts = (PLAIN[0], replace(PLAIN[1], make=never))
    monkeypatch.setattr(module_source, "export", partial(export.export, attempts=attempts))
    assert make(ConvNet(), InputShape((3, 8, 8))).dynamic_batch


class ByFour(nn.Module):
    """The mean of each four rows, as a network that looks at four views of a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3)).reshape(-1, 4, 3).mean(1)


def test_a_model_that_groups_its_rows() -> None:
    """It is tried with a batch of four, and its graph with eight and twelve."""
    module = ByFour().eval()
    loaded = make(module, InputShape((1, 6, 6), "x"))
    assert "with a batch of 4 (with 2: RuntimeError: shape" in loaded.notes[0]
    assert loaded.dynamic_batch
    x = torch.randn(20, 1, 6, 6)
    (got,) = ort_run(loaded.model, {"x": x.numpy()})
    np.testing.assert_allclose(got, module(x).detach().numpy(), atol=1e-5)


def test_shapes_that_the_first_layer_takes_are_not_advised_against() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3)

        def forward(self, images: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return self.conv(images).reshape(-1, 7, 11) + other

    shapes = [InputShape((1, 6, 6), "images"), InputShape((11,), "other")]
    with pytest.raises(UserError, match="does not run with input shape 1,6,6 11") as raised:
        make(Odd().eval(), *shapes)
    assert "--input-shape" not in raised.value.hint
    assert "batches of 2, 1, 4, 8, 3 and 16 were tried" in raised.value.hint
    wrong = [InputShape((2, 6, 6), "images"), InputShape((11,), "other")]
    with pytest.raises(UserError) as raised:
        make(Odd().eval(), *wrong)
    assert "--input-shape images=1,28,28 is what its first layer takes" in raised.value.hint
