"""Gradient rules of Conv and ConvTranspose.

The gradient of the input is the other one of the two operators. That of the kernels is made of products of matrices;
for depthwise kernels it is a Conv.
"""

from edgekit.export.gradients.step import Step
from edgekit.export.gradients.window import Window, pad, window_of
from edgekit.export.graph import BATCH, Graph, Shape


def conv(step: Step) -> list[str | None]:
    graph, kernels, g = step.graph, step.shape(1), step.g
    window, group = window_of(step, kernels[2:]), step.attributes.get("group", 1)
    dx = dw = None
    if step.needed[0]:
        # The rows and columns at the far edge that no window covers get a zero gradient.
        rest = list(window.rest(step.shape(0), graph.shape(g)))
        dx = graph.op(
            "ConvTranspose", [g, step.node.input[1]], step.shape(0),
            **window.attributes(), output_padding=rest, group=group,
        )  # fmt: skip
    if step.needed[1]:
        dw = kernel_gradient(graph, step.x, g, kernels, window, group)
    return [dx, dw, *_bias(step)]


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
    (_, o, ho, wo), x = graph.shape(g), pad(graph, x, window)
    # Few columns: one product per image (no transpose of the batch); many: one product per tap over the whole batch.
    few = per_group * taps <= 64 or (taps == 1 and o * per_group <= ho * wo * (o + per_group))
    if group == 1 and few:
        return _per_image(graph, x, g, shape, window)
    return _per_tap(graph, x, g, shape, window, group)


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


def _depthwise(graph: Graph, x: str, g: str, shape: Shape, window: Window) -> str:
    """The kernels' gradient by one convolution of x by g: batch and channels swap roles, stride and dilation too.

    Image (1,C*n,H,W), kernels (O,n,ho,wo), C groups.
    """
    (_, c, h, w), (_, o, ho, wo), (_, _, kh, kw) = graph.shape(x), graph.shape(g), shape
    rest, edges = window.rest((h, w), (ho, wo)), [*window.pads]
    # Rows that no window covers would give extra taps at the end: less padding there, or cut them off.
    edges[2], edges[3] = edges[2] - rest[0], edges[3] - rest[1]
    if min(edges) < 0:
        x, (h, w) = pad(graph, x, window), (size - more for size, more in zip(window.padded((h, w)), rest, strict=True))
        x = graph.op("Slice", [x, graph.ints(0, 0), graph.ints(h, w), graph.ints(2, 3)], (BATCH, c, h, w))
        edges = [0, 0, 0, 0]
    rows = graph.op("Reshape", [_channels_first(graph, x), graph.ints(1, -1, h, w)], (1, BATCH, h, w))
    taps = graph.op(
        "Conv", [rows, _channels_first(graph, g)], (1, o, kh, kw), kernel_shape=[ho, wo],
        strides=list(window.dilations), dilations=list(window.strides), pads=edges, group=c,
    )  # fmt: skip
    return graph.op("Reshape", [taps, graph.ints(*shape)], shape)


def _channels_first(graph: Graph, x: str) -> str:
    n, c, h, w = graph.shape(x)
    return graph.op("Transpose", [x], (c, n, h, w), perm=[1, 0, 2, 3])
