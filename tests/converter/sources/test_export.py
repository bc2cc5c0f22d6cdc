"""From a module to a graph: batch-norms, names and sharing survive; nobody hears the exporters."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from source_nets import (
    BatchStatistics,
    ConvNet,
    DecidesByValue,
    KnowsItsBatch,
    Outputs,
    Star,
    Tokens,
    TwoInputs,
)
from torch import nn

from converter.errors import UserError
from converter.sources import InputShape, Loaded, LoadOptions, export
from converter.sources.module import from_module
from tests.zoo import randomize_batchnorms


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
        (KnowsItsBatch(2), "the batch size is fixed at 1: the model's code depends on it"),
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
    assert export.reason(outer) == "ValueError: this"
