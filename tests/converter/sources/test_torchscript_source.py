"""TorchScript: scripted, traced and frozen programs, and those that reach outside of themselves."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from source_nets import ConvNet, FixedSize, Tokens, TwoInputs
from torch import Tensor, nn
from torch.jit import TracerWarning

from converter.errors import UserError
from converter.sources import InputShape, LoadOptions, load
from converter.system.quiet import torch_quiet
from patterns.networks import randomize_batchnorms

SMALL = LoadOptions(input_shapes=(InputShape((3, 8, 8)),))


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.script(module)


def traced(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.trace(module, torch.zeros(2, 3, 8, 8))


def frozen(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.freeze(torch.jit.script(module.eval()))


def save(path: Path, module: nn.Module, make=scripted) -> Path:
    with torch_quiet():
        torch.jit.save(make(module), str(path))
    return path


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(5)
    return randomize_batchnorms(ConvNet()).eval()


@pytest.mark.parametrize("make", [scripted, traced])
def test_batch_norms_and_names_are_kept(
    tmp_path: Path, module: nn.Module, make, assert_same, op_types
) -> None:
    loaded = load(save(tmp_path / "model.dat", module, make), SMALL)
    assert loaded.kind == "a TorchScript archive"
    assert_same(loaded, module)
    assert op_types(loaded).count("BatchNormalization") == 3
    assert [i.name for i in loaded.inputs] == ["image"]
    assert [v.name for v in loaded.model.graph.outputs] == ["output"]
    assert set(loaded.model.graph.initializers) == {
        name for name in module.state_dict() if "num_batches" not in name
    }
    assert loaded.reference is not None
    assert loaded.untracked == frozenset()
    assert loaded.warnings == []


def test_equal_tensors_are_shared_through_identity(tmp_path: Path, op_types) -> None:
    """A fact that the normalisation has to know: fresh statistics are all zeros and ones."""
    loaded = load(save(tmp_path / "model.pt", ConvNet().eval()), SMALL)
    assert op_types(loaded).count("Identity") == 6
    assert loaded.untracked == frozenset({"bn1", "bn2", "bn3"})


def test_a_frozen_program(tmp_path: Path, module: nn.Module, assert_same, op_types) -> None:
    """torch.jit.freeze folds some batch-norms by itself; what is left still loads."""
    loaded = load(save(tmp_path / "model.pt", module, frozen), SMALL)
    assert_same(loaded, module)
    assert op_types(loaded).count("BatchNormalization") < 3


def test_shapes_are_inferred_from_layers_and_from_frozen_graphs(tmp_path: Path) -> None:
    network = FixedSize(channels=1, side=28).eval()
    for make in (scripted, frozen):
        loaded = load(save(tmp_path / "model.pt", network, make))
        assert loaded.inputs[0].shape == ("batch", 1, 28, 28)
        assert "a convolution of 1 channels" in loaded.notes[0]
        assert "--input-shape" in loaded.notes[0]
    loaded = load(save(tmp_path / "model.pt", Tokens().eval()))
    assert (loaded.inputs[0].dtype, loaded.inputs[0].upper) == ("int64", 11)


def test_a_program_saved_in_training_mode(tmp_path: Path, module: nn.Module, assert_same) -> None:
    loaded = load(save(tmp_path / "model.pt", module.train()), SMALL)
    assert "the program was saved in training mode and was set to eval()" in loaded.notes
    assert_same(loaded, module.eval())


def test_a_program_traced_in_training_mode(tmp_path: Path, module: nn.Module) -> None:
    """The trace holds training=True as a constant, which eval() does not reach."""
    with torch_quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        torch.jit.trace(module.train(), torch.zeros(2, 3, 8, 8), check_trace=False).save(
            str(tmp_path / "model.pt")
        )
    loaded = load(tmp_path / "model.pt", SMALL)
    assert loaded.warnings == [
        "3 batch-norms were traced in training mode and use the statistics of the batch: call "
        "model.eval() before torch.jit.trace"
    ]


def test_half_precision(tmp_path: Path, module: nn.Module, assert_same) -> None:
    loaded = load(save(tmp_path / "model.pt", module.half()), SMALL)
    assert_same(loaded, module.float())
    assert any("widened to float32" in note for note in loaded.notes)


def test_several_inputs(tmp_path: Path, assert_same) -> None:
    network = randomize_batchnorms(TwoInputs()).eval()
    path = save(tmp_path / "model.pt", network)
    with pytest.raises(UserError, match="2 inputs: a, b"):
        load(path)
    shapes = (InputShape((4,), "b"), InputShape((3,), "a"))
    loaded = load(path, LoadOptions(input_shapes=shapes))
    assert [i.name for i in loaded.inputs] == ["a", "b"]
    assert "bn.running_mean" in loaded.model.graph.initializers
    assert_same(loaded, network)
    shapes = (InputShape((4,), "b"), InputShape((3,), "a"), InputShape((1,), "scale"))
    loaded = load(path, LoadOptions(input_shapes=shapes))
    assert [i.name for i in loaded.inputs] == ["a", "b", "scale"]
    assert_same(loaded, network)


def test_optimize_for_inference_is_refused(tmp_path: Path, module: nn.Module) -> None:
    path = save(
        tmp_path / "model.pt", module, lambda m: torch.jit.optimize_for_inference(scripted(m))
    )
    with pytest.raises(UserError, match="cannot be loaded") as raised:
        load(path, SMALL)
    assert "optimize_for_inference" in raised.value.hint


class TakesText(nn.Module):
    def forward(self, text: str) -> Tensor:
        return torch.zeros(len(text))


class WritesFiles(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "written_by_a_model")
        return x


class ReadsFiles(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_file("/etc/passwd", False, 4)


def test_a_program_that_takes_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="something else than tensors: text: str"):
        load(save(tmp_path / "model.pt", TakesText()))


@pytest.mark.parametrize(("network", "call"), [(WritesFiles, "save"), (ReadsFiles, "from_file")])
def test_a_program_that_reaches_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: type[nn.Module], call: str
) -> None:
    path = save(tmp_path / "model.pt", network())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"calls {call}\(\)") as raised:
        load(path, LoadOptions(input_shapes=(InputShape((4,)),)))
    assert "--trust-pickle" in raised.value.hint
    assert not (tmp_path / "written_by_a_model").exists()


def test_a_damaged_archive(tmp_path: Path, module: nn.Module) -> None:
    path = save(tmp_path / "model.pt", module)
    content = bytearray(path.read_bytes())
    at = content.index(b"code/__torch__")
    content[at + 60 : at + 400] = b"\x00" * 340
    path.write_bytes(bytes(content))
    with pytest.raises(UserError):
        load(path, SMALL)
