"""torch.export programs: what they declare is kept, and loading one never runs its code."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from source_nets import BatchStatistics, ConvNet, Outputs, TwoInputs
from torch import nn
from torch.export import Dim

from converter.errors import UserError
from converter.sources import InputShape, LoadOptions, load, vet
from converter.system.quiet import torch_quiet
from patterns.networks import randomize_batchnorms

pytestmark = pytest.mark.slow


def save(path: Path, module: nn.Module, *args: torch.Tensor, **options: Any) -> Path:
    args = args or (torch.zeros(2, 3, 8, 8),)
    with torch_quiet(), path.open("wb") as file:
        torch.export.save(torch.export.export(module, args, **options), file)
    return path


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(5)
    return randomize_batchnorms(ConvNet()).eval()


DYNAMIC = {"image": {0: Dim("n")}}


def test_a_dynamic_batch(tmp_path: Path, module: nn.Module, assert_same, op_types) -> None:
    loaded = load(save(tmp_path / "model.bin", module, dynamic_shapes=DYNAMIC))
    assert loaded.kind == "a torch.export program"
    assert loaded.inputs[0].shape == ("batch", 3, 8, 8)
    assert loaded.inputs[0].example == (1, 3, 8, 8)
    assert_same(loaded, module)
    assert op_types(loaded).count("BatchNormalization") == 3
    assert "bn1.running_mean" in loaded.model.graph.initializers
    assert [v.name for v in loaded.model.graph.outputs] == ["output"]
    assert str(loaded.model.graph.outputs[0].shape) == "[batch,5]"
    assert loaded.untracked == frozenset()
    assert loaded.notes == []


def test_a_static_batch_stays_static(tmp_path: Path, module: nn.Module, assert_same) -> None:
    loaded = load(save(tmp_path / "model.pt2", module))
    assert not loaded.dynamic_batch
    assert loaded.inputs[0].shape == loaded.inputs[0].example == (2, 3, 8, 8)
    assert "fixed batch size" in loaded.notes[0]
    assert_same(loaded, module, batches=(2,))


def test_other_axes_take_the_size_of_the_example(
    tmp_path: Path, module: nn.Module, assert_same
) -> None:
    path = save(tmp_path / "a", module, dynamic_shapes={"image": {0: Dim("n"), 2: Dim("h")}})
    loaded = load(path)
    assert loaded.inputs[0].example == (1, 3, 8, 8)
    assert_same(loaded, module)
    assert load(path, LoadOptions(input_shapes=(InputShape((3, 16, 8)),))).inputs[0].example == (
        (1, 3, 16, 8)
    )
    with pytest.raises(UserError, match="does not fit input 'image'"):
        load(path, LoadOptions(input_shapes=(InputShape((3, 16, 16)),)))


def test_a_3d_convolution_without_a_bias(tmp_path: Path, assert_same) -> None:
    """The exporter gives it a bias of a wrong shape."""
    net = nn.Sequential(nn.Conv3d(2, 4, 3, bias=False), nn.BatchNorm3d(4)).eval()
    path = save(tmp_path / "model.pt2", net, torch.zeros(2, 2, 4, 5, 5))
    assert_same(load(path), net, batches=(2,))


def test_a_bias_that_is_made_of_zeros_goes(tmp_path: Path) -> None:
    """So that the one which a fold adds is named for its layer."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).eval()
    loaded = load(save(tmp_path / "model.pt2", net))
    (conv,) = [node for node in loaded.model.graph if node.op_type == "Conv"]
    assert len(conv.inputs) == 2


def test_several_inputs_and_named_outputs(tmp_path: Path, assert_same) -> None:
    n = Dim("n")
    network = randomize_batchnorms(TwoInputs()).eval()
    args = torch.zeros(2, 3), torch.zeros(2, 4)
    shapes = {"a": {0: n}, "b": {0: n}}
    loaded = load(save(tmp_path / "a.pt2", network, *args, dynamic_shapes=shapes))
    assert [(i.name, i.shape) for i in loaded.inputs] == [("a", ("batch", 3)), ("b", ("batch", 4))]
    assert_same(loaded, network)
    loaded = load(save(tmp_path / "b.pt2", Outputs("dict").eval(), torch.zeros(2, 4)))
    assert [v.name for v in loaded.model.graph.outputs] == ["logits", "features_0", "features_1"]


def test_training_mode_is_refused(tmp_path: Path, module: nn.Module) -> None:
    """The exporter would write such batch-norms as if they were in eval mode."""
    path = save(tmp_path / "model.pt2", module.train())
    with pytest.raises(UserError) as raised:
        load(path)
    assert "in training mode: 3 batch-norms" in raised.value.message
    assert "(bn1, bn2, bn3)" in raised.value.message
    assert "model.eval()" in raised.value.hint


def test_batch_statistics_are_left_to_the_folder(tmp_path: Path, op_types) -> None:
    loaded = load(save(tmp_path / "model.pt2", BatchStatistics().eval()))
    node = next(n for n in loaded.model.graph if n.op_type == "BatchNormalization")
    assert node.inputs[3] is not None
    assert not node.inputs[3].is_initializer()  # computed


def test_untracked(tmp_path: Path) -> None:
    loaded = load(save(tmp_path / "model.pt2", ConvNet().eval()))
    assert loaded.untracked == frozenset({"bn1", "bn2", "bn3"})


# --- what a file may hold that no exporter writes ---------------------------------------------


def rewrite(path: Path, change: Callable[[str, bytes], bytes], **added: bytes) -> None:
    """Change the entries of an archive, and write it again."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        top = old.namelist()[0].partition("/")[0]
        for name, content in added.items():
            new.writestr(f"{top}/{name}", content)
    path.write_bytes(buffer.getvalue())


def json_change(suffix: str, change: Callable[[Any], None]) -> Callable[[str, bytes], bytes]:
    def apply(name: str, content: bytes) -> bytes:
        if not name.endswith(suffix):
            return content
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return apply


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An ordinary program with a dynamic batch, to be tampered with."""
    network = randomize_batchnorms(ConvNet()).eval()
    path = tmp_path_factory.mktemp("saved") / "model.pt2"
    return save(path, network, dynamic_shapes=DYNAMIC).read_bytes()


@pytest.fixture
def path(tmp_path: Path, saved: bytes) -> Path:
    file = tmp_path / "model.pt2"
    file.write_bytes(saved)
    return file


def refuse(path: Path, complaint: str, victim: Path) -> None:
    with pytest.raises(UserError, match=complaint) as raised:
        load(path)
    assert "--trust-pickle" in raised.value.hint
    assert not victim.exists()


def test_size_expressions_are_not_executed(tmp_path: Path, path: Path) -> None:
    victim = tmp_path / "victim"

    def attack(program: Any) -> None:
        sizes = program["graph_module"]["graph"]["tensor_values"]["image"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = f"__import__('os').system('touch {victim}')"

    rewrite(path, json_change("models/model.json", attack))
    refuse(path, "one of its sizes is", victim)


def test_operators_are_registered_ones(tmp_path: Path, path: Path) -> None:
    victim = tmp_path / "victim"
    for target in (
        "torch.os.system",
        "torch.ops.load_library",
        "torch.load",
        "torch.hub.load",
        "torch.ops.aten.save",
        "torch.ops.aten.conv2d.default.__class__",
        "torch.ops.os.system.__call__",
        "builtins.exec",
        "#ns:op",
    ):

        def attack(program: Any, target: str = target) -> None:
            program["graph_module"]["graph"]["nodes"][0]["target"] = target

        rewrite(path, json_change("models/model.json", attack))
        refuse(path, "it calls", victim)


@pytest.mark.parametrize("entry", ["data/sample_inputs/model.pt", "data/constants/model.pt"])
def test_pickles_inside_hold_only_tensors(tmp_path: Path, path: Path, entry: str) -> None:
    victim = tmp_path / "victim"
    attack = pickled((Touch(victim),))
    if "sample" in entry:
        rewrite(path, lambda name, content: attack if name.endswith(entry) else content)
    else:
        rewrite(path, lambda _, content: content, **{entry: attack})
    refuse(path, "pickle of more than tensors", victim)


@pytest.mark.parametrize("name", ["custom_obj_0", "opaque_obj_0", "tensor_0"])
def test_constants_are_tensors(tmp_path: Path, path: Path, name: str) -> None:
    victim = tmp_path / "victim"

    def attack(config: Any) -> None:
        config["config"]["c"] = {
            "path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None
        }  # fmt: skip

    rewrite(
        path,
        json_change("model_constants_config.json", attack),
        **{f"data/constants/{name}": pickled((Touch(victim),))},
    )
    refuse(path, "not a tensor|more than tensors", victim)


def test_weights_are_tensors(tmp_path: Path, path: Path) -> None:
    victim = tmp_path / "victim"

    def attack(config: Any) -> None:
        config["config"]["fc.bias"] |= {"path_name": "weight_x", "use_pickle": True}

    rewrite(
        path,
        json_change("model_weights_config.json", attack),
        **{"data/weights/weight_x": pickled(Touch(victim))},
    )
    refuse(path, "more than tensors", victim)


def test_containers_are_plain(tmp_path: Path, path: Path) -> None:

    def attack(program: Any) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        leaf = {"type": None, "context": None, "children_spec": []}
        context = json.dumps({"default_factory_module": "antigravity"})
        spec = {"type": "collections.defaultdict", "context": context, "children_spec": [leaf]}
        signature["out_spec"] = json.dumps([1, spec])

    rewrite(path, json_change("models/model.json", attack))
    refuse(path, "hold a 'collections.defaultdict'", tmp_path / "victim")


def test_guards_are_not_executed(tmp_path: Path, path: Path) -> None:
    """Conditions on inputs are Python source: they are dropped, the program is read."""
    victim = tmp_path / "victim"

    def attack(program: Any) -> None:
        program["guards_code"] = [f"__import__('os').system('touch {victim}') == 0"]

    rewrite(path, json_change("models/model.json", attack))
    assert load(path).inputs[0].shape == ("batch", 3, 8, 8)
    assert not victim.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.conv2d.default",
        "torch.ops.aten._assert_tensor_metadata.default",
        "torch.ops.aten.__and__.Tensor",
        "torch.ops.higher_order.cond",
        "torch.ops.torchvision.nms.default",
        "_operator.floordiv",
        "math.ceil",
        "torch.sym_max",
    ],
)
def test_operators_that_exporters_write(target: str) -> None:
    assert list(vet.complaints({"nodes": [{"target": target}]})) == []


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s40', positive=True, integer=True)",
        "Mul(Integer(24), Max(Integer(1), Add(Symbol('s73', integer=True), Integer(-2))))",
        "FloorDiv(Add(Symbol('u0'), Integer(3)), Integer(2))",
        "2*s0 + 1",
        "Eq(s0, 3)",
        "s0 >= 3",
    ],
)
def test_size_expressions(text: str) -> None:
    assert vet.is_size_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "exec('1')",
        "open('a')",
        "s0.__class__",
        "(lambda: 1)()",
        "[x for x in s0]",
        "Symbol('a b; import os')",
        "Integer('__import__(\"os\")')",
        "s0 if s0 else 1",
        "s0()()",
        "f'{s0}'",
        "(s0 := 3)",
        "1 +",
        "(" * 500,
        "sympify('exec')",
    ],
)
def test_other_expressions(text: str) -> None:
    assert not vet.is_size_expression(text)


def test_a_damaged_archive(tmp_path: Path, path: Path) -> None:
    rewrite(path, lambda name, content: b"{" if name.endswith("model.json") else content)
    with pytest.raises(UserError):
        load(path)
    rewrite(path, lambda name, content: b"{}" if name.endswith("model.json") else content)
    with pytest.raises(UserError):
        load(path)
