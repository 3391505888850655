"""Answers pings."""

import time

import edgekit
from edgekit.line.messages import Ping, Pong
from edgekit.server.setup import Setup


def pong(setup: Setup, message: Ping, devices: int) -> Pong:
    """The time here, the bundle, the version of edgekit, and how many devices are in training."""
    return Pong(message.step, time.time(), setup.digest, edgekit.__version__, devices)
