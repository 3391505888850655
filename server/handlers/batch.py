"""Batch: the labels and the decoded feature of a feature or evaluate message."""

from typing import NamedTuple

import numpy as np
import torch

from edgekit.codecs.base import Arrays
from edgekit.errors import Refused
from edgekit.line.labels import unpack_labels
from edgekit.line.messages import Evaluate, Feature
from edgekit.server.decode import decode
from edgekit.server.session import Session
from edgekit.server.setup import Setup

#: Most images in a message: few bytes of coded indices may stand for many, and decoding takes memory for all of them.
MOST_IMAGES = 1024


class Batch(NamedTuple):
    """What came of some images."""

    #: (n,)
    labels: np.ndarray
    codes: Arrays
    #: (n,) the device's numbers of the images; None where the line does not carry them.
    images: np.ndarray | None
    #: (n,C,h,w) f32, channels in coded order, and that order.
    feature: torch.Tensor
    order: np.ndarray


def unpack_batch(setup: Setup, session: Session, message: Feature | Evaluate) -> Batch:
    """The batch in `message`; nothing of the session changes. Refused or PayloadError when it cannot be taken."""
    if message.tables != session.tables_version:
        raise Refused(f"codes of codebook version {message.tables}, the server has version {session.tables_version}")
    most = min(setup.back.batch[1], MOST_IMAGES)
    if message.images > most:
        raise Refused(f"a batch of {message.images} images, this server takes {most}: change --batch")
    labels = unpack_labels(message.labels, message.images, setup.classes)
    codes, images = session.stream.unpack(message.codes, (message.images, *setup.feature_shape))
    feature = decode(setup.codec, codes, session.tables, setup.back.device)
    return Batch(labels, codes, images, feature, setup.codec.order(setup.feature_shape[0], session.tables))
