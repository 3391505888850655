"""Gradient rules of Conv and ConvTranspose.

The gradient of the input is the other one of the two operators. That of the kernels is made of products of matrices.
"""

import numpy as np

from edgekit.export.gradients.step import Step
from edgekit.export.gradients.window import Window, moved, pad, window_of
from edgekit.export.graph import BATCH, Graph, Shape


def conv(step: Step) -> list[str | None]:
    graph, kernels, g = step.graph, step.shape(1), step.g
    window, group = window_of(step, kernels[2:]), step.attributes.get("group", 1)
    dx = dw = None
    if step.needed[0]:
        dx = _image_gradient(step, window, group)
    if step.needed[1]:
        dw = kernel_gradient(graph, step.x, g, kernels, window, group)
    return [dx, dw, *_bias(step)]


def _image_gradient(step: Step, window: Window, group: int) -> str:
    """By ConvTranspose; for kernels of one element by Conv, which has nothing to scatter then."""
    graph, g, kernels = step.graph, step.g, step.node.input[1]
    (o, c, _, _), shape = step.shape(1), step.shape(0)
    # The rows and columns at the far edge that no window covers get a zero gradient.
    rest = window.rest(shape, graph.shape(g))
    if group > 1 or window != Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0)):
        return graph.op(
            "ConvTranspose", [g, kernels], shape, **window.attributes(), output_padding=list(rest), group=group
        )
    turned = graph.op("Transpose", [kernels], (c, o, 1, 1), perm=[1, 0, 2, 3])
    return graph.op("Conv", [g, turned], shape, **window.attributes(), group=1)


def conv_transpose(step: Step) -> list[str | None]:
    graph, kernels, g = step.graph, step.shape(1), step.g
    window, group = window_of(step, kernels[2:]), step.attributes.get("group", 1)
    rest = window.rest(graph.shape(g), step.shape(0))
    if any(more >= stride for more, stride in zip(rest, window.strides, strict=True)):
        raise step.refuse(f"has output_padding {list(rest)}, which must be less than the strides: write a Pad after it")
    dx = dw = None
    if step.needed[0]:
        dx = graph.op("Conv", [g, step.node.input[1]], step.shape(0), **window.attributes(), group=group)
    if step.needed[1]:
        # That of the Conv in the opposite direction, with image and gradient exchanged.
        dw = kernel_gradient(graph, g, step.x, kernels, window, group)
    return [dx, dw, *_bias(step)]


def _bias(step: Step) -> list[str]:
    if len(step.needed) < 3 or not step.needed[2]:
        return []
    return [step.graph.with_axes("ReduceSum", step.g, step.shape(2), (0, 2, 3), keepdims=0)]


def kernel_gradient(graph: Graph, x: str, g: str, shape: Shape, window: Window, group: int) -> str:
    """d loss / d kernels, of `shape` (O,C/group,kh,kw), of a Conv of `x` (n,C,H,W) whose output has gradient `g`."""
    per_group, taps = shape[1], shape[2] * shape[3]
    if group > 1 and per_group == 1:
        return _depthwise(graph, x, g, shape, window)
    _, o, ho, wo = graph.shape(g)
    # Few channels: one product per image (no transpose of the batch); many: one product per tap over the whole batch.
    few = per_group <= 8 or (taps == 1 and o * per_group <= ho * wo * (o + per_group))
    if group == 1 and few:
        return _per_image(graph, pad(graph, x, window), g, shape, window)
    # Products of few rows are slow in ONNX Runtime: where there are few filters, rows of the kernel go together.
    in_sight = all(-ho < shift < window.strips(graph.shape(x)) for shift, _ in window.rows())
    if group == 1 and taps > 1 and min(o, per_group) >= 48 and o < 128 and in_sight:
        return _per_column(graph, x, g, shape, window)
    return _per_tap(graph, pad(graph, x, window), g, shape, window, group)


def _per_image(graph: Graph, x: str, g: str, shape: Shape, window: Window) -> str:
    """The kernels' gradient by one product of matrices per image, summed over the batch."""
    (_, o, ho, wo), (_, c, kh, kw) = graph.shape(g), shape
    left = graph.op("Reshape", [g, graph.ints(-1, o, ho * wo)], (BATCH, o, ho * wo))
    taps = [
        graph.op("Reshape", [window.tap(graph, x, (ho, wo), i, j), graph.ints(-1, c, ho * wo)], (BATCH, c, ho * wo))
        for i in range(kh)
        for j in range(kw)
    ]
    columns = graph.op("Concat", taps, (BATCH, kh * kw * c, ho * wo), axis=1) if len(taps) > 1 else taps[0]
    columns = graph.op("Transpose", [columns], (BATCH, ho * wo, kh * kw * c), perm=[0, 2, 1])
    products = graph.op("MatMul", [left, columns], (BATCH, o, kh * kw * c))
    total = graph.with_axes("ReduceSum", products, (o, kh * kw * c), (0,), keepdims=0)
    stacked = graph.op("Reshape", [total, graph.ints(o, kh * kw, c)], (o, kh * kw, c))
    turned = graph.op("Transpose", [stacked], (o, c, kh * kw), perm=[0, 2, 1])
    return graph.op("Reshape", [turned, graph.ints(*shape)], shape)


def _per_tap(graph: Graph, x: str, g: str, shape: Shape, window: Window, group: int) -> str:
    """The kernels' gradient by one product of matrices per element (tap) of the kernel, over the whole batch."""
    (_, o, ho, wo), (_, per_group, kh, kw) = graph.shape(g), shape
    x, left = _channels_first(graph, x), _channels_first(graph, g)
    rows, columns = ((o,), (per_group,)) if group == 1 else ((group, o // group), (group, per_group))
    left = graph.op("Reshape", [left, graph.ints(*rows, -1)], (*rows, BATCH))
    taps = []
    for i in range(kh):
        for j in range(kw):
            tap = window.tap(graph, x, (ho, wo), i, j)
            right = graph.op("Reshape", [tap, graph.ints(*columns, -1)], (*columns, BATCH))
            if group == 1:
                taps.append(graph.op("Gemm", [left, right], (o, per_group), transB=1))
            else:
                right = graph.op("Transpose", [right], (group, BATCH, per_group), perm=[0, 2, 1])
                taps.append(graph.op("MatMul", [left, right], (*rows, per_group)))
    stacked = graph.op("Concat", taps, (kh * kw * rows[0], *rows[1:], per_group), axis=0) if len(taps) > 1 else taps[0]
    stacked = graph.op("Reshape", [stacked, graph.ints(kh * kw, o, per_group)], (kh * kw, o, per_group))
    turned = graph.op("Transpose", [stacked], (o, per_group, kh * kw), perm=[1, 2, 0])
    return graph.op("Reshape", [turned, graph.ints(*shape)], shape)


def _per_column(graph: Graph, x: str, g: str, shape: Shape, window: Window) -> str:
    """The kernels' gradient by one product of matrices per column of the kernel, over the whole batch.

    Rows of the kernel are g moved by rows and stacked.
    """
    (_, c, h, w), (_, o, _, wo), (_, _, kh, kw) = graph.shape(x), graph.shape(g), shape
    (stride, across), high, left = window.strides, window.strips((h, w)), window.pads[1]
    # The last column that the last window sees.
    end = (kw - 1) * window.dilations[1] + (wo - 1) * across + 1
    wide = left + max(w, end - left)
    x, g = _channels_first(graph, x), _channels_first(graph, g)
    if (high * stride, wide) != (h, w):
        edges = graph.ints(0, 0, 0, left, 0, 0, high * stride - h, wide - left - w)
        x = graph.op("Pad", [x, edges], (c, BATCH, high * stride, wide))
    products, order = [], []
    for part in sorted({part for _, part in window.rows()}):
        rows = [(i, shift) for i, (shift, own) in enumerate(window.rows()) if own == part]
        stack = [moved(graph, g, shift, high) for _, shift in rows]
        tall = graph.op("Concat", stack, (len(rows) * o, BATCH, high, wo), axis=0) if len(rows) > 1 else stack[0]
        tall = graph.op("Reshape", [tall, graph.ints(len(rows) * o, -1)], (len(rows) * o, BATCH))
        for j in range(kw):
            column = j * window.dilations[1]
            starts, ends = (part, column), (part + (high - 1) * stride + 1, column + (wo - 1) * across + 1)
            bounds = [graph.ints(*starts), graph.ints(*ends), graph.ints(2, 3), graph.ints(stride, across)]
            seen = graph.op("Slice", [x, *bounds], (c, BATCH, high, wo))
            seen = graph.op("Reshape", [seen, graph.ints(c, -1)], (c, BATCH))
            products.append(graph.op("Gemm", [tall, seen], (len(rows) * o, c), transB=1))
            order += [i * kw + j for i, _ in rows]
    taps = graph.op("Concat", products, (kh * kw * o, c), axis=0)
    taps = graph.op("Reshape", [taps, graph.ints(kh * kw, o, c)], (kh * kw, o, c))
    taps = graph.op("Gather", [taps, graph.ints(*np.argsort(order).tolist())], (kh * kw, o, c), axis=0)
    taps = graph.op("Transpose", [taps], (o, c, kh * kw), perm=[1, 2, 0])
    return graph.op("Reshape", [taps, graph.ints(*shape)], shape)


def _depthwise(graph: Graph, x: str, g: str, shape: Shape, window: Window) -> str:
    """The kernels' gradient by one product of matrices per channel and shift of rows.

    The product of the columns of g (rows,wo) and those of x (rows,w), over the rows of all images, holds each tap as
    the sum of a diagonal. As many rows of x as the stride, side by side, count as one.
    """
    (_, c, h, w), (_, o, ho, wo), (_, _, kh, kw) = graph.shape(x), graph.shape(g), shape
    stride, times, high = window.strides[0], o // c, window.strips((h, w))
    if high * stride > h:
        x = graph.op("Pad", [x, graph.ints(0, 0, 0, 0, 0, 0, high * stride - h, 0)], (BATCH, c, high * stride, w))
    x, g = _channels_first(graph, x), _channels_first(graph, g)
    right = graph.op("Reshape", [x, graph.ints(c, 1, -1, stride * w)], (c, 1, BATCH, stride * w))
    # Shift of rows -> 1 where a tap is, in (wo, stride, w, kh, kw).
    places: dict[int, np.ndarray] = {}
    for i, (shift, part) in enumerate(window.rows()):
        seen = -ho < shift < high  # else only padding
        at = places.setdefault(shift if seen else 0, np.zeros((wo, stride, w, kh, kw), dtype=np.float32))
        for j in range(kw):
            columns = np.arange(wo) * window.strides[1] + j * window.dilations[1] - window.pads[1]
            inside = seen & (columns >= 0) & (columns < w)
            at[np.flatnonzero(inside), part, columns[inside], i, j] = 1
    total = ""
    for shift, at in places.items():
        left = graph.op("Reshape", [moved(graph, g, shift, high), graph.ints(c, times, -1, wo)], (c, times, BATCH, wo))
        left = graph.op("Transpose", [left], (c, times, wo, BATCH), perm=[0, 1, 3, 2])
        product = graph.op("MatMul", [left, right], (c, times, wo, stride * w))
        product = graph.op("Reshape", [product, graph.ints(o, wo * stride * w)], (o, wo * stride * w))
        taps = graph.op("MatMul", [product, graph.constant(at.reshape(-1, kh * kw))], (o, kh * kw))
        total = graph.op("Add", [total, taps], (o, kh * kw)) if total else taps
    return graph.op("Reshape", [total, graph.ints(*shape)], shape)


def _channels_first(graph: Graph, x: str) -> str:
    n, c, h, w = graph.shape(x)
    return graph.op("Transpose", [x], (c, n, h, w), perm=[1, 0, 2, 3])
