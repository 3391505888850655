"""FrontHalf: the exported front half, running, and learning although its engine is frozen.

::

    image --front.onnx--> codes                                   deployed: batch norm on running statistics
    image --front_train.onnx--> codes, feature, saved activations
    saved, gradient at the cut --front_grad.onnx--> d loss / d weight --optimizer--> weights --> the three graphs
"""

from typing import NamedTuple, Optional

import numpy as np

from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError, BundleError, Diverged, UsageError
from edgekit.folding import fold
from edgekit.runtime.base import Backend
from edgekit.runtime.optim import Optimizer, clip_to_weights
from edgekit.runtime.registry import backend_class

#: Fewest golden codes that an engine must reproduce before it is used; rounding flips a near tie now and then.
GOLDEN_SHARE = 0.99

#: With the norm policy "frozen": the longest gradient that an optimizer sees, as a share of its weight's length.
LARGEST_STEP = 0.02


class Forward(NamedTuple):
    """What one training batch leaves behind for its backward pass."""

    image: np.ndarray
    codes: Arrays
    #: (n,C,h,w) f32, channels in coded order
    feature: np.ndarray
    outputs: Arrays


class FrontHalf:
    """One device's front half: weights, batch-norm buffers, codec tables, and the engines that run them."""

    def __init__(self, bundle: Bundle, backend_id: str, threads: int) -> None:
        self.bundle = bundle
        self.codec = bundle.codec
        engine = backend_class(backend_id)
        self._deployed, self._train, self._grad = (
            engine(bundle.read(bundle.graphs[key].file), bundle.graphs[key], threads)
            for key in ("front", "front_train", "front_grad")
        )
        self.state = bundle.arrays("front.safetensors")
        self._check_names()
        self.tables = bundle.tables()
        self.set_tables(self.tables)
        self._feature = bundle.feature_tensor
        self._norms = bundle.manifest["batch_norms"]
        for backend in (self._train, self._grad):
            backend.set_weights(self._weights(backend))
        self._check_golden()

    def set_tables(self, tables: Arrays) -> None:
        """New codec tables (codebooks, the order of channels) for the encoders inside the graphs.

        A new order must not come between a forward pass and its backward pass. UsageError where the graphs have their
        order for good.
        """
        old, new = (self.codec.order(self.bundle.feature_shape[0], each) for each in (self.tables, tables))
        if not self.can_reorder and not np.array_equal(old, new):
            raise UsageError(
                "{}: its graphs keep the order of channels: export it again, with --grouping spectral or "
                "significance".format(self.bundle.path)
            )
        self.tables = tables
        feeds = self.codec.table_feeds(tables)
        for backend in (self._train, self._grad):
            backend.set_weights({spec.name: feeds[spec.name] for spec in backend.graph.held if spec.name in feeds})
        self._deployed_is_stale = True

    @property
    def can_reorder(self) -> bool:
        """Whether the graphs take the order of channels as they take codebooks."""
        return any(spec.name == "codebook_order" for spec in self._train.graph.held)

    def encode(self, image: np.ndarray) -> Arrays:
        """Codes of `image` (n,C,H,W) f32, normalised, as deployed."""
        if self._deployed_is_stale:
            deployed = dict(fold(self.state, self.bundle.folds), **self.codec.table_feeds(self.tables))
            self._deployed.set_weights(self._weights(self._deployed, deployed))
            self._deployed_is_stale = False
        return self._deployed.run_batch({"image": image})

    def forward(self, image: np.ndarray) -> Forward:
        """Codes of a training batch, and what `backward` needs; moves the running statistics along."""
        outputs = self._train.run({"image": image})
        # Copies: an engine may write its next outputs where the last ones are, and these are needed when it has.
        codes = {spec.name: outputs[spec.name].copy() for spec in self.bundle.graphs["front"].outputs}
        for norm in self._norms:
            count = image.shape[0] * norm["positions"]
            self._move(norm["running_mean"], norm["momentum"], outputs[norm["batch_mean"]])
            # PyTorch keeps the unbiased variance, the graph computes the biased one.
            self._move(
                norm["running_var"], norm["momentum"], outputs[norm["batch_var"]] * np.float32(count / (count - 1))
            )
        self._deployed_is_stale |= bool(self._norms)
        return Forward(image, codes, outputs[self._feature], outputs)

    def backward(self, forward: Forward, gradient: np.ndarray) -> Arrays:
        """d loss / d weight by weight name, from `gradient` (n,C,h,w) f32 at the cut, channels in coded order."""
        given = {"image": forward.image, "gradient": gradient}
        feeds = {
            spec.name: given[spec.name] if spec.name in given else forward.outputs[spec.name]
            for spec in self._grad.graph.inputs
        }
        computed = self._grad.run(feeds)
        return {name[len("gradient.") :]: value for name, value in computed.items()}

    def learn(self, gradients: Arrays, optimizer: Optimizer, learning_rate: float) -> None:
        """One optimizer step; the new weights reach the training engines now, the deployed one at its next use."""
        if self.bundle.norm == "frozen":
            gradients = clip_to_weights(gradients, self.state, LARGEST_STEP)
        optimizer.step(self.state, gradients, learning_rate)
        for name in gradients:
            if not np.isfinite(self.state[name]).all():
                raise Diverged("weight '{}' is not finite any more: training diverged, lower --lr".format(name))
        self._train.set_weights(self._weights(self._train))
        self._grad.set_weights(self._weights(self._grad))
        self._deployed_is_stale = True

    def close(self) -> None:
        for backend in (self._deployed, self._train, self._grad):
            backend.close()

    def _weights(self, backend: Backend, instead: Optional[Arrays] = None) -> Arrays:
        values = dict(self.state, **(instead or {}))
        specs = backend.graph.constants + backend.graph.held
        return {spec.name: values[spec.name] for spec in specs if spec.name in values}

    def _move(self, name: str, momentum: float, batch: np.ndarray) -> None:
        self.state[name] += np.float32(momentum) * (batch - self.state[name])

    def _check_names(self) -> None:
        """BundleError unless the graphs, the weights and the batch norms of the bundle name each other."""
        graphs, norms = self.bundle.graphs, self.bundle.manifest["batch_norms"]
        train = graphs["front_train"]
        held = [spec.name for graph in graphs.values() for spec in graph.held + graph.constants]
        wanted = set(held) - set(self.codec.table_feeds(self.bundle.tables()))
        folded = {each.into + part for each in self.bundle.folds for part in (".weight", ".bias")}
        wanted = wanted - folded | {name for each in self.bundle.folds for name in each.buffers}
        wanted |= {each.convolution + ".weight" for each in self.bundle.folds if each.convolution}
        wanted |= {norm[key] for norm in norms for key in ("running_mean", "running_var")}
        lost = wanted - set(self.state)
        made = {spec.name for spec in train.outputs} | {"image", "gradient"}
        lost |= {spec.name for spec in graphs["front_grad"].inputs} - made
        lost |= {spec.name for spec in graphs["front"].outputs} - made
        lost |= {spec.name[len("gradient.") :] for spec in graphs["front_grad"].outputs} - set(self.state)
        if lost:
            raise BundleError(
                "{}: nothing in the bundle provides {}: export it again".format(self.bundle.path, sorted(lost))
            )

    def _check_golden(self) -> None:
        golden = self.bundle.arrays("golden.safetensors")
        names = {"image"} | {"deployed." + spec.name for spec in self._deployed.graph.outputs}
        if not names <= set(golden):
            raise BundleError("{}: golden.safetensors lacks {}".format(self.bundle.path, sorted(names - set(golden))))
        for name, codes in self.encode(golden["image"]).items():
            expected = golden["deployed." + name]
            share = float(np.isclose(codes, expected, rtol=1e-3, atol=1e-3).mean())
            if share < GOLDEN_SHARE:
                raise BackendError(
                    "{} reproduces {:.1%} of the golden '{}', expected {:.0%}: this engine computes something else "
                    "than the one the bundle was exported with; try --backend reference".format(
                        self._deployed.backend_id, share, name, GOLDEN_SHARE
                    )
                )
