"""fedavg: the update as 32-bit floats, as in federated averaging (McMahan et al. 2017, arXiv:1602.05629)."""

import numpy as np

from edgekit.codecs.base import Arrays, UpdateCodec, UpdateSender
from edgekit.codecs.checks import finite_values
from edgekit.codecs.updates.flat import Shapes, named, sizes_of


class FedAvg(UpdateCodec):
    """The update itself, value by value, without loss.

    ======  ====  ==========================================================================
    offset  size  field
    ======  ====  ==========================================================================
    0       4m    little-endian float32 of the m values, by name and row-major in each array
    ======  ====  ==========================================================================

    >>> update = {"b": np.float32([1, -2]), "a": np.float32(0.5)}
    >>> FedAvg().pack(update, np.random.default_rng(0)).hex()
    '0000003f0000803f000000c0'
    """

    codec_id = "fedavg"

    def pack(self, update: Arrays, rng: np.random.Generator) -> bytes:
        self.check_update(update)
        return b"".join(update[name].astype("<f4", copy=False).tobytes() for name in sorted(update))

    def unpack(self, payload: bytes, shapes: Shapes) -> Arrays:
        count = sum(sizes_of(shapes))
        return named(finite_values(payload, count, "fedavg update", "{} values".format(count)), shapes)

    def formula_bits(self, shapes: Shapes) -> float:
        return 32.0 * sum(sizes_of(shapes))

    def sender(self, learns: bool = True) -> UpdateSender:
        return UpdateSender(self)
