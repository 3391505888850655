"""What the server decides of the devices' local loss: how much it counts, and how rarely it is corrected."""

import math
from typing import NamedTuple

from edgekit.bundle import LOCAL, Bundle
from edgekit.errors import UsageError


class LocalLoss(NamedTuple):
    """Devices learn from the loss of a small head of their own too (`edgekit.runtime.local_loss`)."""

    #: Length of its gradient, in lengths of the server's; 0: there is no local loss.
    weight: float = 0.0
    #: The server sends its gradient for every so many-th step of a device, from the first on.
    gradient_every: int = 1

    def check(self) -> None:
        """UsageError for what makes no sense."""
        if not 0 <= self.weight < math.inf:
            raise UsageError(f"--local-loss {self.weight}: expected a number of 0 or more")
        if self.gradient_every < 1:
            raise UsageError(f"--gradient-every {self.gradient_every}: expected at least 1")
        if self.gradient_every > 1 and not self.weight:
            raise UsageError(
                f"--gradient-every {self.gradient_every}: in the other steps devices learn from their local loss: give "
                "--local-loss too, such as 0.5"
            )

    def check_bundle(self, bundle: Bundle) -> None:
        """UsageError where there is to be a local loss and `bundle` has no local head."""
        if self.weight and LOCAL not in bundle.graphs:
            raise UsageError(
                f"--local-loss {self.weight}: {bundle.path} has no local head: export the bundle again, without "
                "--no-local-head"
            )

    def sends(self, step: int) -> bool:
        """Whether the gradient of a device's `step` is sent."""
        return step % self.gradient_every == 0


#: None, and a gradient for every step.
WITHOUT = LocalLoss()
