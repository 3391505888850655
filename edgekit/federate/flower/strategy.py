"""Compressed: any of Flower's strategies, with weights that go over the line as updates packed by edgekit's codecs.

::

    strategy = Compressed(FedAvg(), codec="quantised:step=0.25")
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=3)      # strategy.rounds: what each round took
"""

import logging
from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from edgekit.codecs.base import Arrays, UpdateCodec
from edgekit.errors import EdgekitError, PayloadError, UsageError
from edgekit.federate import wire
from edgekit.federate.apart import by_name
from edgekit.federate.downlink import Downlink
from edgekit.federate.flower import records

_log = logging.getLogger("flwr")
#: What a round's row says of its messages of training, and of those of evaluation.
_COUNTS = (
    "messages", "clients", "refused", "bytes_up", "bytes_down", "bytes_up_of_clients", "bytes_down_of_clients",
    "formula_bytes_up",
)  # fmt: skip


class Compressed(Strategy):
    """`strategy`, which sees plain arrays as if nothing were packed; the clients need `compress_mod`.

    `codec` packs the clients' updates, and `down`, where it is given, the updates of the server's weights: clients then
    get what they lack of them, and all weights where they have none, or that takes fewer bytes. Both are spelled, as in
    "quantised:step=0.5": running statistics of batch norms then travel by a codec that suits them
    (`edgekit.federate.apart`). Or they are an `UpdateCodec`, of the registry or an `Apart`. What a codec leaves out
    goes with the next update where the codec keeps it, here and on each client. `seed` decides what codecs draw.

    `rounds` has a row for each round (docs/federated.md). A reply that cannot be read counts as one that never came: it
    is named in `refused`, as (round, node, error), and in Flower's log. Clients' own errors are in `failed`, as (round,
    node, reason); the inner strategy sees them as usual.
    """

    def __init__(
        self,
        strategy: Strategy,
        codec: str | UpdateCodec = "quantised",
        down: str | UpdateCodec | None = None,
        seed: int = 0,
    ) -> None:
        self.strategy = strategy
        self.codec = _codec(codec)
        self.down = None if down is None else _codec(down)
        self.seed = seed
        self.rounds: list[dict[str, Any]] = []
        self.refused: list[tuple[int, int, EdgekitError]] = []
        self.failed: list[tuple[int, int, str]] = []
        #: The weights that clients learn from, and the record of them that this strategy was given, or gave.
        self._weights: Arrays = {}
        self._record: ArrayRecord | None = None
        self._downlink: Downlink | None = None
        #: Node -> the version of the weights that it has.
        self._held: dict[int, int] = {}

    def summary(self) -> None:
        down = "whole weights" if self.down is None else str(self.down)
        _log.info("\t├──> Updates: up %s | down %s", self.codec, down)
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._follow(arrays)
        whole = sum(len(array.data) for array in arrays.values())
        self.rounds.append({"round": server_round, "bytes_whole": whole})
        return self._send(server_round, "train", self.strategy.configure_train(server_round, arrays, config, grid))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = self.strategy.aggregate_train(server_round, self._receive(server_round, "train", replies))
        if arrays is not None:
            weights = wire.as_came(self._weights, records.weights_of(arrays))
            self._weights = weights if self._downlink is None else self._downlink.follow(weights)
            self._record = records.record_of(self._weights)
        row = self.rounds[-1]
        row["metrics"] = dict(metrics or {})
        if metrics is not None:
            for way in ("up", "down"):
                metrics[f"edgekit-bytes-{way}"] = row["train"][f"bytes_{way}"]
        return None if arrays is None else self._record, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._follow(arrays)
        messages = self.strategy.configure_evaluate(server_round, arrays, config, grid)
        return self._send(server_round, "evaluate", messages)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.strategy.aggregate_evaluate(server_round, self._receive(server_round, "evaluate", replies))

    def _follow(self, arrays: ArrayRecord) -> None:
        """Takes `arrays` for what clients learn from; those that this strategy gave it knows."""
        if arrays is not self._record:
            self._record, self._weights, self._held = arrays, records.weights_of(arrays), {}
            if self.down is not None:
                self._downlink = Downlink(self.down, self.seed, self._weights)

    def _send(self, number: int, what: str, messages: Iterable[Message]) -> list[Message]:
        """`messages` with what the mod must know, and with updates in the place of weights where that is fewer."""
        sent = []
        row = self.rounds[-1][what] = dict.fromkeys(_COUNTS, 0)
        for message in messages:
            content, metadata = RecordDict(dict(message.content.items())), message.metadata
            if self._downlink is not None:
                name, _ = records.arrays_of(content)
                payloads = self._downlink.since(self._held.get(metadata.dst_node_id))
                if payloads is not None:
                    content[name] = records.packed(payloads)
            content[records.NAME] = ConfigRecord({
                records.CODEC: wire.spelled(self.codec),
                records.DOWN: wire.NONE if self.down is None else wire.spelled(self.down),
                records.SEED: self.seed,
                records.ROUND: number,
                records.VERSION: 0 if self._downlink is None else self._downlink.version,
            })  # fmt: skip
            row["messages"] += 1
            row["bytes_down"] += records.bytes_of(content)
            sent.append(
                Message(
                    content, metadata.dst_node_id, metadata.message_type, ttl=metadata.ttl, group_id=metadata.group_id
                )
            )
        return sent

    def _receive(self, number: int, what: str, replies: Iterable[Message]) -> list[Message]:
        """The replies that can be read, in order of the clients' numbers, their weights plain; then Flower's errors."""
        read, errors = [], []
        row = self.rounds[-1][what]
        for reply in replies:
            node = reply.metadata.src_node_id
            # Until it is known what it has.
            self._held.pop(node, None)
            if reply.has_error():
                self.failed.append((number, node, str(reply.error.reason)))
                errors.append(reply)
                continue
            size = records.bytes_of(reply.content)
            row["bytes_up"] += size
            try:
                said = records.said(reply.content, records.CLIENT, records.CAME, records.WENT)
                if said is None:
                    raise UsageError("the client's weights are as they are: compress_mod must be first of its mods")
                if what == "train":
                    name, record = records.arrays_of(reply.content)
                    (payload,) = _one(records.payloads_of(record))
                    came = wire.unpack(self._weights, payload, self.codec)
                    reply.content[name] = records.record_of(came.weights)
                    row["formula_bytes_up"] += self.codec.formula_bits_of(came.update) / 8
            except EdgekitError as error:
                _log.error("round %d: the reply of node %d is left out: %s", number, node, error)
                self.refused.append((number, node, error))
                row["refused"] += 1
                continue
            row["clients"] += 1
            row["bytes_up_of_clients"] += said[records.WENT]
            row["bytes_down_of_clients"] += said[records.CAME]
            if self._downlink is not None:
                self._held[node] = self._downlink.version
            read.append((said[records.CLIENT], node, reply))
        # The order of arrival must not decide how sums are rounded.
        return [reply for _, _, reply in sorted(read, key=lambda each: each[:2])] + errors


def _codec(codec: str | UpdateCodec) -> UpdateCodec:
    return by_name(codec) if isinstance(codec, str) else codec


def _one(payloads: list[bytes]) -> list[bytes]:
    if len(payloads) != 1:
        raise PayloadError(f"{len(payloads)} payloads, expected one")
    return payloads
