"""A device's end of streams to a listening server, byte for byte."""

import queue
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

from edgekit.codecs.features.raw import Raw
from edgekit.line.frame import MAX_FRAME, METHOD, Message, decode, encode

HELLO = Message("hello", header={"bundle": "b", "device": "board", "images": 2, "steps": 1, "epochs": 1})
OTHER = HELLO._replace(header={**HELLO.header, "device": "other"})
FEATURE = np.ones((2, 8, 4, 4), dtype=np.float32)


def feature(session: int, step: int) -> Message:
    return Message("feature", session, step, {"n": 2, "v": 0}, (b"\0\1", Raw().pack({"codes": FEATURE})))


class Line:
    """A device's end of a stream; `settings` are those of its channel."""

    def __init__(self, port: int, **settings: Any) -> None:
        options = [
            ("grpc.max_receive_message_length", MAX_FRAME),
            ("grpc.max_send_message_length", MAX_FRAME),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options, **settings)
        self._frames: queue.Queue[bytes | None] = queue.Queue()
        self.replies = self.channel.stream_stream(METHOD)(iter(self._frames.get, None), timeout=300)

    def say(self, frame: bytes | None) -> None:
        self._frames.put(frame)

    def ask(self, message: Message) -> Message:
        self.say(encode(message))
        return self.told()

    def told(self) -> Message:
        return decode(next(self.replies))

    def ended(self) -> bool:
        """Waits for what the server says next; whether it said no more and ended the stream."""
        return next(self.replies, None) is None

    def close(self) -> None:
        self.say(None)
        self.channel.close()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
