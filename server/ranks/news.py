"""News: what a rank tells the others of its devices, as bytes: a safetensors file, which no pickle is in.

::

    before each joint act     what there is to do here, who has left, how far this rank is
    then, of each message     the message itself, without the codes of a feature, and what was made of it here
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from edgekit import tensorfile
from edgekit.codecs.base import Arrays
from edgekit.errors import PayloadError
from edgekit.line import messages
from edgekit.line.labels import unpack_labels
from edgekit.line.messages import Feature, Hello, Tested, Update
from edgekit.server.fleet import Fleet
from edgekit.server.gate import Ticket
from edgekit.server.handlers.batch import Batch
from edgekit.server.handlers.training import Work
from edgekit.server.look import Look
from edgekit.server.rounds import Rounds
from edgekit.server.setup import Setup
from edgekit.server.tally import Count


def pack(said: dict[str, Any], arrays: Arrays | None = None) -> bytes:
    """`said`, which JSON can say, and arrays by name."""
    return tensorfile.dumps(arrays or {}, {"said": json.dumps(said)})


def unpack(data: bytes) -> tuple[Any, Arrays]:
    """What `pack` was given; PayloadError when the bytes are no such thing."""
    try:
        return json.loads(tensorfile.metadata(data)["said"]), tensorfile.loads(data)
    except (KeyError, ValueError, RecursionError) as error:
        raise PayloadError(f"what a rank said does not parse: {error!r}: give all ranks the same edgekit") from None


def pack_tickets(tickets: Sequence[Ticket]) -> bytes:
    """`tickets`, of one kind and of this rank."""
    said: list[dict[str, Any]] = []
    arrays: Arrays = {}
    for i, ticket in enumerate(tickets):
        request, session, more = ticket.request, ticket.session, {}
        if isinstance(request, Feature):
            request = request._replace(codes=b"")
            look = ticket.work.look
            if look is not None:
                arrays[f"{i}.outline"] = look.outline
                more = {"look": [look.finite, look.size, look.variety, look.coherence]}
        elif isinstance(request, Update) and session is not None and request.update:
            arrays.update({f"{i}.{name}": array for name, array in session.tables.items()})
        elif isinstance(request, Tested) and session is not None:
            more = {"counts": [vars(session.test), vars(session.validation)]}
        said.append(more)
        arrays[f"{i}.message"] = np.frombuffer(messages.encode(request), np.uint8)
    return pack({"tickets": said}, arrays)


def unpack_tickets(data: bytes, setup: Setup, fleet: Fleet, rounds: Rounds) -> list[Ticket]:
    """Copies of another rank's tickets, of sessions that `fleet` knows."""
    said, arrays = unpack(data)
    return [_ticket(i, more, arrays, setup, fleet, rounds) for i, more in enumerate(said["tickets"])]


def _ticket(i: int, more: dict[str, Any], arrays: Arrays, setup: Setup, fleet: Fleet, rounds: Rounds) -> Ticket:
    request: Any = messages.decode(arrays[f"{i}.message"].tobytes())
    kind = messages.KIND_OF[type(request)]
    session = None if isinstance(request, Hello) else fleet.sessions[request.session]
    work: Any = None
    if session is not None and isinstance(request, Feature):
        work = Work(session, request, _elsewhere(setup, request), _look(request.images, more, arrays, i), 0.0)
    elif session is not None and isinstance(request, Update):
        if request.update:
            session.tables = {name: arrays[f"{i}.{name}"] for name in session.tables}
        work = rounds.take(session, request)
    elif session is not None:
        session.test, session.validation = (Count(**count) for count in more["counts"])
    return Ticket(kind, session, request, lambda: True, work, here=False)


def _elsewhere(setup: Setup, request: Feature) -> Batch:
    """A batch that another rank has: its labels, and no feature."""
    channels, height, width = setup.feature_shape
    feature = torch.zeros(0, channels, height, width, device=setup.back.device)
    labels = unpack_labels(request.labels, request.images, setup.classes)
    return Batch(labels, {}, None, feature, np.arange(channels))


def _look(images: int, more: dict[str, Any], arrays: Arrays, i: int) -> Look | None:
    if "look" not in more:
        return None
    finite, size, variety, coherence = more["look"]
    return Look(images, finite, size, variety, coherence, arrays[f"{i}.outline"])
