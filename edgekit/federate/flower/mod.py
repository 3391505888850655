"""compress_mod: a Flower client's weights go up as updates, packed by the codec that the server's strategy names.

::

    app = ClientApp(mods=[compress_mod])        # the first of all mods: the others see plain arrays
"""

import logging
from typing import Any

from flwr.app import ConfigRecord, Context, Error, Message, MessageType
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode

from edgekit import statefile
from edgekit.codecs.base import Arrays
from edgekit.errors import EdgekitError, PayloadError, UsageError
from edgekit.federate import downlink, wire
from edgekit.federate.flower import records

#: The record of the weights that a client has, in its context.
WEIGHTS = "edgekit-weights"

_log = logging.getLogger("flwr")


def compress_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """The reply of `call_next`, its weights packed; the strategy must be wrapped in `Compressed`.

    What the codec left out, where it keeps that, and the weights where these come as updates too, stay in the state of
    `context`. An error of edgekit becomes Flower's reply of an error.
    """
    if message.metadata.message_type.split(".")[0] not in (MessageType.TRAIN, MessageType.EVALUATE):
        return call_next(message, context)
    try:
        came = records.bytes_of(message.content)
        said = records.said(message.content, records.CODEC, records.DOWN, records.SEED, records.ROUND, records.VERSION)
        if said is None:
            raise UsageError("no codec is said: wrap the server's strategy, Compressed(FedAvg(), codec=...)")
        kept = _kept(context, said)
        weights = _receive(message, context, said, kept)
        _keep(context, kept)
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        answer = ConfigRecord({records.CLIENT: records.number_of(context), records.CAME: came, records.WENT: 0})
        if message.metadata.message_type.split(".")[0] == MessageType.TRAIN:
            _pack(reply, weights, said, kept, answer[records.CLIENT])
            _keep(context, kept)
        reply.content[records.NAME] = answer
        answer[records.WENT] = records.bytes_of(reply.content)
        return reply
    except EdgekitError as error:
        _log.error("compress_mod: %s", error)
        return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, f"{type(error).__name__}: {error}"), reply_to=message)


def _receive(message: Message, context: Context, said: ConfigRecord, kept: dict[str, Any]) -> Arrays:
    """The weights of `message`, which its content then holds whole; where they may come as updates they are kept."""
    name, record = records.arrays_of(message.content)
    if said[records.DOWN] == wire.NONE:
        return records.weights_of(record)
    if not record or records.is_packed(record):
        if kept["version"] is None:
            raise PayloadError("an update of weights, and this client has none: the server must send all")
        payloads = records.payloads_of(record)
        # Some came before, where the server does not know that they arrived.
        lacks = said[records.VERSION] - kept["version"]
        if not 0 <= lacks <= len(payloads):
            raise PayloadError(
                f"{len(payloads)} updates to version {said[records.VERSION]} of the weights, and this client has "
                f"version {kept['version']}"
            )
        old, codec = records.weights_of(context.state[WEIGHTS]), wire.codec_of(said[records.DOWN])
        message.content[name] = records.record_of(downlink.follow(old, payloads[len(payloads) - lacks :], codec))
    context.state[WEIGHTS] = message.content[name]
    kept["version"] = said[records.VERSION]
    return records.weights_of(message.content[name])


def _pack(reply: Message, old: Arrays, said: ConfigRecord, kept: dict[str, Any], client: int) -> None:
    """Puts the payload in the place of the weights in `reply`; an app may have packed them itself."""
    name, record = records.arrays_of(reply.content)
    if record and records.is_packed(record):
        return
    sender = wire.codec_of(said[records.CODEC]).sender()
    if kept["sender"]:
        sender.restore(kept["sender"])
    rng = wire.generator(said[records.SEED], said[records.ROUND], client)
    sent = wire.pack(old, records.weights_of(record), sender, rng)
    reply.content[name] = records.packed([sent.payload])
    kept["sender"] = sender.state


def _kept(context: Context, said: ConfigRecord) -> dict[str, Any]:
    """What this client keeps from message to message; nothing that is of another codec."""
    codecs = [said[records.CODEC], said[records.DOWN]]
    kept = statefile.loads(context.state[records.NAME]["state"]) if records.NAME in context.state else {}
    return kept if kept.get("codecs") == codecs else {"codecs": codecs, "sender": {}, "version": None}


def _keep(context: Context, kept: dict[str, Any]) -> None:
    context.state[records.NAME] = ConfigRecord({"state": statefile.dumps(kept)})
