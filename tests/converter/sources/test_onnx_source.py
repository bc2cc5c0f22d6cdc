"""ONNX files: weights beside the model and never elsewhere, old files, unknown axes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter import cli
from converter.errors import UserError
from converter.sources import InputShape, Loaded, LoadOptions, load, parse_input_shape

OPSET = [helper.make_opsetid("", 17)]
SEED = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    return SEED.standard_normal(shape).astype(np.float32)


def conv_bn(
    shape: Sequence[int | str | None],
    *,
    ir_version: int = 10,
    weights_are_inputs: bool = False,
    name: str = "image",
) -> onnx.ModelProto:
    """Conv 3 -> 4 channels, then a batch-norm."""
    weights = {
        "w": floats(4, 3, 3, 3),
        "scale": floats(4),
        "bias": floats(4),
        "mean": floats(4),
        "var": np.abs(floats(4)) + 0.5,
    }
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
    if weights_are_inputs:
        inputs += [
            helper.make_tensor_value_info(key, TensorProto.FLOAT, value.shape)
            for key, value in weights.items()
        ]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [name, "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["y"]),
        ],
        "g",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = ir_version
    return model


def save(tmp_path: Path, model: onnx.ModelProto, name: str = "model.onnx") -> Path:
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return path


def same_as_file(loaded: Loaded, path: Path, *shape: int) -> None:
    import onnx_ir as ir

    x = {loaded.inputs[0].name: np.random.default_rng(0).standard_normal(shape).astype("f4")}
    copy = path.with_name("copy.onnx")
    ir.save(loaded.model, copy)
    mine, theirs = (onnxruntime.InferenceSession(str(p)).run(None, x) for p in (copy, path))
    np.testing.assert_array_equal(mine, theirs)


def test_a_plain_model(tmp_path: Path) -> None:
    path = save(tmp_path, conv_bn(["n", 3, 8, 8]), "model.weights")
    loaded = load(path)
    assert loaded.kind == "an ONNX model"
    assert loaded.path == path
    assert loaded.inputs[0].shape == ("n", 3, 8, 8)
    assert loaded.inputs[0].example == (1, 3, 8, 8)
    assert loaded.inputs[0].dtype == "float32"
    assert loaded.dynamic_batch
    assert [v.name for v in loaded.model.graph.outputs] == ["y"]
    same_as_file(loaded, path, 2, 3, 8, 8)


@pytest.mark.parametrize("unknown", [-1, 0, None, ""])
def test_every_way_to_leave_an_axis_open(tmp_path: Path, unknown: int | str | None) -> None:
    loaded = load(save(tmp_path, conv_bn([unknown, 3, 8, 8])))
    assert loaded.inputs[0].shape == ("batch", 3, 8, 8)
    assert loaded.dynamic_batch


def test_a_static_batch_stays_static(tmp_path: Path) -> None:
    loaded = load(save(tmp_path, conv_bn([1, 3, 8, 8])))
    assert not loaded.dynamic_batch
    assert loaded.inputs[0].example == (1, 3, 8, 8)


def test_unknown_sizes_are_found_by_running(tmp_path: Path) -> None:
    loaded = load(save(tmp_path, conv_bn(["n", 3, "h", "w"])))
    assert loaded.inputs[0].example == (1, 3, 224, 224)
    assert loaded.inputs[0].shape == ("n", 3, "h", "w")
    assert loaded.notes == [
        "sizes taken for examples of the input: h = 224, w = 224; --input-shape overrides it"
    ]


def test_unknown_sizes_that_only_one_candidate_fits(tmp_path: Path) -> None:
    model = conv_bn(["n", 3, None, None])
    model.graph.node.append(helper.make_node("Reshape", ["y", "to"], ["z"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 4, 32, 32]), "to"))
    model.graph.node.append(helper.make_node("Add", ["z", "y"], ["sum"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))
    loaded = load(save(tmp_path, model))
    assert loaded.inputs[0].example == (1, 3, 32, 32)
    assert loaded.inputs[0].shape == ("n", 3, "image_2", "image_3")


def test_unknown_sizes_from_the_user(tmp_path: Path) -> None:
    path = save(tmp_path, conv_bn(["n", 3, "h", "w"]))
    loaded = load(path, LoadOptions(input_shapes=(InputShape((3, 20, 30)),)))
    assert loaded.inputs[0].example == (1, 3, 20, 30)
    assert loaded.notes == []


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        (InputShape((4, 8, 8)), "does not fit input 'image'"),
        (InputShape((3, 8)), "does not fit input 'image'"),
        (
            InputShape((3, 8, 8), "picture"),
            "not an input of the model\nthe model's inputs are: image",
        ),
    ],
)
def test_shapes_that_contradict_the_graph(
    tmp_path: Path, shape: InputShape, complaint: str
) -> None:
    path = save(tmp_path, conv_bn(["n", 3, "h", "w"]))
    with pytest.raises(UserError) as raised:
        load(path, LoadOptions(input_shapes=(shape,)))
    assert complaint in str(raised.value)


def test_unknown_sizes_that_nothing_fits(tmp_path: Path) -> None:
    model = conv_bn(["n", 3, "h", "w"])
    model.graph.node.append(helper.make_node("Add", ["y", "odd"], ["z"]))
    model.graph.initializer.append(numpy_helper.from_array(floats(1, 4, 17, 19), "odd"))
    with pytest.raises(UserError, match=r"axes of unknown size: \(n, 3, h, w\)") as raised:
        load(save(tmp_path, model))
    assert "--input-shape image=3,224,224" in raised.value.hint


def stateful(rate: int = 16000) -> onnx.ModelProto:
    """The batch is the state's second axis, no open axis has a name; runs at one rate only."""
    make = helper.make_node
    nodes = [
        make("ReduceMean", ["x"], ["m"], axes=[1]),
        make("ReduceMean", ["state"], ["h"], axes=[0], keepdims=0),
        make("Concat", ["h", "m"], ["both"], axis=1),
        make("Equal", ["rate", "known"], ["right"]),
        make("Cast", ["right"], ["one"], to=TensorProto.INT64),
        make("Sub", ["one", "one_"], ["index"]),
        make("Neg", ["index"], ["row"]),
        make("Gather", ["table", "row"], ["factor"]),
        make("Mul", ["both", "factor"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [
            info("x", TensorProto.FLOAT, [None, None]),
            info("state", TensorProto.FLOAT, [2, None, 3]),
            info("rate", TensorProto.INT64, []),
        ],
        [info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.array(rate), "known"),
            numpy_helper.from_array(np.array(1), "one_"),
            numpy_helper.from_array(np.array([2.0], np.float32), "table"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)


def test_a_batch_behind_a_fixed_axis_is_found(tmp_path: Path) -> None:
    loaded = load(save(tmp_path, stateful()))
    assert [i.example for i in loaded.inputs] == [(1, 16), (2, 1, 3), ()]
    assert any("x_1 = 16, state_1 = 1" in note for note in loaded.notes)


@pytest.mark.parametrize("text", ["state=(2,4,3)", "state=(2,batch,3)"])
def test_a_whole_shape_says_a_batch_behind(tmp_path: Path, text: str) -> None:
    shapes = tuple(parse_input_shape(t) for t in ("x=(4,9)", text))
    loaded = load(save(tmp_path, stateful()), LoadOptions(input_shapes=shapes))
    assert loaded.inputs[0].example == (4, 9)


def test_open_sizes_are_those_of_the_data(tmp_path: Path) -> None:
    """Where no batch varies by itself, the data's is taken; what the user says comes first."""
    data: dict[str, tuple[int, ...]] = {"x": (5, 12), "state": (2, 5, 3), "rate": ()}
    loaded = load(save(tmp_path, stateful()), LoadOptions(data_shapes=data))
    assert [i.example for i in loaded.inputs] == [(5, 12), (2, 5, 3), ()]
    assert any("as in the data: batch = 5, x_1 = 12, state_1 = 5" in n for n in loaded.notes)
    said = (InputShape((30,), "x"),)
    loaded = load(save(tmp_path, stateful()), LoadOptions(input_shapes=said, data_shapes=data))
    assert [i.example for i in loaded.inputs] == [(5, 30), (2, 5, 3), ()]


def test_the_command_takes_sizes_from_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No positive number to try: only the data can say what runs."""
    path, data = save(tmp_path, stateful(rate=-1)), tmp_path / "data.npz"
    np.savez(data, x=floats(5, 12), state=floats(2, 5, 3), rate=np.array(-1))
    words = ["fold", str(path), "--data", str(data), "--input-value", "rate=-1"]
    assert cli.main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "sizes of examples as in the data: batch = 5, x_1 = 12, state_1 = 5" in said
    assert "your data, 5 rows" in said


def test_a_batch_that_varies_is_not_that_of_the_data(tmp_path: Path) -> None:
    path = save(tmp_path, conv_bn(["n", 3, "h", "w"]))
    for data in ({"image": (7, 3, 20, 24)}, {"": (7, 3, 20, 24)}):
        assert load(path, LoadOptions(data_shapes=data)).inputs[0].example == (1, 3, 20, 24)
    loaded = load(path, LoadOptions(data_shapes={"image": (7, 3), "other": (1,)}))
    assert loaded.inputs[0].example == (1, 3, 224, 224)


def test_the_advice_on_a_state_can_be_followed(tmp_path: Path) -> None:
    path = save(tmp_path, stateful(rate=-1))  # no positive number to try
    with pytest.raises(UserError, match="unknown size") as raised:
        load(path)
    options = re.findall(r"--input-shape '?([^' ;]+)", raised.value.hint)
    assert options == ["x=16", "state=(2,1,3)"]
    shapes = tuple(map(parse_input_shape, options))
    assert load(path, LoadOptions(input_shapes=shapes)).inputs[1].example == (2, 1, 3)
    batched = (shapes[0], InputShape((2, 1, 3), "state"))
    with pytest.raises(UserError) as raised:
        load(path, LoadOptions(input_shapes=batched))
    assert raised.value.hint.endswith("--input-shape 'state=(2,1,3)'")


def test_indices_know_their_table(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["tokens"], ["t"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "t"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("tokens", TensorProto.INT32, ["n", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(floats(11, 4), "table")],
    )
    loaded = load(save(tmp_path, helper.make_model(graph, opset_imports=OPSET, ir_version=10)))
    assert loaded.inputs[0].upper == 11
    assert loaded.inputs[0].dtype == "int32"
    assert loaded.inputs[0].example == (1, 16)


# --- old files --------------------------------------------------------------------------------


def test_before_ir_4_initializers_are_constants(tmp_path: Path) -> None:
    path = save(tmp_path, conv_bn(["n", 3, 8, 8], ir_version=3, weights_are_inputs=True))
    loaded = load(path)
    assert [v.name for v in loaded.model.graph.inputs] == ["image"]
    assert [i.name for i in loaded.inputs] == ["image"]
    assert loaded.model.ir_version is not None
    assert loaded.model.ir_version >= 8
    same_as_file(loaded, path, 2, 3, 8, 8)


def test_since_ir_4_they_are_default_values(tmp_path: Path) -> None:
    loaded = load(save(tmp_path, conv_bn(["n", 3, 8, 8], ir_version=8, weights_are_inputs=True)))
    assert len(loaded.model.graph.inputs) == 6
    assert [i.name for i in loaded.inputs] == ["image"]
    assert loaded.dynamic_batch


# --- weights in files beside the model --------------------------------------------------------


def external(tmp_path: Path, location: str, length: int = 4 * 108) -> Path:
    """The model with `w` said to lie in `location`."""
    model = conv_bn(["n", 3, 8, 8])
    tensor = model.graph.initializer[0]
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return save(tmp_path, model)


def test_weights_beside_the_model_stay_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir as ir

    path = external(tmp_path, "weights.bin")
    loaded = load(path)
    assert isinstance(loaded.model.graph.initializers["w"].const_value, ir.LazyTensor)
    same_as_file(loaded, path, 2, 3, 8, 8)
    monkeypatch.chdir(tmp_path)  # a path without a folder
    weights = load("model.onnx").model.graph.initializers["w"].const_value
    assert weights is not None
    assert weights.numpy().shape == (4, 3, 3, 3)


def test_weights_in_a_folder_below(tmp_path: Path) -> None:
    path = external(tmp_path, "parts/weights.bin")
    (tmp_path / "parts").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "parts" / "weights.bin")
    same_as_file(load(path), path, 1, 3, 8, 8)


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "/etc/passwd",
        "parts/../../secret.bin",
        "..\\secret.bin",
        "C:\\secret.bin",
        "\\\\host\\share",
        "",
        " ",
    ],
)
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 108))
    with pytest.raises(UserError, match=r"outside its folder|not there|damaged"):
        load(external(folder, location))


@pytest.mark.parametrize("through", ["file", "folder"])
def test_links_that_leave_the_folder_are_refused(tmp_path: Path, through: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "elsewhere" / "weights.bin"
    secret.parent.mkdir()
    secret.write_bytes(bytes(4 * 108))
    path = external(folder, "link.bin" if through == "file" else "link/weights.bin")
    if through == "file":
        (folder / "link.bin").symlink_to(secret)
    else:
        (folder / "link").symlink_to(secret.parent)
    with pytest.raises(UserError, match="is a link to"):
        load(path)


def test_a_link_inside_the_folder_is_fine(tmp_path: Path) -> None:
    path = external(tmp_path, "link.bin")
    (tmp_path / "link.bin").symlink_to("weights.bin")
    assert load(path).inputs


def test_a_model_reached_through_a_link(tmp_path: Path) -> None:
    """As in the cache of the Hugging Face hub: the link's own folder holds nothing else."""
    real = tmp_path / "real"
    real.mkdir()
    external(real, "weights.bin")
    (tmp_path / "alias").symlink_to(real)
    assert load(tmp_path / "alias" / "model.onnx").inputs


def hub_cache(tmp_path: Path, location: str = "weights.bin") -> Path:
    """A model with its weights beside it in Hugging Face's cache: links into a folder of blobs."""
    plain = tmp_path / "plain"
    plain.mkdir()
    external(plain, location)
    repository = tmp_path / "hub" / "models--someone--net"
    snapshot = repository / "snapshots" / "0f1e2d" / "onnx"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in plain.iterdir():
        (repository / "blobs" / f"blob-{file.stem}{file.suffix}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../../blobs/blob-{file.stem}{file.suffix}")
    return snapshot / "model.onnx"


@pytest.mark.parametrize("relative", [False, True])
def test_links_of_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    """What is named lies next to the link: in the folder of blobs nothing has that name."""
    path = hub_cache(tmp_path)
    if relative:
        monkeypatch.chdir(path.parent)
        path = Path("model.onnx")
    same_as_file(load(path), tmp_path / "plain" / "model.onnx", 2, 3, 8, 8)


@pytest.mark.parametrize("attack", ["a blob that links", "another folder", "blobs that link"])
def test_links_that_leave_the_hubs_cache(tmp_path: Path, attack: str) -> None:
    path = hub_cache(tmp_path)
    data = path.with_name("weights.bin")
    blob = data.resolve()
    secret = tmp_path / "secret"
    secret.mkdir()
    if attack == "a blob that links":
        blob.rename(secret / "weights")
        blob.symlink_to(secret / "weights")
    elif attack == "another folder":
        other = blob.parent.parent / "refs"
        other.mkdir()
        blob.rename(other / "weights")
        data.unlink()
        data.symlink_to(other / "weights")
    else:
        blob.parent.rename(secret / "blobs")
        blob.parent.symlink_to(secret / "blobs")
    with pytest.raises(UserError, match="outside its folder"):
        load(path)


def test_a_location_that_leaves_the_hubs_snapshot(tmp_path: Path) -> None:
    """The links may lead to the blobs; the model file itself may not name them."""
    path = hub_cache(tmp_path)
    blob = path.resolve()
    content = onnx.load(blob, load_external_data=False)
    for tensor in content.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../../blobs/blob-weights.bin"
    blob.write_bytes(content.SerializeToString())
    with pytest.raises(UserError, match="outside its folder"):
        load(path)


def test_missing_weights(tmp_path: Path) -> None:
    path = external(tmp_path, "weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(UserError, match=r"keeps its weights in 'weights\.bin', which is not there"):
        load(path)


def test_weights_that_were_cut_off(tmp_path: Path) -> None:
    path = external(tmp_path, "weights.bin")
    os.truncate(tmp_path / "weights.bin", 100)
    with pytest.raises(UserError, match=r"'weights\.bin' end before 'w'"):
        load(path)


def test_weights_that_claim_another_length(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="end before 'w'"):
        load(external(tmp_path, "weights.bin", length=10**12))


def test_weights_hidden_in_a_subgraph(tmp_path: Path) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret.bin"
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["o"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [4])],
    )
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
        "g",
        [condition],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
    )
    with pytest.raises(UserError, match="outside its folder"):
        load(save(tmp_path, helper.make_model(graph, ir_version=10)))


# --- the rest ---------------------------------------------------------------------------------


def test_functions_are_inlined(tmp_path: Path) -> None:
    opset = [helper.make_opsetid("", 17)]
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opset
    )
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="local")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(
        graph,
        functions=[twice],
        opset_imports=[*opset, helper.make_opsetid("local", 1)],
        ir_version=10,
    )
    path = save(tmp_path, model)
    loaded = load(path)
    assert [node.op_type for node in loaded.model.graph] == ["Add"]
    assert loaded.notes == ["1 model-local functions were inlined"]
    same_as_file(loaded, path, 2, 3)


@pytest.mark.parametrize(
    "info",
    [
        helper.make_tensor_value_info("text", TensorProto.STRING, ["n"]),
        helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, ["n"]),
    ],
)
def test_inputs_that_are_no_tensors_of_numbers(tmp_path: Path, info: onnx.ValueInfoProto) -> None:
    graph = helper.make_graph([helper.make_node("Identity", [info.name], ["y"])], "g", [info], [])
    graph.output.append(onnx.ValueInfoProto(name="y", type=info.type))
    with pytest.raises(UserError, match=f"input '{info.name}' is not a tensor of numbers"):
        load(save(tmp_path, helper.make_model(graph, ir_version=10)))


def test_a_model_without_inputs(tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["y"], value_float=1.0)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    with pytest.raises(UserError, match="has no input"):
        load(save(tmp_path, helper.make_model(helper.make_graph([node], "g", [], [output]))))


def test_a_zero_bias_of_a_wrong_shape_is_dropped(tmp_path: Path) -> None:
    """As torch's exporter writes it without optimizing; onnxruntime refuses to run that."""
    nodes = [
        helper.make_node("Shape", ["w"], ["channels"], start=0, end=1),
        helper.make_node("Constant", [], ["two"], value_ints=[2]),
        helper.make_node("Concat", ["channels", "two"], ["sizes"], axis=0),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("CastLike", ["zero", "x"], ["cast"]),
        helper.make_node("Expand", ["cast", "sizes"], ["bias"]),
        helper.make_node("Conv", ["x", "w", "bias"], ["y"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 3, 3, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(floats(4, 2, 1, 1, 1), "w")],
        ),
        opset_imports=OPSET,
        ir_version=10,
    )
    onnx.save(model, tmp_path / "model.onnx")
    loaded = load(tmp_path / "model.onnx")
    (conv,) = [node for node in loaded.model.graph if node.op_type == "Conv"]
    assert len(conv.inputs) == 2
    assert "zero biases of a wrong shape dropped: 1." in loaded.notes[0]
