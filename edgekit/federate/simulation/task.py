"""What a client and the server of a run need, from what the run is told: network, images, clients."""

import functools

from edgekit import tensorfile
from edgekit.data.base import Dataset
from edgekit.data.partition import shares
from edgekit.export.models.registry import build
from edgekit.federate.client import Client
from edgekit.federate.data import Data
from edgekit.federate.network import Network
from edgekit.federate.settings import parse_scaling
from edgekit.federate.simulation.settings import Told, read

#: The arrays of the images' file are the fields of a Dataset.
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class Task:
    """The task that the file `path` describes."""

    def __init__(self, path: str) -> None:
        self.told: Told = read(path)
        told, plan = self.told, self.told.plan
        with open(told.images, "rb") as file:
            images = tensorfile.loads(file.read())
        self._dataset = Dataset(
            name=told.model, classes=told.classes, mean=told.mean, std=told.std,
            **{name: images[name] for name in ARRAYS},
        )  # fmt: skip
        self._scaling = parse_scaling(plan.scaling)
        module = build(told.model, told.shape, len(told.classes), plan.seed, told.weights, told.classes)
        scaled = None if self._scaling is None else self._scaling.layers
        self.network = Network(module, plan.local.layers, scaled, plan.local.norms)

    def client(self, number: int) -> Client:
        """Client `number` of the run, as it is at the start."""
        plan, dataset = self.told.plan, self._dataset
        part = shares(dataset.train_labels, plan.clients, plan.partition, plan.seed)[number]
        data = Data(dataset.train_images[part], dataset.train_labels[part], dataset)
        return Client(self.network, data, plan.codecs()[0], plan.local, self._scaling, number, plan.seed)

    @property
    def tested(self) -> Data:
        """The images that the server tests on."""
        return Data(self._dataset.test_images, self._dataset.test_labels, self._dataset)


@functools.cache
def task(path: str) -> Task:
    """The task of the file `path`, which one process reads once."""
    return Task(path)
