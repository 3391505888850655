"""Answers pings."""

import time

import edgekit
from edgekit.line import messages
from edgekit.line.frame import Message
from edgekit.line.messages import Ping, Pong
from edgekit.server.setup import Setup


def pong(setup: Setup, message: Message, devices: int) -> Pong:
    """The time here, the bundle, the version of edgekit, and how many devices are in training."""
    ping = messages.parse(message)
    assert isinstance(ping, Ping)
    return Pong(ping.step, time.time(), setup.digest, edgekit.__version__, devices)
