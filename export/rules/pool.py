"""Gradient of MaxPool."""

from typing import Any

import numpy as np
import onnx

from edgekit.export.graph import BATCH, Graph


def max_pool(graph: Graph, node: onnx.NodeProto, a: dict[str, Any], g: str, needed: list[bool]) -> list[str | None]:
    """The first largest element of a window takes the gradient, as in PyTorch."""
    x, y = node.input[0], node.output[0]
    shape = graph.shape(x)
    kernel, strides, pads = list(a["kernel_shape"]), list(a["strides"]), list(a["pads"])
    size = graph.op("Shape", [x], (4,), dtypes=["int64"])
    (_, c, ho, wo) = graph.shape(y)
    if kernel == strides and not any(pads):
        where = f"{y}.indices"
        if len(node.output) == 1:
            node.output.append(where)
            graph.specs[where] = graph.specs[y]._replace(name=where, dtype="int64")
        return [graph.op("MaxUnpool", [g, node.output[1], size], shape, kernel_shape=kernel, strides=strides)]
    # Overlapping windows: per tap, what it won, then a transposed convolution with one-hot kernels adds them up.
    (kh, kw), (_, _, h, width) = kernel, shape
    far = [(ho - 1) * strides[0] + kh - h - pads[0], (wo - 1) * strides[1] + kw - width - pads[1]]
    edges = graph.ints(0, 0, pads[0], pads[1], 0, 0, far[0], far[1])
    low = graph.constant(np.array(-np.inf, dtype=np.float32))
    padded_size = (h + pads[0] + far[0], width + pads[1] + far[1])
    padded = graph.op("Pad", [x, edges, low], (BATCH, c, *padded_size))
    zero, taken, won = graph.constant(np.array(0.0, dtype=np.float32)), None, []
    for i in range(kh):
        for j in range(kw):
            ends = graph.ints(i + (ho - 1) * strides[0] + 1, j + (wo - 1) * strides[1] + 1)
            window = [padded, graph.ints(i, j), ends, graph.ints(2, 3), graph.ints(*strides)]
            hit = graph.op("Equal", [graph.op("Slice", window, graph.shape(y)), y], graph.shape(y), dtypes=["bool"])
            if taken:
                free = graph.op("Not", [taken], graph.shape(y), dtypes=["bool"])
                first = graph.op("And", [hit, free], graph.shape(y), dtypes=["bool"])
                taken = graph.op("Or", [taken, hit], graph.shape(y), dtypes=["bool"])
            else:
                taken = first = hit
            won.append(graph.op("Where", [first, g, zero], graph.shape(y)))
    n = kh * kw
    stacked = graph.op("Concat", [graph.op("Unsqueeze", [t, graph.ints(2)], (BATCH, c, 1, ho, wo)) for t in won],
                       (BATCH, c, n, ho, wo), axis=2)  # fmt: skip
    flat = graph.op("Reshape", [stacked, graph.ints(0, c * n, ho, wo)], (BATCH, c * n, ho, wo))
    one_hot = graph.constant(np.tile(np.eye(n, dtype=np.float32).reshape(n, 1, kh, kw), (c, 1, 1, 1)))
    spread = graph.op("ConvTranspose", [flat, one_hot], (BATCH, c, *padded_size), strides=strides, group=c)
    inside = [graph.ints(*pads[:2]), graph.ints(pads[0] + h, pads[1] + width), graph.ints(2, 3)]
    return [graph.op("Slice", [spread, *inside], shape)]
