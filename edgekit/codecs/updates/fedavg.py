import numpy as np

from edgekit.codecs.base import Codec


class FedAvg(Codec):
    codec_id = "fedavg"

    def pack(self, update, rng):
        return b"".join(update[n].astype("<f4").tobytes() for n in sorted(update))

    def unpack(self, payload, shapes):
        out, at = {}, 0
        for n in sorted(shapes):
            k = int(np.prod(shapes[n]))
            out[n] = np.frombuffer(payload, "<f4", k, at).reshape(shapes[n]).copy()
            at += 4 * k
        return out
