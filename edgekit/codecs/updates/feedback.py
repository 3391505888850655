from edgekit.moves import shapes


class ErrorFeedback:
    def __init__(self, codec):
        self.codec = codec
        self.r = {}

    def send(self, update, rng):
        u = {n: a + self.r.get(n, 0) for n, a in update.items()}
        p = self.codec.pack(u, rng)
        arr = self.codec.unpack(p, shapes(u))
        self.r = {n: u[n] - arr[n] for n in u}
        return p, arr
