"""The pictures of `bench/leak.py`: rows of images under each other."""

import io

import torch
from matplotlib.figure import Figure
from PIL import Image

#: What a row is -> its images (n,C,H,W) f32 of 0 to 1, as many in each row.
Pictures = dict[str, torch.Tensor]
#: Dots of an image's pixel, and white pixels between images.
ZOOM, GAP = 2, 2


def draw(pictures: Pictures, path: str) -> None:
    """Writes the figure to `path`."""
    n, _, height, width = next(iter(pictures.values())).shape
    # Grey images as red, green and blue alike.
    tiles = torch.stack([row.expand(-1, 3, -1, -1) for row in pictures.values()])
    padded = torch.nn.functional.pad(tiles, (0, GAP, 0, GAP), value=1.0)
    whole = padded.permute(0, 3, 1, 4, 2).reshape(len(tiles) * (height + GAP), n * (width + GAP), 3)
    dpi, margin = 100, 2.1
    size = whole.shape[1] * ZOOM / dpi + margin, whole.shape[0] * ZOOM / dpi
    figure = Figure(figsize=size, dpi=dpi)
    axes = figure.add_axes((margin / size[0], 0.0, 1 - margin / size[0], 1.0))
    axes.imshow(whole.numpy(), interpolation="nearest", aspect="auto")
    axes.set_yticks([i * (height + GAP) + height / 2 for i in range(len(tiles))], list(pictures))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    # 256 colours: the file is a third of what all of them take.
    whole_colour = io.BytesIO()
    figure.savefig(whole_colour, format="png")
    Image.open(whole_colour).convert("RGB").quantize(256).save(path, optimize=True)
