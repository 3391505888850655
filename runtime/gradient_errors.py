"""GradientErrors: how far gradients were off when they arrived, by what the server says of each."""

from typing import Dict

from edgekit.line.messages import Gradient


class GradientErrors:
    """Over all gradients that were learned from; errors in the weights' gradients are of those that were measured."""

    def __init__(self) -> None:
        self._gradients = self._measured = 0
        self._deviation = self._sum = self._largest = 0.0

    def add(self, reply: Gradient) -> None:
        """Takes in what `reply` says; nothing where it has no gradient."""
        if not reply.gradient:
            return
        self._gradients += 1
        self._deviation += reply.deviation
        if reply.error is not None:
            self._measured += 1
            self._sum += reply.error
            self._largest = max(self._largest, reply.error)

    def state(self) -> Dict[str, float]:
        """All of it, as a state (`edgekit.statefile`)."""
        return dict(vars(self))

    def restore(self, state: Dict[str, float]) -> None:
        """Goes on from `state`."""
        vars(self).update(state)

    def told(self) -> Dict[str, float]:
        """What events say of them; of errors nothing where none was measured."""
        mean = {"gradient_deviation": self._deviation / max(self._gradients, 1)}
        if self._measured:
            mean.update(gradient_error=self._sum / self._measured, largest_error=self._largest)
        return mean
