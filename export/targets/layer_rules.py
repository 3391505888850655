"""Board rules about the layers of a network: convolution, pooling, linear, batch norm, clip."""

import math
from collections.abc import Sequence

import onnx

from edgekit.export.targets.board_rule import CUT, told
from edgekit.export.targets.view import View, attributes


def _explicit(node: onnx.NodeProto, *names: str) -> str | None:
    written = attributes(node)
    missing = [name for name in names if name not in written]
    if missing:
        return told(f"no {', '.join(missing)}", "every attribute written out", "write what is the default as well")
    if written.get("auto_pad", b"NOTSET") != b"NOTSET":
        return told(f"auto_pad={written['auto_pad'].decode()}", "none", "write the pads out")
    return None


def conv_explicit(view: View, node: onnx.NodeProto) -> str | None:
    return _explicit(node, "kernel_shape", "strides", "pads", "dilations", "group")


def conv_constant(view: View, node: onnx.NodeProto) -> str | None:
    computed = [name for name in node.input[1:] if name and name not in view.constants]
    if computed:
        names = " and ".join(f"'{name}'" for name in computed)
        return told(f"{names} at run time", "kernel and bias as initialisers", "store them in the graph")
    return None


def conv_ascend(view: View, node: onnx.NodeProto) -> str | None:
    unwritten = conv_explicit(view, node)
    if unwritten:
        return unwritten
    written = attributes(node)
    kernel, pads = written["kernel_shape"], written["pads"]
    beyond = (
        _above("kernel", kernel, 255)
        or _above("stride", written["strides"], 63)
        or _above("pad", pads, 255)
        or _above("dilation", written["dilations"], 255)
        or _too_wide(view, node)
    )
    if beyond:
        return beyond
    output = view.sides(node.output[0])
    if output[1] == 1 and output[0] > 1:
        return told(f"an output of {output[0]}x1", "a width above 1, or 1x1", CUT)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, written["dilations"], strict=True)]
    padded = [side + pads[i] + pads[i + 2] for i, side in enumerate(view.sides(node.input[0]))]
    if output == (1, 1) and reach != padded:
        got = f"a kernel of {reach[0]}x{reach[1]} on {padded[0]}x{padded[1]} (padded) for an output of 1x1"
        return told(got, "a kernel of the whole input", f"use larger images, {CUT}")
    return None


def conv_transpose_plain(view: View, node: onnx.NodeProto) -> str | None:
    if view.rank(node.input[0]) != 4:
        return told(f"an input of {view.rank(node.input[0])} dimensions", "4", CUT)
    dilations = attributes(node).get("dilations", [1])
    if max(dilations) > 1:
        return told(f"dilation {max(dilations)}", "1", f"choose a larger kernel, {CUT}")
    return None


def pool_plain(view: View, node: onnx.NodeProto) -> str | None:
    written = attributes(node)
    if any(node.output[1:]):
        return told("an output of indices", "none", f"pool without indices, {CUT}")
    if max(written.get("dilations", [1])) > 1:
        return told(f"dilation {max(written['dilations'])}", "1", f"pool without dilation, {CUT}")
    for name in ("storage_order", "count_include_pad"):
        if written.get(name, 0):
            return told(f"{name}=1", "0", "write a Pad before the pooling" if name == "count_include_pad" else CUT)
    return _explicit(node, "kernel_shape", "strides", "pads")


def pool_ascend(view: View, node: onnx.NodeProto) -> str | None:
    written = attributes(node)
    kernel = written.get("kernel_shape", [])
    return (
        _explicit(node, "kernel_shape", "strides")
        or _above("kernel", kernel, 255)
        or _above("stride", written["strides"], 63)
        or _too_wide(view, node)
        or _above("kernel area", [math.prod(kernel)], 256)
    )


def clip_bounds(view: View, node: onnx.NodeProto) -> str | None:
    bounds = [*node.input[1:3], "", ""]
    for what, name in zip(("minimum", "maximum"), bounds, strict=False):
        if name not in view.constants:
            return told(f"no constant {what}", "both bounds as initialisers", "store the bound in the graph")
    return None


def gemm_bias(view: View, node: onnx.NodeProto) -> str | None:
    if not any(node.input[2:]):
        return told("no bias", "one", "give the layer a bias, of zeros if need be")
    for name in ("alpha", "beta"):
        factor = attributes(node).get(name, 1.0)
        if factor != 1:
            return told(f"{name}={factor:g}", "1", "multiply it into the weights")
    return None


def no_batch_norm(view: View, node: onnx.NodeProto) -> str | None:
    return told("a batch norm", "none", "fold it into the convolution before it")


def refit_layout(view: View, node: onnx.NodeProto) -> str | None:
    """A message where a refitted weight is one that engines keep in another layout, or folded into others."""
    matrices = node.op_type == "Gemm"
    if matrices and attributes(node).get("transB", 0) == 1:
        return None
    for name in node.input[:2] if matrices else node.input:
        if name in view.replaceable:
            expected = "it in a Conv or in a Gemm with transB=1"
            return told(f"'{name}', which is refitted", expected, f"use a 1x1 convolution, {CUT}")
    return None


def _above(what: str, values: Sequence[int], most: int) -> str | None:
    largest = max(values)
    return told(f"{what} {largest}", f"at most {most}", f"choose a smaller one, {CUT}") if largest > most else None


def _too_wide(view: View, node: onnx.NodeProto) -> str | None:
    return _above("input width", [view.sides(node.input[0])[1]], 4096)
