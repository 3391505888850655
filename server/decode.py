"""Codes -> feature as a torch tensor: look-ups run where the back half runs, other codecs through their reference.

::

    codes --decode--> feature, channels in coded order --to_network_order--> feature as the back half takes it
                                └ in training, on request: --noise filling--> the same, with noise
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch

from edgekit.codecs.base import Arrays, FeatureCodec


def decode(codec: FeatureCodec, codes: Arrays, tables: Arrays, device: torch.device) -> torch.Tensor:
    """Feature (n,C,h,w) f32 on `device`, channels in coded order, equal to ``codec.dequantize``."""
    twin = TWINS.get(codec.codec_id)
    if twin is None:
        return torch.from_numpy(np.ascontiguousarray(codec.dequantize(codes, tables))).to(device)
    return twin(codes, tables, device)


def to_network_order(coded: torch.Tensor, order: np.ndarray) -> torch.Tensor:
    """`coded` (n,C,h,w) with channel ``order[k]`` of the network at position k -> channels in the network's order.

    A copy, which the back half may overwrite; differentiable, so that the gradient at `coded` is in coded order.
    """
    if np.array_equal(order, np.arange(len(order))):
        return coded.clone()
    return coded.index_select(1, torch.from_numpy(np.argsort(order)).to(coded.device))


def finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether all values of `tensors` are finite, and do not add up to more than a float32 holds.

    Adding up is many times as fast as asking each value.
    """
    sums = [tensor.sum() for tensor in tensors if tensor.is_floating_point()]
    return bool(torch.isfinite(torch.stack(sums)).all())


def _sgq(codes: Arrays, tables: Arrays, device: torch.device) -> torch.Tensor:
    index = torch.from_numpy(codes["codes"]).to(device)
    book = torch.from_numpy(tables["codebook"]).to(device)
    n, groups, h, w = index.shape
    words, channels = book.shape
    # Codeword k of group g becomes row g * words + k of one table.
    table = book.reshape(words, groups, -1).transpose(0, 1).reshape(groups * words, -1)
    first = torch.arange(groups, dtype=index.dtype, device=device)[:, None, None] * words
    return torch.nn.functional.embedding(index + first, table).permute(0, 1, 4, 2, 3).reshape(n, channels, h, w)


TWINS: dict[str, Callable[[Arrays, Arrays, torch.device], torch.Tensor]] = {"sgq": _sgq, "product": _sgq}
