"""Updates for tests: of the shapes of a small network's front half."""

import numpy as np

from edgekit.codecs.base import Arrays

SHAPES: dict[str, tuple[int, ...]] = {
    "0.weight": (16, 3, 3, 3), "1.bias": (16,), "1.weight": (16,), "3.weight": (32, 16, 3, 3), "head.weight": (10, 32),
    "scale": (),
}  # fmt: skip
TOTAL = sum(int(np.prod(shape)) for shape in SHAPES.values())


def drawn(seed: int, size: float = 1e-2) -> Arrays:
    """Heavier tailed than normal values, as updates are."""
    rng = np.random.default_rng(seed)
    return {name: np.asarray(size * rng.laplace(size=shape), dtype=np.float32) for name, shape in SHAPES.items()}


def f32(values: object) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def row(update: Arrays) -> np.ndarray:
    """All values in order of name, float64."""
    return np.concatenate([update[name].reshape(-1) for name in sorted(update)]).astype(np.float64)
