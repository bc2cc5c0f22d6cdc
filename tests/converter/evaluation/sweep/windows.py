"""Cases: convolutions, pools, resampling, boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.converter.evaluation.sweep.net import Case, Net, one


def _window(net: Net, axes: int) -> dict[str, Any]:
    kernel = [net.size(1, 3) for _ in range(axes)]
    strides = [net.size(1, 2) for _ in range(axes)]
    pads = [net.size(0, min(1, k - 1)) for k in (*kernel, *kernel)]
    return {"kernel_shape": kernel, "strides": strides, "pads": pads}


def _map(net: Net, axes: int, channels: int = 3) -> Any:
    return net.normal(2, channels, *[net.size(5, 7) for _ in range(axes)])


def conv(net: Net) -> None:
    axes, group = net.size(1, 3), net.pick(1, 2)
    more = _window(net, axes) | {"dilations": [net.size(1, 2) for _ in range(axes)], "group": group}
    w = net.normal(4, 4 // group, *more["kernel_shape"])
    net.out(net.op("Conv", _map(net, axes, 4), w, *net.pick([], [net.normal(4)]), **more))


def conv_transpose(net: Net) -> None:
    axes, group = net.size(1, 3), net.pick(1, 2)
    more = _window(net, axes) | {"group": group}
    form = net.pick("pads", "SAME_UPPER", "SAME_LOWER", "VALID", "extra")
    if form in {"SAME_UPPER", "SAME_LOWER", "VALID"}:
        del more["pads"]
        more["auto_pad"] = form
    elif form == "extra":
        more["output_padding"] = [s - 1 for s in more["strides"]]
    w = net.normal(4, 3, *more["kernel_shape"])
    net.out(
        net.op("ConvTranspose", _map(net, axes, 4), w, *net.pick([], [net.normal(3 * group)]),
               **more)
    )  # fmt: skip


def pool(op: str) -> Case:
    def case(net: Net) -> None:
        axes = net.size(1, 3)
        more = _window(net, axes)
        if op == "MaxPool" or net.opset >= (19 if op == "AveragePool" else 18):
            more["dilations"] = [net.size(1, 2) for _ in range(axes)]
            more["ceil_mode"] = net.pick(0, 1)
        if op == "AveragePool":
            more["count_include_pad"] = net.pick(0, 1)
        if op == "LpPool":
            more["p"] = net.pick(1, 2, 3)
        x = _map(net, axes)
        if op == "MaxPool" and net.pick(True, False):
            more["storage_order"] = net.pick(0, 1)
            net.out(*net.op(op, x, outputs=2, **more))
        else:
            net.out(net.op(op, x, **more))

    return case


def _no_roi(net: Net) -> Any:
    """Before opset 13 an input of Resize cannot be left out."""
    return "" if net.opset >= 13 else np.array([], np.float32)


def resize(net: Net) -> None:
    transforms = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    if net.opset >= 19:
        transforms.append("half_pixel_symmetric")
    if net.opset < 13:
        transforms.append("tf_half_pixel_for_nn")
    mode = net.pick("nearest", "linear", "cubic")
    more: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": net.pick(*transforms)}
    if mode == "nearest":
        more["nearest_mode"] = net.pick("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    if mode == "cubic":
        more |= {"cubic_coeff_a": net.pick(-0.75, -0.5), "exclude_outside": net.pick(0, 1)}
    if net.opset >= 18 and mode != "nearest" and net.pick(True, False):
        more["antialias"] = 1
        more.pop("exclude_outside", None)
        more["coordinate_transformation_mode"] = "half_pixel"
    x = net.normal(2, 3, net.size(3, 6), net.size(3, 6))
    if net.pick(True, False):
        scales = np.array([1, 1, net.pick(0.5, 2.0, 1.5), net.pick(2.0, 1.37)], np.float32)
        net.out(net.op("Resize", x, _no_roi(net), scales, **more))
    else:
        sizes = np.array([2, 3, net.size(2, 9), net.size(2, 9)])
        if net.opset >= 18 and net.pick(True, False):
            more |= {
                "axes": [2, 3],
                "keep_aspect_ratio_policy": net.pick("stretch", "not_larger", "not_smaller"),
            }
            sizes = sizes[2:]
        none = _no_roi(net)
        net.out(net.op("Resize", x, _no_roi(net), none, sizes, **more))


def crop_and_resize(net: Net) -> None:
    roi = np.array([0, 0, 0.13, 0.21, 1, 1, 0.72, 1.13], np.float32)
    more = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 3.0}
    sizes = np.array([1, 1, 5, 4])
    mode = net.pick("nearest", "linear")
    none = _no_roi(net)
    net.out(net.op("Resize", net.normal(1, 1, 6, 7), roi, none, sizes, mode=mode, **more))


def resize_any(net: Net) -> None:
    net.pick(resize, resize, resize, crop_and_resize)(net)


def grid_sample(net: Net) -> None:
    new = net.opset >= 20
    axes = net.pick(2, 3) if new else 2
    names = ("linear", "nearest", "cubic") if new else ("bilinear", "nearest", "bicubic")
    mode = net.pick(*names[: 3 if axes == 2 else 2])
    grid = net.rng.uniform(-1.2, 1.2, (2, *[net.size(2, 4) for _ in range(axes)], axes))
    net.out(
        net.op("GridSample", _map(net, axes), grid, mode=mode, align_corners=net.pick(0, 1),
               padding_mode=net.pick("zeros", "border", "reflection"))
    )  # fmt: skip


def affine_grid(net: Net) -> None:
    axes = net.pick(2, 3)
    size = np.array([2, 3, *[net.size(2, 5) for _ in range(axes)]])
    theta = net.normal(2, axes, axes + 1)
    net.out(net.op("AffineGrid", theta, size, align_corners=net.pick(0, 1)))


def roi_align(net: Net) -> None:
    corners = net.rng.uniform(0, 6, (3, 2))
    rois = np.concatenate([corners, corners + net.rng.uniform(1, 6, (3, 2))], 1)
    more: dict[str, Any] = {
        "output_height": 2, "output_width": 3, "spatial_scale": 0.5,
        "sampling_ratio": net.pick(0, 2), "mode": net.pick("avg", "max"),
    }  # fmt: skip
    if net.opset >= 16:
        more["coordinate_transformation_mode"] = net.pick("half_pixel", "output_half_pixel")
    net.out(net.op("RoiAlign", net.normal(2, 3, 6, 7), rois, np.array([0, 1, 1]), **more))


def suppression(net: Net) -> None:
    corners = net.rng.uniform(0, 1, (2, 8, 2))
    sizes = net.rng.uniform(0.2, 0.8, (2, 8, 2))
    center = net.pick(0, 1)
    boxes = np.concatenate([corners, sizes if center else corners + sizes], -1)
    limits = [np.array([3]), np.array([0.4], np.float32), np.array([0.1], np.float32)]
    scores = net.rng.uniform(0, 1, (2, 2, 8))
    net.out(net.op("NonMaxSuppression", boxes, scores, *limits, center_point_box=center))


def unpool(net: Net) -> None:
    x = net.normal(1, 2, 2, 2)
    places = np.stack([net.rng.permutation(16)[:4] + 16 * c for c in range(2)])
    shape = {"kernel_shape": [2, 2], "strides": [2, 2]}
    net.out(net.op("MaxUnpool", x, places.reshape(1, 2, 2, 2), **shape))


def any_map(net: Net) -> Any:
    return _map(net, net.size(1, 3))


CASES: dict[str, Case] = {
    "AffineGrid": affine_grid,
    "AveragePool": pool("AveragePool"),
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "GlobalAveragePool": one("GlobalAveragePool", any_map),
    "GlobalLpPool": one("GlobalLpPool", any_map, p=lambda net: net.pick(None, 1, 2, 3)),
    "GlobalMaxPool": one("GlobalMaxPool", any_map),
    "GridSample": grid_sample,
    "LpPool": pool("LpPool"),
    "MaxPool": pool("MaxPool"),
    "MaxUnpool": unpool,
    "NonMaxSuppression": suppression,
    "Resize": resize_any,
    "RoiAlign": roi_align,
}
