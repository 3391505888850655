"""BackHalf: the back half of the network, training: two programs over one set of weights, and the optimizer.

A step is joint: it learns from the batches of several devices at once, each of them a part of it.

::

    part -- feature --to_network_order--┐
    part -- feature --to_network_order--┼--> program (training mode) --> loss of all images
    part -- feature --to_network_order--┘        ├--backward--> gradient at each part's feature, in coded order
                                                 └--backward--> gradient of every weight --> optimizer
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.nn import Parameter
from torch.nn.functional import cross_entropy

from edgekit.errors import Diverged, Refused, UnknownName, UsageError
from edgekit.server.decode import finite, to_network_order
from edgekit.server.guard import Guards
from edgekit.server.optimizer import SGD, Adam, Optimizer
from edgekit.server.program import load_program

#: By optimizer, the learning rate of a step on `USUAL` images, unless one is asked for.
LEARNING_RATES = {"sgd": 0.05, "adam": 0.001}
USUAL = 32


class OptimizerConfig(NamedTuple):
    """How both halves are trained; `momentum` is SGD's, Adam has its own two. An `lr` of None: what is usual."""

    name: str = "sgd"
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0

    def rate(self, images: int, alone: int) -> float:
        """The learning rate of a step on `images` images, before the schedule.

        `lr` is meant for those of one device `alone`, and grows with their square root (Krizhevsky 2014,
        arXiv:1404.5997, section 5). The usual rate is meant for those of one device too, or for USUAL images where that
        is more; a step on fewer than USUAL takes it in proportion (Goyal et al. 2017, arXiv:1706.02677, section 2.1).
        """
        if self.lr is not None:
            return self.lr * math.sqrt(max(images / alone, 1.0))
        more = math.sqrt(max(images / max(alone, USUAL), 1.0))
        return LEARNING_RATES[self.name] * min(images / USUAL, more)

    def check(self) -> None:
        """Raises UnknownName or UsageError unless both sides can train like this."""
        if self.name not in LEARNING_RATES:
            raise UnknownName("optimizer", self.name, LEARNING_RATES, "there are: adam, sgd")
        given = (("--lr", self.lr or 0.0), ("--momentum", self.momentum), ("--weight-decay", self.weight_decay))
        for option, value in given:
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{option} {value}: expected a number of 0 or more")


def prepare(threads: int, seed: int) -> None:
    """For this process: the threads that torch may use on a CPU, and the seed of its generator, for dropout."""
    if threads < 1 or not 0 <= seed < 1 << 32:
        raise UsageError(f"{threads} threads and seed {seed}: expected at least 1, and a seed of 0 to 4294967295")
    torch.set_num_threads(threads)
    torch.manual_seed(seed)


def torch_device(name: str) -> torch.device:
    """The device "cpu" or "cuda"; "auto" is cuda where there is one. UsageError when there is none."""
    if name not in ("cpu", "cuda", "auto"):
        raise UnknownName("torch device", name, ("cpu", "cuda", "auto"), "there are: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"--torch-device cuda: torch {torch.__version__} sees no CUDA device; use cpu, or install a CUDA build"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class Program(Protocol):
    """The back half in one mode, training or evaluation."""

    name: str
    #: Fewest and most images that it takes at a time.
    batch: tuple[int, int]

    def __call__(self, feature: torch.Tensor) -> torch.Tensor:
        """Logits (n,classes) f32 of `feature` (n,C,h,w), which it may overwrite, channels in the network's order."""
        ...


class Part(NamedTuple):
    """The batch of one device in a joint step."""

    #: (n,C,h,w) f32, channel ``order[k]`` of the network at position k.
    coded: torch.Tensor
    order: np.ndarray
    #: (n,) integers
    labels: np.ndarray


class Outcome(NamedTuple):
    """What a joint step came to for one of its parts."""

    #: Mean cross entropy of the part's images, and how many of them had the largest logit.
    loss: float
    right: int
    #: (n,C,h,w) f32: d (mean loss of the part's images) / d coded, in coded order.
    gradient: np.ndarray


class BackHalf:
    """The back half on one torch device. `weights` names every weight and buffer that both programs share."""

    def __init__(
        self,
        train: Program,
        evaluation: Program,
        weights: dict[str, torch.Tensor],
        device: torch.device,
        optimizer: OptimizerConfig,
    ) -> None:
        optimizer.check()
        self.device = device
        self._train = train
        self._eval = evaluation
        self._weights = weights
        # Batch norm's statistics move in the forward pass, before anything can be checked.
        self._buffers = {name: w for name, w in weights.items() if not w.requires_grad}
        #: Fewest and most images that can be trained on at a time.
        self.batch = train.batch
        self._optimizer = _optimizer(optimizer, [w for w in weights.values() if w.requires_grad])
        #: What holds a wild step back, and how often it did.
        self.guards = Guards()

    @classmethod
    def from_programs(
        cls,
        train_program: bytes,
        eval_program: bytes,
        state: dict[str, np.ndarray],
        device: torch.device,
        optimizer: OptimizerConfig,
    ) -> "BackHalf":
        """The back half of a bundle: its two exported programs, and `state`, every weight and buffer by name."""
        train, evaluation = (
            load_program(data, name, device)
            for name, data in (("back_train.pt2", train_program), ("back_eval.pt2", eval_program))
        )
        weights: dict[str, torch.Tensor] = {}
        for name, array in state.items():
            weight, declared = torch.tensor(array, device=device), train.declared.get(name)
            if weight.dim() == 4:
                weight = weight.contiguous(memory_format=train.layout)
            weights[name] = Parameter(weight) if declared is not None and declared.learns else weight
        for program in (train, evaluation):
            program.share(weights)
        return cls(train, evaluation, weights, device, optimizer)

    def step(self, parts: Sequence[Part], lr: float) -> list[Outcome]:
        """One outcome for each of `parts`, in their order; the weights have moved, once.

        One pass over the images of all parts: batch norm sees them together, and the loss is the mean over them. A
        part's gradient is that of the joint loss times (images in all) / (images of the part). So when front halves
        take the mean of their weights, each counted by its images, they make the step of one front half that had all
        images. The same parts in the same order give the same bits.

        Gradients far longer than ever are shortened (see `edgekit.server.guard`). Where a statistic of batch norm moved
        far further than ever, nothing changes and all gradients are 0: `guards` counts such steps.

        Refused, with the weights as they were, when the images in all are too few or too many for the program; Diverged
        when the loss or a gradient is no number any more.
        """
        before = {name: buffer.clone() for name, buffer in self._buffers.items()}
        leaves = [part.coded.detach().requires_grad_() for part in parts]
        joint = self._learn([part._replace(coded=leaf) for part, leaf in zip(parts, leaves, strict=True)])
        total = self._images(parts)
        gradients = [leaf.grad * (total / len(leaf)) for leaf in leaves if leaf.grad is not None]
        of_weights = [w.grad for w in self._weights.values() if w.grad is not None]
        loss, moved = joint.loss.item(), [*of_weights, *self._buffers.values(), *gradients]
        if not self._all(math.isfinite(loss) and finite(moved)):
            self._put_back(before)
            raise Diverged(f"the loss is {loss} and its gradient not finite: training diverged, lower --lr")
        if self.guards.calm(before, self._buffers, self._agreed):
            self.guards.clip_weights(of_weights, self._agreed)
            self.guards.clip_parts(gradients, self._longest)
            self._optimizer.step(lr)
        else:
            self._put_back(before)
            gradients = [torch.zeros_like(gradient) for gradient in gradients]
        return [
            Outcome(each.item(), int((predicted == part.labels).sum()), gradient.cpu().numpy())
            for each, predicted, gradient, part in zip(joint.losses, joint.predicted, gradients, parts, strict=True)
        ]

    # What follows is about all images of a joint step: of one whose images are at several ranks, `ranks` says it.

    def _learn(self, parts: Sequence[Part]) -> "Pass":
        """One pass over `parts`, after which every weight has its gradient."""
        joint = pass_over(self._train, parts)
        self._optimizer.zero_grad()
        joint.loss.backward()  # type: ignore[no-untyped-call]
        return joint

    def _images(self, parts: Sequence[Part]) -> int:
        """Images of the joint step."""
        return sum(len(part.coded) for part in parts)

    def _all(self, sound: bool) -> bool:
        """Whether all of the step is `sound`."""
        return sound

    def _agreed(self, lengths: list[float]) -> list[float]:
        """The `lengths` that the guards go by."""
        return lengths

    def _longest(self, lengths: Sequence[float]) -> float:
        """The largest of all parts' `lengths`."""
        return max(lengths)

    def _put_back(self, buffers: dict[str, torch.Tensor]) -> None:
        for name, buffer in self._buffers.items():
            buffer.copy_(buffers[name])

    def evaluate(self, coded: torch.Tensor, order: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean cross entropy, and the classes (n,) int64 of the largest logits, in evaluation mode; nothing changes."""
        with torch.no_grad():
            joint = pass_over(self._eval, [Part(coded, order, labels)])
        loss = joint.loss.item()
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss}: training diverged, lower --lr")
        return loss, joint.predicted[0]

    def state(self) -> dict[str, Any]:
        """Weights, buffers, what optimizer and guards know, and torch's random draws, as a state."""
        known = self._optimizer.known
        cuda = self.device.type == "cuda"
        return {
            "weights": self.state_dict(),
            "optimizer": {
                str(index): {name: _array(value) for name, value in each.items()} for index, each in known.items()
            },
            "guards": self.guards.state(),
            "random": torch.get_rng_state().numpy(),
            "random_cuda": torch.cuda.get_rng_state(self.device).numpy() if cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, which this back half gave, in this process or another one."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(torch.from_numpy(state["weights"][name]))
        known = {int(index): {name: _tensor(value) for name, value in each.items()}
                 for index, each in state["optimizer"].items()}  # fmt: skip
        self._optimizer.restore(known)
        self.guards = Guards.restored(state["guards"])
        torch.set_rng_state(torch.from_numpy(state["random"]))
        if self.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(torch.from_numpy(state["random_cuda"]), self.device)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all weights and buffers, by name."""
        return {name: weight.detach().cpu().numpy().copy() for name, weight in self._weights.items()}


class Pass(NamedTuple):
    """What one pass over several parts gives."""

    #: Mean cross entropy of all images (0-d).
    loss: torch.Tensor
    #: For each part: mean cross entropy of its images (0-d, no gradient), and the classes (n,) of the largest logits.
    losses: list[torch.Tensor]
    predicted: list[np.ndarray]


def pass_over(program: Program, parts: Sequence[Part]) -> Pass:
    """`program` over the images of all `parts` at once. Refused when they are too few or too many for it."""
    sizes = [len(part.coded) for part in parts]
    low, high = program.batch
    if not low <= sum(sizes) <= high:
        raise Refused(f"{program.name} takes {low} to {high} images at a time, got {sum(sizes)}: change --batch")
    if not all(sizes):
        raise Refused(f"a joint step of batches of {sizes} images: expected at least 1 in each, leave the others out")
    features = [to_network_order(part.coded, part.order) for part in parts]
    targets = [torch.from_numpy(part.labels.astype(np.int64)).to(part.coded.device) for part in parts]
    # One part alone is not joined: that would be a copy more.
    logits = program(features[0] if len(parts) == 1 else torch.cat(features))
    loss = cross_entropy(logits, torch.cat(targets))
    predicted = [own.argmax(1).cpu().numpy() for own in torch.split(logits.detach(), sizes)]
    if len(parts) == 1:
        return Pass(loss, [loss.detach()], predicted)
    split = zip(torch.split(logits.detach(), sizes), targets, strict=True)
    return Pass(loss, [cross_entropy(own, target) for own, target in split], predicted)


def _array(value: Any) -> Any:
    """`value`, a tensor as an array."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _tensor(value: Any) -> Any:
    """`value`, an array as a tensor."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _optimizer(config: OptimizerConfig, weights: list[torch.Tensor]) -> Optimizer:
    if config.name == "sgd":
        return SGD(weights, config.weight_decay, config.momentum)
    if config.name == "adam":
        return Adam(weights, config.weight_decay)
    raise AssertionError("checked before")
