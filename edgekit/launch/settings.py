"""What `train` is told besides what an export is told (edgekit/export/settings.py)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from edgekit.errors import UsageError
from edgekit.export.settings import BoardSettings, Coding, NamedData, NamedNetwork
from edgekit.link.link import parse_link
from edgekit.runtime.backends.registry import backend_class
from edgekit.runtime.session import Options, check_options
from edgekit.server.modes import FleetSettings


class Training(NamedTuple):
    """The devices, and how each of them trains."""

    #: Device processes, each with its own share of the training images, and of the test images where front halves are
    #: averaged.
    devices: int = 2
    #: How the shares are drawn: "iid", or "dirichlet:ALPHA".
    partition: str = "iid"
    #: Passes over the share.
    epochs: int = 10
    #: Images of a step.
    batch: int = 32
    #: Batches sent before a gradient must be back.
    in_flight: int = 1
    #: Epochs between new groupings of the channels (codec sgq); 0: never.
    regroup_every: int = 0
    #: Epochs between evaluations of the deployed pipeline on the whole test set; the last one is always evaluated.
    evaluate_every: int = 1
    #: Engine on the devices.
    backend: str = "onnxruntime"
    #: An emulated line that the devices share, "10mbit+50ms"; None: no line is emulated.
    link: str | None = None
    #: Share of each device's training images that is held back, to choose the best pair of halves by.
    validation: float = 0.0
    #: What devices do to training images at random, "flip,crop:4", see `edgekit.data.augment`; None: nothing.
    augment: str | None = None

    def check(self) -> None:
        """UsageError for what a device or the link would refuse, but only after the export."""
        if self.devices < 1:
            raise UsageError(f"--devices {self.devices}: expected at least 1")
        if not 0 <= self.validation < 1:
            raise UsageError(f"--validation {self.validation}: expected a share below 1")
        shared = {name: value for name, value in self._asdict().items() if name in Options._fields}
        check_options(Options("device", **shared))
        backend_class(self.backend)
        if self.link is not None:
            parse_link(self.link)


class Server(NamedTuple):
    """What the server decides: both sides' optimiser, the gradient it sends, and where its half computes."""

    #: "sgd" or "adam".
    optimizer: str = "sgd"
    #: None: the optimiser's usual rate, less for small steps, see `OptimizerConfig.rate`.
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    #: "cosine", with warm-up, or "constant".
    schedule: str = "cosine"
    #: Gradient policy, as "dct:zone=2"; None: the bundle's own.
    gradient_codec: str | None = None
    #: Noise that the back half is trained on: "lost", as much as quantising took, or a share of the variance, "0.4".
    noise_filling: str | None = None
    #: How much the devices' local loss counts, 0: there is none; and the steps of a device from one gradient of the
    #: server to the next (`edgekit.server.local_loss`).
    local_loss: float = 0.0
    gradient_every: int = 1
    #: "cpu", "cuda" or "auto".
    torch_device: str = "auto"
    #: Threads of the back half on a CPU.
    server_threads: int = 1
    #: Whether batches that stand out are left out, and devices that go on with them (`edgekit.server.watch`).
    quarantine: bool = True
    #: When server and devices save the run, "60s", "500steps" or "0".
    checkpoint: str = "60s"
    #: How the devices are kept together.
    fleet: FleetSettings = FleetSettings()

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> "Server":
        """What the options of the command line say, by their names; others among them are passed over."""
        own = {name: given[name] for name in cls._fields if name in given}
        return cls(**own, fleet=FleetSettings(**{name: given[name] for name in FleetSettings._fields}))

    def as_options(self) -> dict[str, Any]:
        """All of it by the names of the options."""
        values = self._asdict()
        values.update(values.pop("fleet")._asdict())
        return values


class Run(NamedTuple):
    """All that one training on this machine is told."""

    network: NamedNetwork
    data: NamedData
    coding: Coding
    board: BoardSettings
    training: Training
    server: Server
    #: Decides fresh weights, calibration images, shares, and the order of images.
    seed: int
    #: Where the server serves its metrics and its status, HOST:PORT; None: nowhere.
    metrics: str | None = None

    @property
    def in_step(self) -> bool:
        """Whether the devices' front halves are averaged."""
        return bool(self.server.fleet.rounds(self.training.devices).every)
