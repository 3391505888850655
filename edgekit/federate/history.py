"""History: what brings those who have an earlier version of the weights to the last one."""


class History:
    """Version -> the payload that leads from it to the next, of the last versions.

    From the first one on, where together they are more than the weights themselves, they are let go of.
    """

    def __init__(self) -> None:
        self.payloads: dict[int, bytes] = {}

    def add(self, version: int, payload: bytes, whole: int) -> None:
        """Keeps the `payload` that leads from `version` to the next, of weights that take `whole` bytes."""
        self.payloads[version] = payload
        while sum(map(len, self.payloads.values())) > whole:
            del self.payloads[min(self.payloads)]

    def since(self, version: int, last: int) -> list[bytes] | None:
        """The payloads from `version` to the `last`, in order; None where they are not known."""
        wanted = range(version, last)
        if version > last or any(number not in self.payloads for number in wanted):
            return None
        return [self.payloads[number] for number in wanted]
