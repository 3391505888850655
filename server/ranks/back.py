"""JointBackHalf: the back half of a rank. A step of it is a part of one step of all ranks."""

from collections.abc import Sequence

import numpy as np
import torch

from edgekit import tensorfile
from edgekit.errors import Refused, TransportError
from edgekit.server.program import ExportedProgram
from edgekit.server.ranks.group import Group
from edgekit.server.ranks.program import JointProgram
from edgekit.server.train import BackHalf, OptimizerConfig, Outcome, Part, Pass, pass_over


class JointBackHalf(BackHalf):
    """`back`, which has not learned yet, as one of `group`. All ranks call `step` together; evaluation concerns nobody.

    The weights of all ranks stay the same, bit for bit: every rank adds up the same gradients and steps alike.
    """

    def __init__(self, back: BackHalf, group: Group, optimizer: OptimizerConfig) -> None:
        assert isinstance(back._train, ExportedProgram)
        self._joint = JointProgram(back._train, group)
        super().__init__(self._joint, back._eval, back._weights, back.device, optimizer)
        self.batch = back.batch
        self._group = group
        self._total = 0
        #: (0,C,h,w): the feature of a rank that has no images.
        self._nothing = torch.zeros(0)

    def step(self, parts: Sequence[Part], lr: float) -> list[Outcome]:
        """As of `BackHalf.step`, on the parts of all ranks, in the same order at each of them.

        Of a part that is at another rank `coded` has no images; the labels are there. Nor has its gradient any.
        TransportError when a rank is lost; the weights are then as they were.
        """
        here = [part for part in parts if len(part.coded)]
        sizes = [len(part.labels) for part in parts]
        self._total = sum(sizes)
        self._joint.begin(sizes, [len(part.coded) > 0 for part in parts])
        low, high = self.batch
        if not low <= self._total <= high:
            raise Refused(
                f"{self._train.name} takes {low} to {high} images at a time, got {self._total}: change --batch"
            )
        before = {name: buffer.clone() for name, buffer in self._buffers.items()}
        self._nothing = parts[0].coded[:0]
        try:
            own = iter(super().step(here, lr))
        except TransportError:
            self._put_back(before)
            raise
        outcomes = [next(own) if len(part.coded) else None for part in parts]
        return self._completed(outcomes)

    def _learn(self, parts: Sequence[Part]) -> Pass:
        """One pass over the `parts` that are here, after which every weight has the gradient of all ranks' images."""
        # Without images: what the others wait for is said, and nothing added.
        joint = pass_over(self._train, parts) if parts else Pass(self._train(self._nothing).sum(), [], [])
        self._optimizer.zero_grad()
        (joint.loss * (super()._images(parts) / self._total)).backward()  # type: ignore[no-untyped-call]
        self._group.add([weight.grad for weight in self._weights.values() if weight.grad is not None])
        return joint

    def _images(self, parts: Sequence[Part]) -> int:
        return self._total

    def _all(self, sound: bool) -> bool:
        return self._group.all(sound)

    def _agreed(self, lengths: list[float]) -> list[float]:
        # Rank 0's: where a last bit differed, weights would.
        agreed: list[float] = self._group.gather(torch.tensor(lengths, dtype=torch.float64))[0].tolist()
        return agreed

    def _longest(self, lengths: Sequence[float]) -> float:
        return self._group.most(max(lengths, default=0.0))

    def _completed(self, outcomes: Sequence[Outcome | None]) -> list[Outcome]:
        """`outcomes` with what the other ranks say of their parts, which are None here."""
        said = np.array([(one.loss, one.right) if one else (0.0, 0) for one in outcomes], dtype=np.float64)
        told = self._group.exchange(tensorfile.dumps({"outcomes": said}))
        both = np.sum([tensorfile.loads(data)["outcomes"] for data in told], axis=0)
        nothing = np.zeros(self._nothing.shape, np.float32)
        return [
            one or Outcome(float(loss), int(right), nothing) for one, (loss, right) in zip(outcomes, both, strict=True)
        ]
