"""The task of the stock app: digits, and two layers in numpy that learn them."""

import functools

import numpy as np

from edgekit.data.base import Dataset
from edgekit.data.partition import shares
from edgekit.data.registry import load

Weights = dict[str, np.ndarray]
HIDDEN, BATCH, LR = 32, 16, 0.2


@functools.cache
def digits(folder: str) -> Dataset:
    return load("digits", folder)


def fresh() -> Weights:
    draws = np.random.default_rng(0)
    return {
        "first.weight": (draws.normal(size=(HIDDEN, 64)) / 8).astype(np.float32),
        "first.bias": np.zeros(HIDDEN, np.float32),
        "second.weight": (draws.normal(size=(10, HIDDEN)) / HIDDEN**0.5).astype(np.float32),
        "second.bias": np.zeros(10, np.float32),
        "steps": np.array(0, np.int64),
    }


def inputs(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def train(weights: Weights, folder: str, client: int, clients: int, seed: int) -> tuple[Weights, int]:
    """The weights after one pass over the client's share, and its number of images."""
    data = digits(folder)
    mine = shares(data.train_labels, clients, "iid", 0)[client]
    order = np.random.default_rng((seed, client)).permutation(mine)
    w = {name: array.copy() for name, array in weights.items()}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        x, labels = inputs(data.train_images[batch]), data.train_labels[batch]
        hidden = np.maximum(x @ w["first.weight"].T + w["first.bias"], 0)
        grad = softmax(hidden @ w["second.weight"].T + w["second.bias"])
        grad[np.arange(len(batch)), labels] -= 1
        grad *= LR / len(batch)
        back = (grad @ w["second.weight"]) * (hidden > 0)
        w["second.weight"] -= grad.T @ hidden
        w["second.bias"] -= grad.sum(axis=0)
        w["first.weight"] -= back.T @ x
        w["first.bias"] -= back.sum(axis=0)
        w["steps"] = w["steps"] + 1
    return w, len(order)


def accuracy(weights: Weights, folder: str) -> float:
    """Percent of the test images."""
    data = digits(folder)
    hidden = np.maximum(inputs(data.test_images) @ weights["first.weight"].T + weights["first.bias"], 0)
    scores = hidden @ weights["second.weight"].T + weights["second.bias"]
    return 100 * float((scores.argmax(axis=1) == data.test_labels).mean())


def softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
