"""What the server keeps of one device is all there is: a copy goes on as the original does."""

import copy
from collections.abc import Callable

import numpy as np

from edgekit.codecs.features.sgq import SGQ
from edgekit.line.frame import Message
from edgekit.server.service import Service
from tests.server.talk import LABELS, TABLES, coded, hello


def test_a_copy_goes_on_as_the_original(make: Callable[..., Service]) -> None:
    codec = SGQ(groups=2, bits=4, coding="temporal")
    services = [make(codec=codec), make(codec=codec)]
    assert [hello(service) for service in services] == [1, 1]
    stream, codes, images = codec.stream(), codec.quantize(coded(), TABLES), np.arange(12)

    def step(service: Service, number: int) -> Message:
        parts = (LABELS.tobytes(), stream.pack(codes, images))
        reply = service.handle(Message("feature", 1, number, {"n": 12, "v": 0}, parts))
        assert reply.kind == "gradient", reply
        return reply._replace(header={**reply.header, "s": 0})

    for number in range(4):
        assert step(services[0], number) == step(services[1], number)
        stream.update(codes, images)
    # As after a restart: the one service gets a copy of its session in the place of the session.
    services[0].fleet.sessions[1] = copy.deepcopy(services[0].fleet.sessions[1])
    for number in range(4, 7):
        assert step(services[0], number) == step(services[1], number)
        stream.update(codes, images)
