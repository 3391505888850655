"""GradientErrors: how far the gradients of a front half's weights were off, by what the server measured."""

from typing import Dict, Optional


class GradientErrors:
    """Over all batches learned from whose error was measured."""

    def __init__(self) -> None:
        self._batches = 0
        self._sum = self._largest = 0.0

    def add(self, error: Optional[float]) -> None:
        """Takes the error of one batch in, None where it was not measured."""
        if error is not None:
            self._batches += 1
            self._sum += error
            self._largest = max(self._largest, error)

    def told(self) -> Dict[str, float]:
        """What events say of them; nothing where none was measured."""
        if not self._batches:
            return {}
        return {"gradient_error": self._sum / self._batches, "largest_error": self._largest}
