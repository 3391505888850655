"""What a device says to a service, message by message; and the codec and features that it says it of."""

from typing import Any

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


def greeting(service: Service, device: str, steps: int = 100, epochs: int = 1, **more: Any) -> Message:
    """The hello of a device that has `steps` batches of the 12 images."""
    plan = {"images": 12 * steps, "steps": steps, "epochs": epochs, "local": True, **more}
    return Message("hello", header={"bundle": service.setup.digest, "device": device, **plan})


def hello(service: Service, device: str | None = None, steps: int = 100, epochs: int = 1) -> int:
    """The number of a new session; without a name the device gets one that no other has."""
    name = f"board-{service.fleet.joined + 1}" if device is None else device
    reply = service.handle(greeting(service, name, steps, epochs))
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
