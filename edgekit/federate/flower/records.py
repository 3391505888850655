"""What mod and strategy say to each other: a config record in each message, and arrays that hold payloads."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from edgekit.codecs.base import Arrays
from edgekit.errors import PayloadError, UsageError
from edgekit.federate.wire import FORMAT

#: The config record's name in a message, and the state's in a client's context.
NAME = "edgekit"
#: Of the server's: the update codec up and the one down (none: weights come whole), what decides draws, the round, and
#: which version of the weights the message leads to.
CODEC, DOWN, SEED, ROUND, VERSION = "codec", "down", "seed", "round", "version"
#: Of a client's: its number, and the bytes of the message that came and of this one, as the client counts them.
CLIENT, CAME, WENT = "client", "bytes-came", "bytes-went"


def said(content: RecordDict, *names: str) -> ConfigRecord | None:
    """The config record in `content`, taken out of it; None where there is none. PayloadError unless it has `names`.

    Texts are expected for codecs, and integers that are not negative elsewhere.
    """
    record = content.get(NAME)
    if record is None:
        return None
    if not isinstance(record, ConfigRecord):
        raise PayloadError(f"record '{NAME}' is a {type(record).__name__}, expected settings")
    for name in names:
        value, text = record.get(name), name in (CODEC, DOWN)
        if not (isinstance(value, str) if text else type(value) is int and value >= 0):
            expected = "a text" if text else "a number that is not negative"
            raise PayloadError(f"record '{NAME}' has {value!r:.50} for '{name}', expected {expected}")
    del content[NAME]
    return record


def arrays_of(content: RecordDict) -> tuple[str, ArrayRecord]:
    """Name and record of the one array record of `content`. PayloadError where there is another number of them."""
    found: list[tuple[str, ArrayRecord]] = list(content.array_records.items())
    if len(found) != 1:
        raise PayloadError(f"a message with {len(found)} array records, expected one")
    return found[0]


def weights_of(record: ArrayRecord) -> Arrays:
    """The weights that Flower serialised. PayloadError where they do not parse."""
    weights = {}
    for name, array in record.items():
        try:
            weights[name] = array.numpy()
        # What numpy's reader raises depends on the bytes.
        except Exception as error:  # noqa: BLE001
            raise PayloadError(f"weight '{name}' does not parse: {error!r:.200}") from None
    return weights


def record_of(weights: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in weights.items()})


def packed(payloads: Iterable[bytes]) -> ArrayRecord:
    """`payloads`, in order, as opaque arrays."""
    named = ((f"{number:06d}", payload) for number, payload in enumerate(payloads))
    return ArrayRecord({name: Array("uint8", (len(payload),), FORMAT, payload) for name, payload in named})


def is_packed(record: ArrayRecord) -> bool:
    """Whether all of `record`, as of an empty one, are payloads."""
    return all(array.stype == FORMAT for array in record.values())


def payloads_of(record: ArrayRecord) -> list[bytes]:
    """The payloads in `record`, in order. PayloadError where it holds something else."""
    if not is_packed(record):
        kinds = sorted({array.stype for array in record.values()})
        raise PayloadError(f"arrays of {', '.join(kinds)}, expected {FORMAT}: is compress_mod among the client's mods?")
    return [record[name].data for name in sorted(record)]


def bytes_of(content: RecordDict) -> int:
    """The bytes of a message's content as Flower's records count them, empty texts and lists as nothing."""
    return sum(sum(len(name) + _size(value) for name, value in record.items()) for record in content.values())


def number_of(context: Any) -> int:
    """The client's number: its partition where it has one, as in simulations, else the number of its node."""
    number = context.node_config.get("partition-id", context.node_id)
    if type(number) is not int or number < 0:
        raise UsageError(f"partition-id {number!r}: expected a number that is not negative")
    return number


def _size(value: Any) -> int:
    if isinstance(value, Array):
        return len(value.data)
    if isinstance(value, list):
        return sum(map(_size, value))
    if isinstance(value, str | bytes):
        return len(value)
    return 1 if isinstance(value, bool) else 8
