"""What a device says to a service, message by message; and the codec and features that it says it of."""

import numpy as np
import torch

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.codecs.features.sgq import SGQ
from edgekit.errors import Refused
from edgekit.line.frame import Message
from edgekit.server.service import Service
from edgekit.server.train import OptimizerConfig

CPU = torch.device("cpu")
SGD = OptimizerConfig("sgd", 0.1, 0.9, 0.0)
CODEC = SGQ(groups=2, bits=4)
FEATURES = np.maximum(np.random.default_rng(0).normal(size=(12, 8, 4, 4)), 0).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 12).astype(np.uint8)
TABLES = CODEC.calibrate(FEATURES, seed=0)


def hello(service: Service, device: str = "board", steps: int = 100) -> int:
    reply = service.handle(Message("hello", header={"bundle": service.setup.digest, "device": device, "steps": steps}))
    assert reply.kind == "welcome", reply
    return reply.session


def coded(order: np.ndarray = TABLES["order"]) -> np.ndarray:
    return np.ascontiguousarray(FEATURES[:, order])


def feature(
    session: int, step: int, codec: FeatureCodec = CODEC, tables: Arrays = TABLES, v: int = 0, kind: str = "feature"
) -> Message:
    payload = codec.pack(codec.quantize(coded(codec.order(8, tables)), tables))
    return Message(kind, session, step, {"n": 12, "v": v}, (LABELS.tobytes(), payload))


def refusal(service: Service, message: Message, code: int = Refused.exit_code) -> str:
    """The text of the error message that `message` gets."""
    reply = service.handle(message)
    assert (reply.kind, reply.session, reply.step) == ("error", message.session, message.step), reply
    assert reply.header["code"] == code, reply
    text = reply.header["message"]
    assert isinstance(text, str)
    return text
