"""Front: what a session needs of a front half, whatever runs it. Devices run that of `edgekit.runtime.learn`."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Optional, Tuple

import numpy as np

from edgekit.codecs.base import Arrays, FeatureCodec
from edgekit.errors import BundleError
from edgekit.runtime.optim import Optimizer


class Forward(NamedTuple):
    """What one training batch leaves behind for its backward pass."""

    image: np.ndarray
    codes: Arrays
    #: (n,C,h,w) f32, channels in coded order
    feature: np.ndarray
    #: What the front half wants to have again in `backward`; nobody else looks at it.
    kept: Any


class Local(NamedTuple):
    """What the local head makes of one training batch."""

    #: Mean cross entropy.
    loss: float
    #: Of that loss at the feature, (n,C,h,w) f32, channels in coded order.
    gradient: np.ndarray
    #: Of that loss, by the names of the head's weights.
    gradients: Arrays


def normalise(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """`images` (n,C,H,W) uint8 as f32, less the `mean` (C,) and divided by the `std` (C,) of 0..1."""
    scaled = images.astype(np.float32) * np.float32(1 / 255)
    return np.asarray((scaled - mean[:, None, None]) / std[:, None, None])


class Front(ABC):
    """A front half that encodes, and learns from gradients at the cut."""

    #: Digest of the bundle that it comes from, and the bundle in words.
    digest: str
    origin: str
    codec: FeatureCodec
    classes: int
    #: The codec's tables in use.
    tables: Arrays
    #: Weights and buffers by name.
    state: Arrays
    #: Per channel of the image, in units of 0..1.
    mean: np.ndarray
    std: np.ndarray
    #: Names in `state` of what learns: weights, and batch norms' running statistics.
    learned: Tuple[str, ...] = ()
    #: Names of the running statistics among them, and of the variances among these.
    statistics: Tuple[str, ...] = ()
    variances: Tuple[str, ...] = ()
    #: Most images of one `encode`; None: any number.
    most: Optional[int] = None

    @property
    @abstractmethod
    def can_reorder(self) -> bool:
        """Whether `set_tables` takes another order of channels."""

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """`images` (n,C,H,W) uint8 as the front half takes them, f32."""
        return normalise(images, self.mean, self.std)

    @abstractmethod
    def set_tables(self, tables: Arrays) -> None:
        """Takes new codec tables; not between a forward pass and its backward pass where their order is another."""

    @abstractmethod
    def set_state(self, arrays: Arrays) -> None:
        """Takes new values of the weights and buffers that `arrays` names, f32, in their shapes."""

    @abstractmethod
    def encode(self, image: np.ndarray) -> Arrays:
        """Codes of `image` (n,C,H,W) f32, normalised, as deployed."""

    @abstractmethod
    def forward(self, image: np.ndarray) -> Forward:
        """Codes of a training batch (n,C,H,W) f32, normalised, and what `backward` needs."""

    @abstractmethod
    def backward(self, forward: Forward, gradient: np.ndarray) -> Arrays:
        """d loss / d weight by weight name, from `gradient` (n,C,h,w) f32 at the cut, channels in coded order."""

    def open_local(self) -> None:
        """Makes ready for `local`: the head's weights are among those that learn from now on."""
        raise BundleError(
            "{} has no local head, and the server trains with a local loss: export the bundle again".format(self.origin)
        )

    @abstractmethod
    def local(self, forward: Forward, labels: np.ndarray) -> Local:
        """The local loss of a batch with `labels` (n,classes) f32, one-hot; after `open_local`."""

    @abstractmethod
    def learn(self, gradients: Arrays, optimizer: Optimizer, learning_rate: float) -> None:
        """One optimizer step."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of the engines."""
