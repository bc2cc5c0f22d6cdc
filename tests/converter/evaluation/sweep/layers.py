"""Cases: products, normalisations, recurrent nets, attention, signals, integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.converter.evaluation.sweep.net import Case, Net, one


def matmul(net: Net) -> None:
    k = net.size()
    a, b = net.pick(
        ([2, k], [k, 3]),
        ([4, 2, k], [k, 3]),
        ([2, 1, 2, k], [3, k, 2]),
        ([k], [k, 3]),
        ([2, k], [k]),
    )
    net.out(net.op("MatMul", net.normal(*a), net.normal(*b)))


def gemm(net: Net) -> None:
    flip = net.pick(0, 1), net.pick(0, 1)
    a, b = (
        net.normal(*((3, 2) if flip[0] else (2, 3))),
        net.normal(*((4, 3) if flip[1] else (3, 4))),
    )
    c = net.pick([], [net.normal(4)], [net.normal(2, 1)], [net.normal(2, 4)])
    net.out(net.op("Gemm", a, b, *c, transA=flip[0], transB=flip[1], alpha=0.7, beta=-1.3))


def einsum(net: Net) -> None:
    equation, shapes = net.pick(
        ("ij,jk->ik", [[2, 3], [3, 4]]), ("bhid,bhjd->bhij", [[2, 2, 3, 4], [2, 2, 5, 4]]),
        ("...ij->...ji", [[2, 3, 4]]), ("ii->i", [[3, 3]]), ("ij->", [[2, 3]]),
        ("bij,bjk", [[2, 3, 4], [2, 4, 2]]), ("i,j->ij", [[3], [2]]),
        ("b...c,cd->b...d", [[2, 3, 4], [4, 5]]),
    )  # fmt: skip
    net.out(net.op("Einsum", *(net.normal(*shape) for shape in shapes), equation=equation))


def batchnorm(net: Net) -> None:
    shape = [3, 4, *net.shape(net.size(0, 3))]
    parts = [net.normal(4), net.normal(4), net.normal(4), net.rng.uniform(0.3, 2, 4)]
    net.out(net.op("BatchNormalization", net.normal(*shape), *parts, epsilon=net.pick(1e-5, 0.1)))


def instancenorm(net: Net) -> None:
    x = net.normal(2, 4, *[net.size(2, 4) for _ in range(net.size(1, 3))])
    net.out(net.op("InstanceNormalization", x, net.normal(4), net.normal(4), epsilon=1e-2))


def layernorm(net: Net) -> None:
    x, axis = net.normal(2, 3, 4, 5), net.pick(-1, -2, 1, 3)
    part = x.shape[axis:]
    bias = net.pick([], [net.normal(*part)])
    made = net.op("LayerNormalization", x, net.normal(*part), *bias, axis=axis, outputs=3)
    net.out(*made)


def rmsnorm(net: Net) -> None:
    x, axis = net.normal(2, 3, 4, 5), net.pick(-1, -2, 1, 3)
    net.out(net.op("RMSNormalization", x, net.normal(*x.shape[axis:]), axis=axis, epsilon=1e-3))


def groupnorm(net: Net) -> None:
    groups = net.pick(1, 2, 4)
    size = groups if net.opset < 21 else 4
    x = net.normal(2, 4, 3, 5)
    more = {"num_groups": groups, "epsilon": 1e-2}
    net.out(net.op("GroupNormalization", x, net.normal(size), net.normal(size), **more))


def softmax(op: str) -> Case:
    def case(net: Net) -> None:
        net.out(net.op(op, net.normal(2, 3, 4), **net.pick({}, *({"axis": a} for a in (-1, 0, 1)))))

    return case


def recurrent(op: str) -> Case:
    gates, states = {"RNN": (1, 1), "LSTM": (4, 2), "GRU": (3, 1)}[op]

    def case(net: Net) -> None:
        time, batch, width, hidden = 5, 3, 4, 3
        direction = net.pick("forward", "reverse", "bidirectional")
        ways = 2 if direction == "bidirectional" else 1
        x = net.normal(time, batch, width)
        w, r = net.normal(ways, gates * hidden, width), net.normal(ways, gates * hidden, hidden)
        bias = net.pick("", net.normal(ways, 2 * gates * hidden))
        lengths = net.pick("", np.array([5, 2, 3], np.int32))
        first = net.pick("", net.normal(ways, batch, hidden))
        rest: list[Any] = []
        if op == "LSTM":
            rest = [net.pick("", net.normal(ways, batch, hidden)),
                    net.pick("", net.normal(ways, 3 * hidden))]  # fmt: skip
        more: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
        if op == "GRU":
            more["linear_before_reset"] = net.pick(0, 1)
        net.out(*net.op(op, x, w, r, bias, lengths, first, *rest, outputs=1 + states, **more))

    return case


def attention(net: Net) -> None:
    heads, kv = 4, net.pick(2, 4)
    flat = net.pick(True, False)
    sizes = [(heads, 3, 6), (kv, 5, 6), (kv, 5, 7)]
    parts = [net.normal(2, n, h * d) if flat else net.normal(2, h, n, d) for h, n, d in sizes]
    more: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": kv} if flat else {}
    more |= net.pick({}, {"is_causal": 1}, {"softcap": 2.0}, {"scale": 0.3})
    mask = net.pick([], [net.normal(3, 5)], [net.rng.random((2, 1, 3, 5)) < 0.8])
    if mask and mask[0].dtype == np.bool_:
        mask[0][..., 0] = True
    if mask:
        more.pop("is_causal", None)
    net.out(net.op("Attention", *parts, *mask, **more))


def rotary(net: Net) -> None:
    flat = net.pick(True, False)
    x = net.normal(2, 3, 4 * 6) if flat else net.normal(2, 4, 3, 6)
    more: dict[str, Any] = {"num_heads": 4} if flat else {}
    more["interleaved"] = net.pick(0, 1)
    if net.pick(True, False):
        tables = [net.normal(10, 3), net.normal(10, 3), net.rng.integers(0, 10, (2, 3))]
    else:
        tables = [net.normal(2, 3, 3), net.normal(2, 3, 3)]
    net.out(net.op("RotaryEmbedding", x, *tables, **more))


def lp_normalization(net: Net) -> None:
    net.out(net.op("LpNormalization", net.normal(*net.shape(3)), axis=net.pick(-1, 0, 1),
                   p=net.pick(1, 2)))  # fmt: skip


def lrn(net: Net) -> None:
    net.out(net.op("LRN", net.normal(2, 5, 3, 3), size=net.pick(1, 3, 5), alpha=0.3, beta=0.6))


def dft(net: Net) -> None:
    real = net.pick(True, False)
    x = net.normal(2, 8, 1 if real else 2)
    flags = {"onesided": net.pick(0, 1) if real else 0, "inverse": 0 if real else net.pick(0, 1)}
    if net.opset >= 20:
        net.out(net.op("DFT", x, "", np.array(1, np.int64), **flags))
    else:
        net.out(net.op("DFT", x, axis=1, **flags))


def stft(net: Net) -> None:
    """Sometimes shorter than a frame would be: one frame is the least that is drawn."""
    length = net.pick(8, 16, 21)
    frames = [np.array(net.pick(3, 8), np.int64), net.rng.uniform(0.2, 1, 8)]
    net.out(net.op("STFT", net.normal(2, length, 1), *frames, onesided=net.pick(0, 1)))


def window(op: str) -> Case:
    return one(op, lambda net: np.array(net.size(3, 9), np.int64),
               periodic=lambda net: net.pick(None, 0, 1))  # fmt: skip


def mel(net: Net) -> None:
    sizes = (np.int64(net.size(4, 8)), np.int64(64), np.int64(8000))
    net.out(net.op("MelWeightMatrix", *sizes, np.float32(100.0), np.float32(3500.0)))


def quantize(net: Net) -> None:
    scale = np.float32(0.1)
    zero = net.pick(np.uint8(120), np.int8(3))
    net.out(net.op("QuantizeLinear", 3.0 * net.normal(*net.shape(3)), scale, zero))


def dequantize(net: Net) -> None:
    kind = net.pick(np.uint8, np.int8)
    x = net.rng.integers(0, 100, (2, 3, 4)).astype(kind)
    if net.opset >= 13 and net.pick(True, False):
        scale, zero = net.rng.uniform(0.1, 1, 3), np.array([1, 2, 3], kind)
        net.out(net.op("DequantizeLinear", x, scale, zero, axis=net.pick(1, -2)))
    else:
        net.out(net.op("DequantizeLinear", x, np.float32(0.2), kind(7)))


def dynamic_quantize(net: Net) -> None:
    net.out(*net.op("DynamicQuantizeLinear", net.normal(3, 5), outputs=3))


def integers(net: Net, *shape: int) -> Any:
    return net.rng.integers(0, 200, shape).astype(np.uint8)


def matmul_integer(net: Net) -> None:
    zeros = net.pick([], [np.uint8(12)], [np.uint8(12), np.uint8(30)])
    net.out(net.op("MatMulInteger", integers(net, 2, 3), integers(net, 3, 4), *zeros))


def conv_integer(net: Net) -> None:
    zeros = net.pick([], [np.uint8(12)], [np.uint8(12), np.uint8(30)])
    x, w = integers(net, 1, 2, 5, 5), integers(net, 3, 2, 3, 3)
    net.out(net.op("ConvInteger", x, w, *zeros, pads=net.pick([0] * 4, [1] * 4)))


def qlinear_matmul(net: Net) -> None:
    part = [np.float32(0.1), np.uint8(100)]
    net.out(
        net.op("QLinearMatMul", integers(net, 2, 3), *part, integers(net, 3, 4), *part,
               np.float32(5.0), np.uint8(90))
    )  # fmt: skip


def qlinear_conv(net: Net) -> None:
    part = [np.float32(0.1), np.uint8(100)]
    x, w = integers(net, 1, 2, 5, 5), integers(net, 3, 2, 3, 3)
    net.out(
        net.op("QLinearConv", x, *part, w, *part, np.float32(5.0), np.uint8(90), pads=[1, 0, 1, 1])
    )


def loss(op: str) -> Case:
    def case(net: Net) -> None:
        shape = [3, 4, *net.shape(net.size(0, 2))]
        target = net.rng.integers(0, 4, (shape[0], *shape[2:]))
        weight = net.pick([], [net.rng.uniform(0.5, 2, 4)])
        more = {"reduction": net.pick("none", "mean", "sum"), **net.pick({}, {"ignore_index": 1})}
        net.out(net.op(op, net.normal(*shape), target, *weight, **more))

    return case


def deform_conv(net: Net) -> None:
    x, w = net.normal(1, 2, 5, 5), net.normal(3, 2, 2, 2)
    offset = 0.3 * net.normal(1, 8, 4, 4)
    net.out(net.op("DeformConv", x, w, offset, *net.pick([], [net.normal(3)])))


CASES: dict[str, Case] = {
    "Attention": attention,
    "BatchNormalization": batchnorm,
    "BlackmanWindow": window("BlackmanWindow"),
    "ConvInteger": conv_integer,
    "DFT": dft,
    "DeformConv": deform_conv,
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
    "Einsum": einsum,
    "GRU": recurrent("GRU"),
    "Gemm": gemm,
    "GroupNormalization": groupnorm,
    "HammingWindow": window("HammingWindow"),
    "HannWindow": window("HannWindow"),
    "InstanceNormalization": instancenorm,
    "LRN": lrn,
    "LSTM": recurrent("LSTM"),
    "LayerNormalization": layernorm,
    "LpNormalization": lp_normalization,
    "MatMul": matmul,
    "MatMulInteger": matmul_integer,
    "MeanVarianceNormalization": one(
        "MeanVarianceNormalization", lambda net: net.normal(2, 3, 4, 4),
        axes=lambda net: net.pick(None, [0, 2, 3], [1]),
    ),
    "MelWeightMatrix": mel,
    "NegativeLogLikelihoodLoss": loss("NegativeLogLikelihoodLoss"),
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "QuantizeLinear": quantize,
    "RMSNormalization": rmsnorm,
    "RNN": recurrent("RNN"),
    "RotaryEmbedding": rotary,
    "STFT": stft,
    "SoftmaxCrossEntropyLoss": loss("SoftmaxCrossEntropyLoss"),
    **{op: softmax(op) for op in ("Hardmax", "LogSoftmax", "Softmax")},
}  # fmt: skip
