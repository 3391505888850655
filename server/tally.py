"""Count: what a test came to, by images."""

from dataclasses import dataclass


@dataclass
class Count:
    """Images that were tested, how many were classified right, and the sum of their losses."""

    images: int = 0
    correct: int = 0
    loss: float = 0.0

    def add(self, images: int, correct: int, mean_loss: float) -> None:
        """Counts `images` more."""
        self.images += images
        self.correct += correct
        self.loss += mean_loss * images

    def merge(self, other: "Count") -> None:
        """Counts those of `other` too."""
        self.images += other.images
        self.correct += other.correct
        self.loss += other.loss

    @property
    def accuracy(self) -> float:
        """In percent; 0 of no images."""
        return 100.0 * self.correct / max(self.images, 1)

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.images, 1)
