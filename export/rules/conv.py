"""Gradient of Conv: a transposed convolution for its input, products for its weight."""

from typing import Any

import onnx

from edgekit.export.graph import BATCH, Graph


def conv(graph: Graph, node: onnx.NodeProto, a: dict[str, Any], g: str, needed: list[bool]) -> list[str | None]:
    x, w = node.input[:2]
    grads: list[str | None] = [None] * len(node.input)
    if needed[0]:
        (_, _, h, width), (_, _, ho, wo) = graph.shape(x), graph.shape(g)
        (kh, kw), (sh, sw), (dh, dw), pads = a["kernel_shape"], a["strides"], a["dilations"], a["pads"]
        # The rows and columns at the far edge that no window covers get a zero gradient.
        rest = [
            h + pads[0] + pads[2] - ((ho - 1) * sh + (kh - 1) * dh + 1),
            width + pads[1] + pads[3] - ((wo - 1) * sw + (kw - 1) * dw + 1),
        ]
        grads[0] = graph.op("ConvTranspose", [g, w], graph.shape(x), output_padding=rest, **a)
    if needed[1]:
        grads[1] = _conv_weight(graph, x, w, a, g)
    if len(needed) > 2 and needed[2]:
        grads[2] = graph.op("ReduceSum", [g, graph.ints(0, 2, 3)], graph.shape(node.input[2]), keepdims=0)
    return grads


def _conv_weight(graph: Graph, x: str, w: str, a: dict[str, Any], g: str) -> str:
    """dW, in a form of its own for grouped layers, for those with few columns, and for the rest."""
    (_, c, h, width), (_, o, ho, wo), shape = graph.shape(x), graph.shape(g), graph.shape(w)
    (kh, kw), (sh, sw), (dh, dw), pads, group = (
        a["kernel_shape"], a["strides"], a["dilations"], a["pads"], a["group"],
    )  # fmt: skip
    if group > 1:
        return _grouped_conv_weight(graph, x, w, a, g)
    if any(pads):
        h, width = h + pads[0] + pads[2], width + pads[1] + pads[3]
        x = graph.op("Pad", [x, graph.ints(0, 0, *pads[:2], 0, 0, *pads[2:])], (BATCH, c, h, width))
    # Few columns: one product per image (no transpose of the batch); many: one product per tap over the whole batch.
    per_image = c * kh * kw <= 64 or kh * kw == 1
    if per_image:
        left = graph.op("Reshape", [g, graph.ints(0, o, -1)], (BATCH, o, ho * wo))
    else:
        x = graph.op("Transpose", [x], (c, BATCH, h, width), perm=[1, 0, 2, 3])
        left = graph.op("Transpose", [g], (o, BATCH, ho, wo), perm=[1, 0, 2, 3])
        left = graph.op("Reshape", [left, graph.ints(o, -1)], (o, BATCH))
    taps = []
    for i in range(kh):
        for j in range(kw):
            starts = (i * dh, j * dw)
            ends = (i * dh + (ho - 1) * sh + 1, j * dw + (wo - 1) * sw + 1)
            tap = x
            if (h, width) != (ho, wo):
                window = [x, graph.ints(*starts), graph.ints(*ends), graph.ints(2, 3), graph.ints(sh, sw)]
                tap = graph.op("Slice", window, (*graph.shape(x)[:2], ho, wo))
            if per_image:
                taps.append(graph.op("Reshape", [tap, graph.ints(0, c, -1)], (BATCH, c, ho * wo)))
            else:
                right = graph.op("Reshape", [tap, graph.ints(c, -1)], (c, BATCH))
                taps.append(graph.op("Gemm", [left, right], (o, c), transB=1))
    if per_image:
        columns = graph.op("Concat", taps, (BATCH, kh * kw * c, ho * wo), axis=1) if len(taps) > 1 else taps[0]
        columns = graph.op("Transpose", [columns], (BATCH, ho * wo, kh * kw * c), perm=[0, 2, 1])
        products = graph.op("MatMul", [left, columns], (BATCH, o, kh * kw * c))
        total = graph.op("ReduceSum", [products, graph.ints(0)], (o, kh * kw * c), keepdims=0)
        stacked = graph.op("Reshape", [total, graph.ints(o, kh * kw, c)], (o, kh * kw, c))
        turned = graph.op("Transpose", [stacked], (o, c, kh * kw), perm=[0, 2, 1])
    else:
        stacked = graph.op("Concat", taps, (kh * kw * o, c), axis=0)
        stacked = graph.op("Reshape", [stacked, graph.ints(kh * kw, o, c)], (kh * kw, o, c))
        turned = graph.op("Transpose", [stacked], (o, c, kh * kw), perm=[1, 2, 0])
    return graph.op("Reshape", [turned, graph.ints(*shape)], shape)


def _grouped_conv_weight(graph: Graph, x: str, w: str, a: dict[str, Any], g: str) -> str:
    """dW of a grouped convolution as one convolution of x by g: batch and channels swap roles, stride and dilation too.

    Once per input channel of a group: image (1, group*n, H, W), kernels (O, n, ho, wo).
    """
    (_, c, h, width), (_, o, ho, wo), (_, per_group, kh, kw) = graph.shape(x), graph.shape(g), graph.shape(w)
    (sh, sw), (dh, dw), pads, group = a["strides"], a["dilations"], a["pads"], a["group"]
    # Rows that no window covers would give extra taps at the end: cut them off.
    edges = [
        *pads[:2],
        (ho - 1) * sh + (kh - 1) * dh + 1 - h - pads[0],
        (wo - 1) * sw + (kw - 1) * dw + 1 - width - pads[1],
    ]
    if min(edges) < 0:
        h, width = h + min(edges[2], 0), width + min(edges[3], 0)
        window = [x, graph.ints(0, 0), graph.ints(h, width), graph.ints(2, 3)]
        x, edges = graph.op("Slice", window, (BATCH, c, h, width)), [max(edge, 0) for edge in edges]
    kernels = graph.op("Transpose", [g], (o, BATCH, ho, wo), perm=[1, 0, 2, 3])
    x = graph.op("Transpose", [x], (c, BATCH, h, width), perm=[1, 0, 2, 3])
    pieces = []
    for k in range(per_group):
        part = x
        if per_group > 1:
            part = graph.op("Gather", [x, graph.ints(*range(k, c, per_group))], (group, BATCH, h, width), axis=0)
        rows = graph.op("Reshape", [part, graph.ints(1, -1, h, width)], (1, BATCH, h, width))
        tap = graph.op(
            "Conv", [rows, kernels], (1, o, kh, kw),
            kernel_shape=[ho, wo], strides=[dh, dw], dilations=[sh, sw], pads=edges, group=group,
        )  # fmt: skip
        pieces.append(graph.op("Reshape", [tap, graph.ints(o, 1, kh, kw)], (o, 1, kh, kw)))
    return graph.op("Concat", pieces, graph.shape(w), axis=1) if per_group > 1 else pieces[0]
