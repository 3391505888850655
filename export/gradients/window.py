"""Window: how the kernel of a convolution or a pooling slides over an image."""

from typing import Any, NamedTuple

import numpy as np

from edgekit.export.gradients.step import Step
from edgekit.export.graph import Graph

Pair = tuple[int, int]


class Window(NamedTuple):
    """Geometry of a convolution or pooling over (n,C,h,w); pairs are (rows, columns)."""

    kernel: Pair
    strides: Pair
    dilations: Pair
    #: Top, left, bottom, right.
    pads: tuple[int, int, int, int]

    def attributes(self) -> dict[str, Any]:
        """The geometry as attributes of an ONNX node."""
        return {
            "kernel_shape": list(self.kernel), "strides": list(self.strides), "dilations": list(self.dilations),
            "pads": list(self.pads),
        }  # fmt: skip

    def padded(self, size: tuple[int, ...]) -> Pair:
        """Rows and columns of an image (..., h, w) with its padding."""
        return size[-2] + self.pads[0] + self.pads[2], size[-1] + self.pads[1] + self.pads[3]

    def rest(self, size: tuple[int, ...], positions: tuple[int, ...]) -> Pair:
        """Rows and columns at the far edge of a padded image (..., h, w) that no window covers."""
        rows, columns = (
            length - ((n - 1) * stride + (kernel - 1) * dilation + 1)
            for length, n, stride, kernel, dilation in zip(
                self.padded(size), positions[-2:], self.strides, self.kernel, self.dilations, strict=True
            )
        )
        return rows, columns

    def rows(self) -> list[tuple[int, int]]:
        """(shift, part) of each row of the kernel: at row p of the output it sees row `part` of strip p + `shift`.

        A strip of the image is as many rows as the stride.
        """
        return [divmod(i * self.dilations[0] - self.pads[0], self.strides[0]) for i in range(self.kernel[0])]

    def strips(self, size: tuple[int, ...]) -> int:
        """Strips of an image (..., h, w), the last one perhaps not whole."""
        return -(-size[-2] // self.strides[0])

    def tap(self, graph: Graph, padded: str, positions: tuple[int, ...], i: int, j: int) -> str:
        """What element (i, j) of the kernel sees of the image `padded`, at all `positions` (..., h, w)."""
        shape, out = graph.shape(padded), (*graph.shape(padded)[:2], *positions[-2:])
        (sh, sw), starts = self.strides, (i * self.dilations[0], j * self.dilations[1])
        if shape == out:
            return padded
        ends = (starts[0] + (out[2] - 1) * sh + 1, starts[1] + (out[3] - 1) * sw + 1)
        bounds = [graph.ints(*starts), graph.ints(*ends), graph.ints(2, 3)]
        return graph.op("Slice", [padded, *bounds, *([graph.ints(sh, sw)] if (sh, sw) != (1, 1) else [])], out)


def window_of(step: Step, kernel: tuple[int, ...]) -> Window:
    """The window of `step`, whose kernel has the size `kernel`; ExportError for one that no gradient rule handles."""
    a = step.attributes
    rank = len(step.shape(0))
    if rank != 4:
        raise step.refuse(f"of rank {rank} has no gradient rule, only that of images (n,C,h,w)")
    if a.get("auto_pad", "NOTSET") != "NOTSET" or a.get("ceil_mode", 0):
        raise step.refuse("has auto_pad or ceil_mode, which have no gradient rule: write explicit pads")
    (kh, kw), (sh, sw), (dh, dw) = kernel, a.get("strides", (1, 1)), a.get("dilations", (1, 1))
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    return Window((kh, kw), (sh, sw), (dh, dw), (top, left, bottom, right))


def pad(graph: Graph, x: str, window: Window, value: float | None = None) -> str:
    """`x` (n,C,h,w) with the padding of `window`, zeros or `value`."""
    if not any(window.pads):
        return x
    top, left, bottom, right = window.pads
    shape = graph.shape(x)
    edges = graph.ints(0, 0, top, left, 0, 0, bottom, right)
    fill = [] if value is None else [graph.constant(np.array(value, dtype=np.float32))]
    return graph.op("Pad", [x, edges, *fill], (*shape[:2], *window.padded(shape)))


def moved(graph: Graph, x: str, shift: int, rows: int) -> str:
    """`x` (...,...,h,w) moved down by `shift`, on `rows` rows: zeros come in, rows beyond are left out."""
    first, second, h, w = graph.shape(x)
    if not shift and rows == h:
        return x
    return graph.op("Pad", [x, graph.ints(0, 0, shift, 0, 0, 0, rows - h - shift, 0)], (first, second, rows, w))
