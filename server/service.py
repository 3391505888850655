"""Service: what the server answers to every message, without sockets.

::

    feature --session, step, codebook version--> FeatureCodec.unpack --> decode --> BackHalf.step --> Calibrator.send
                └ done before: the recorded reply, nothing applied twice                                 --> gradient
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
import torch

import edgekit
from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays, FeatureCodec, FeatureStream
from edgekit.codecs.codebook import MOST_MISSING
from edgekit.errors import EdgekitError, PayloadError, Refused, UsageError
from edgekit.line.frame import HEAD_SIZE, Message, field, parts
from edgekit.schedule import check_schedule, learning_rate
from edgekit.server.calibrate import Calibrator
from edgekit.server.decode import decode, fill, filled
from edgekit.server.train import BackHalf, OptimizerConfig

#: Replies kept per session, for messages that come again.
RECORD = 16
#: Most images in a message: few bytes of coded indices may stand for many, and decoding takes memory for all of them.
MOST_IMAGES = 1024
#: Longest device name, so that the messages that quote it fit a header.
LONGEST_NAME = 200


class _Session:
    """One device: its end of the line, its codec tables and their version, its next step, and its latest replies."""

    def __init__(self, device: str, steps: int, tables: Arrays, stream: FeatureStream) -> None:
        self.device = device
        self.steps = steps
        self.tables = {name: array.copy() for name, array in tables.items()}
        self.stream = stream
        self.version = 0
        self.step = 0
        self.replies: OrderedDict[int, Message] = OrderedDict()


class Service:
    """One back half, shared by all sessions, moved by their messages in the order they arrive.

    `feature_shape` is (C,h,w). `on_event` is called, with the lock held, with
    ``{"event": "joined", "session", "device", "steps"}`` and
    ``{"event": "left", "session", "device", "steps": done, "finished": said bye}``.
    """

    def __init__(
        self,
        digest: str,
        codec: FeatureCodec,
        tables: Arrays,
        feature_shape: tuple[int, int, int],
        classes: int,
        back: BackHalf,
        calibrator: Calibrator,
        optimizer: OptimizerConfig,
        schedule: str,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> None:
        check_schedule(schedule)
        self.digest = digest
        self.back = back
        self.on_event = on_event
        #: Sessions that said bye, and sessions whose line broke before.
        self.finished = 0
        self.lost = 0
        self._codec = codec
        self._tables = tables
        self._shape = feature_shape
        self._classes = classes
        self._calibrator = calibrator
        self._optimizer = optimizer
        self._schedule = schedule
        self._lock = Lock()
        self._sessions: dict[int, _Session] = {}
        self._joined = 0
        self._handlers: dict[str, Callable[[Message], Message]] = {
            "hello": self._hello,
            "feature": self._feature,
            "codebook": self._codebook,
            "evaluate": self._evaluate,
            "bye": self._bye,
        }

    def handle(self, message: Message) -> Message:
        """The reply; an EdgekitError becomes an error message with its exit code and text."""
        if message.kind == "ping":
            # Without the lock: behind a step of training the time in it would be old.
            return self._pong(message)
        with self._lock:
            try:
                if message.kind not in self._handlers:
                    raise Refused(f"a server takes {', '.join(self._handlers)} and ping messages, got {message.kind}")
                return self._handlers[message.kind](message)
            except EdgekitError as error:
                return error_message(error, message.session, message.step)

    def left(self, session: int) -> None:
        """Ends `session`, whose line broke; nothing happens when it has ended already."""
        with self._lock:
            if session in self._sessions:
                self.lost += 1
                self._end(session, finished=False)

    def _pong(self, message: Message) -> Message:
        """Seconds since 1970, the bundle, the version of edgekit, and how many devices are in training."""
        header = {
            "time": time.time(),
            "bundle": self.digest,
            "version": edgekit.__version__,
            "devices": len(self._sessions),
        }
        return Message("pong", message.session, message.step, header)

    def _hello(self, message: Message) -> Message:
        digest, device, steps = (field(message, *f) for f in (("bundle", str), ("device", str), ("steps", int)))
        parts(message, 0)
        if digest != self.digest:
            raise Refused(
                f"the device's bundle is {digest[:64]}, the server's {self.digest}: give both the same bundle folder"
            )
        if not 0 <= steps < 1 << 32 or len(device) > LONGEST_NAME:
            raise PayloadError(
                f"hello plans {steps} steps under a name of {len(device)} characters, "
                f"expected 0 to {(1 << 32) - 1} and at most {LONGEST_NAME}",
                HEAD_SIZE,
            )
        self._joined += 1
        self._sessions[self._joined] = _Session(device, steps, self._tables, self._codec.stream())
        self.on_event({"event": "joined", "session": self._joined, "device": device, "steps": steps})
        codec = self._calibrator.codec
        header = {
            "gradient": {"id": codec.codec_id, "config": codec.config},
            "masked": self._calibrator.masked,
            "optimizer": self._optimizer._asdict(),
            "schedule": self._schedule,
        }
        return Message("welcome", self._joined, message.step, header)

    def _feature(self, message: Message) -> Message:
        start = time.perf_counter()
        session, step = self._session(message), message.step
        if step in session.replies:
            return session.replies[step]
        if step < session.step:
            raise Refused(f"step {step} is done and its reply no longer kept; the next step is {session.step}")
        if step > session.step:
            raise Refused(f"got step {step}, expected step {session.step}: steps come one after another")
        labels, codes = self._inputs(message, session)
        feature, order = self._decoded(codes, session)
        if self._codec.filling:
            missing = _missing(message)
            if filled(step, session.steps):
                feature = fill(feature, missing, (self._calibrator.seed, message.session, step))
        rate = learning_rate(self._schedule, self._optimizer.lr, step, session.steps)
        loss, right, gradient = self.back.step(feature, order, labels, rate)
        active = self._codec.active(codes, session.tables) if self._calibrator.masked else None
        payload, deviation = self._calibrator.send(gradient, active, message.session, step)
        session.stream.update(codes)
        header = {"loss": round(loss, 6), "right": right, "dev": round(deviation, 6), "s": _seconds_since(start)}
        reply = Message("gradient", message.session, step, header, (payload,))
        session.step += 1
        session.replies[step] = reply
        if len(session.replies) > RECORD:
            session.replies.popitem(last=False)
        return reply

    def _evaluate(self, message: Message) -> Message:
        start = time.perf_counter()
        session = self._session(message)
        labels, codes = self._inputs(message, session)
        loss, right = self.back.evaluate(*self._decoded(codes, session), labels)
        header = {"right": right, "loss": round(loss, 6), "n": len(labels), "s": _seconds_since(start)}
        return Message("result", message.session, message.step, header)

    def _codebook(self, message: Message) -> Message:
        session = self._session(message)
        (payload,) = parts(message, 1)
        # The version in use is one that came again, after its ack was lost.
        if message.step != session.version or not session.version:
            if message.step != session.version + 1:
                raise Refused(f"got codebook version {message.step}, expected {session.version + 1}")
            session.tables = self._codec.patch(session.tables, payload)
            session.version += 1
        return Message("ack", message.session, message.step)

    def _bye(self, message: Message) -> Message:
        self._session(message)
        self.finished += 1
        self._end(message.session, finished=True)
        return Message("ack", message.session, message.step)

    def _end(self, number: int, finished: bool) -> None:
        session = self._sessions.pop(number)
        self.on_event(
            {"event": "left", "session": number, "device": session.device, "steps": session.step, "finished": finished}
        )

    def _session(self, message: Message) -> _Session:
        if message.session not in self._sessions:
            raise Refused(f"there is no session {message.session} here, or it has ended: say hello first")
        return self._sessions[message.session]

    def _inputs(self, message: Message, session: _Session) -> tuple[np.ndarray, Arrays]:
        """Labels (n,) and codes of a feature or evaluate message."""
        n, version = field(message, "n", int), field(message, "v", int)
        if version != session.version:
            raise Refused(f"codes of codebook version {version}, the server has version {session.version}")
        most = min(self.back.batch[1], MOST_IMAGES)
        if n > most:
            raise Refused(f"a batch of {n} images, this server takes {most}: change --batch")
        raw, payload = parts(message, 2)
        dtype = np.dtype("u1" if self._classes <= 256 else "<u2")
        if n < 1 or len(raw) != n * dtype.itemsize:
            raise PayloadError(f"{len(raw)} B of labels for {n} images, expected {dtype.itemsize} B each")
        labels = np.frombuffer(raw, dtype)
        if labels.max() >= self._classes:
            first = int(np.argmax(labels >= self._classes))
            raise PayloadError(f"label {labels[first]}, expected below {self._classes}", first * dtype.itemsize)
        return labels, session.stream.unpack(payload, (n, *self._shape))

    def _decoded(self, codes: Arrays, session: _Session) -> tuple[torch.Tensor, np.ndarray]:
        """Feature (n,C,h,w) in coded order, and that order."""
        feature = decode(self._codec, codes, session.tables, self.back.device)
        return feature, self._codec.order(self._shape[0], session.tables)


def service_from_bundle(
    bundle: Bundle, device: torch.device, calibrator: Calibrator, optimizer: OptimizerConfig, schedule: str
) -> Service:
    """The service of `bundle`, its back half on `device`, from the files that it names."""
    if calibrator.masked and not bundle.after_relu:
        raise UsageError(
            f"the feature at '{bundle.cut}' does not come from a ReLU, so where it is about zero gradients matter: "
            "choose a policy that is not masked"
        )
    # Here, not at the first gradient: by then the back half has moved.
    calibrator.codec.check(bundle.feature_shape[0])
    programs = bundle.read("back_train.pt2"), bundle.read("back_eval.pt2")
    back = BackHalf(*programs, bundle.arrays("back.safetensors"), device, optimizer)
    tables = bundle.tables()
    shape, classes = bundle.feature_shape, bundle.classes
    return Service(bundle.digest, bundle.codec, tables, shape, classes, back, calibrator, optimizer, schedule)


def error_message(error: EdgekitError, session: int, step: int) -> Message:
    """What the device is told of `error`; the text is cut where a header would overflow."""
    return Message("error", session, step, {"code": error.exit_code, "message": str(error)[:4000]})


def _missing(message: Message) -> float:
    """The share of the feature's variance that quantising took, as the device tells it."""
    share: float = field(message, "d", float)
    if not 0 <= share <= MOST_MISSING:
        raise PayloadError(f"{message.kind} message: 'd' is {share}, expected 0 to {MOST_MISSING}", HEAD_SIZE)
    return share


def _seconds_since(start: float) -> float:
    return round(time.perf_counter() - start, 6)
