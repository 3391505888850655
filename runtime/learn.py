"""FrontHalf: runs the exported front half and trains it, although the engine's graph is frozen.

::

    image --front.onnx--> codes                                   deployed: batch norm on running statistics
    image --front_train.onnx--> codes, feature, saved activations
    saved, gradient at the cut --front_grad.onnx--> d loss / d weight --optimizer--> weights --> the three graphs
"""

import contextlib
from typing import Optional, Type

import numpy as np

from edgekit.bundle import Bundle
from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError, BundleError, Diverged, UsageError
from edgekit.folding import fold
from edgekit.runtime.backends.base import Backend
from edgekit.runtime.backends.registry import backend_class
from edgekit.runtime.front import Forward, Front
from edgekit.runtime.optim import Optimizer, clip_to_weights

#: Share of the golden codes that an engine must reproduce before it is used: rounding decides a near tie otherwise.
GOLDEN_SHARE = 0.99
#: Largest error of a golden code that is a float (codec raw), as a share of the largest code; float16 rounds by 0.0005.
GOLDEN_SLACK = 1e-3
#: With the norm policy "frozen", a weight's gradient is clipped to this share of the weight's norm.
LARGEST_STEP = 0.02


def agreeing(codes: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """bool, for each of `codes`: equal to the expected code, or for floats within `GOLDEN_SLACK` of it."""
    slack = GOLDEN_SLACK * np.abs(expected).max() if expected.dtype.kind == "f" else 0
    return np.asarray(np.abs(codes - expected) <= slack)


class FrontHalf(Front):
    """A device's front half: weights, batch-norm buffers, codec tables, and the engines that run its graphs."""

    def __init__(self, bundle: Bundle, backend_id: str, threads: int) -> None:
        self.bundle = bundle
        self.digest, self.origin, self.codec, self.classes = bundle.digest, bundle.path, bundle.codec, bundle.classes
        self.mean, self.std = bundle.mean, bundle.std
        static = bundle.graphs["front"].inputs[0].shape[0]
        self.most = static if static > 0 else None
        engine = backend_class(backend_id)
        learner = backend_class(engine.learns_on) if engine.learns_on else engine

        def load(cls: Type[Backend], key: str) -> Backend:
            return cls(bundle.read(bundle.graphs[key].file), bundle.graphs[key], threads, bundle.device)

        self._train, self._grad = (load(learner, key) for key in ("front_train", "front_grad"))
        #: The deployed graph on the learning engine: the deployed engine is compared with it after new weights.
        self._twin = load(learner, "front") if engine.learns_on else None
        self._deployed = load(engine, "front")
        with contextlib.ExitStack() as failing:
            failing.callback(self.close)
            self.state = bundle.arrays("front.safetensors")
            self._check_names()
            self.tables = bundle.tables()
            self.set_tables(self.tables)
            self._feature = bundle.feature_tensor
            self._norms = bundle.manifest["batch_norms"]
            self.learned = bundle.learned
            self.statistics = tuple(norm[key] for norm in self._norms for key in ("running_mean", "running_var"))
            self.variances = tuple(norm["running_var"] for norm in self._norms)
            for backend in (self._train, self._grad):
                backend.set_weights(self._weights(backend))
            self._golden = bundle.arrays("golden.safetensors")
            self._check_golden()
            failing.pop_all()

    def set_tables(self, tables: Arrays) -> None:
        """Sets the codec's tables (codebooks, order of channels) in all graphs.

        A new order must not come between a forward pass and its backward pass. UsageError when the order differs and
        the graphs have a fixed one.
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
        """Whether the order of channels is an input of the graphs, as codebooks are."""
        return any(spec.name == "codebook_order" for spec in self._train.graph.held)

    def encode(self, image: np.ndarray) -> Arrays:
        """Codes of `image` (n,C,H,W) f32, normalised, by the deployed graph."""
        if self._deployed_is_stale:
            self._deploy()
        return self._deployed.run_batch({"image": image})

    def forward(self, image: np.ndarray) -> Forward:
        """Codes of a training batch, and what `backward` needs; updates the running statistics of batch norms."""
        outputs = self._train.run({"image": image})
        # Copies: the engine may overwrite its outputs at the next run, when these are still needed.
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
            spec.name: given[spec.name] if spec.name in given else forward.kept[spec.name]
            for spec in self._grad.graph.inputs
        }
        computed = self._grad.run(feeds)
        return {name[len("gradient.") :]: value for name, value in computed.items()}

    def learn(self, gradients: Arrays, optimizer: Optimizer, learning_rate: float) -> None:
        """Makes one optimizer step. The learning engines get the new weights now, the deployed one at its next use."""
        if self.bundle.norm == "frozen":
            gradients = clip_to_weights(gradients, self.state, LARGEST_STEP)
        optimizer.step(self.state, gradients, learning_rate)
        for name in gradients:
            if not np.isfinite(self.state[name]).all():
                raise Diverged("weight '{}' is not finite any more: training diverged, lower --lr".format(name))
        self._train.set_weights(self._weights(self._train))
        self._grad.set_weights(self._weights(self._grad))
        self._deployed_is_stale = True

    def set_state(self, arrays: Arrays) -> None:
        for name, array in arrays.items():
            self.state[name][...] = array
        for backend in (self._train, self._grad):
            backend.set_weights(self._weights(backend))
        self._deployed_is_stale = True

    def close(self) -> None:
        for backend in (self._deployed, self._train, self._grad, self._twin):
            if backend is not None:
                backend.close()

    @property
    def refresh_s(self) -> float:
        """Seconds that new weights have cost in the deployed engine: new sessions, refits or rebuilds."""
        return self._deployed.refresh_s

    def _deploy(self) -> None:
        """Gives the deployed engine the present weights and tables, and compares its codes with the learning engine's.

        The bundle's golden codes belong to the exported weights. For new weights the learning engine computes the codes
        of the golden images again: once per evaluation, at the cost of a session and a small batch on the CPU. Where
        one engine runs all graphs there is nothing to compare.
        """
        for backend in (self._deployed, self._twin):
            if backend is not None:
                backend.set_weights(self._weights(backend, self._deployed_values()))
        self._deployed_is_stale = False
        if self._twin is not None:
            self._compare(
                self._twin.run_batch({"image": self._golden["image"]}),
                "codes that {} computes with the new weights".format(self._twin.backend_id),
                "they did not reach the engine whole",
            )

    def _deployed_values(self) -> Arrays:
        return dict(fold(self.state, self.bundle.folds), **self.codec.table_feeds(self.tables))

    def _weights(self, backend: Backend, instead: Optional[Arrays] = None) -> Arrays:
        values, graph = dict(self.state, **(instead or {})), backend.graph
        wanted = {spec.name: values[spec.name] for spec in graph.constants + graph.held if spec.name in values}
        order = self.codec.order(self.bundle.feature_shape[0], self.tables)
        for spec in graph.constants:
            if spec.name in graph.ordered:
                spec.check(wanted[spec.name], "filters to be put in the codec's order")
                wanted[spec.name] = wanted[spec.name][order]
        return wanted

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
        """BackendError unless the deployed engine, with weights and tables given to it, reproduces the golden codes."""
        outputs = self._deployed.graph.outputs
        names = {"image"} | {"deployed." + spec.name for spec in outputs}
        if not names <= set(self._golden):
            lacking = sorted(names - set(self._golden))
            raise BundleError("{}: golden.safetensors lacks {}".format(self.bundle.path, lacking))
        self._deployed.set_weights(self._weights(self._deployed, self._deployed_values()))
        self._deployed_is_stale = False
        self._compare(
            {spec.name: self._golden["deployed." + spec.name] for spec in outputs},
            "golden codes",
            "this engine computes something else than the one the bundle was exported with, or its files do not belong "
            "together",
        )

    def _compare(self, expected: Arrays, what: str, meaning: str) -> None:
        """BackendError unless the deployed engine gives `expected` for the golden images."""
        for name, codes in self._deployed.run_batch({"image": self._golden["image"]}).items():
            share = float(agreeing(codes, expected[name]).mean())
            if share < GOLDEN_SHARE:
                raise BackendError(
                    "{} reproduces {:.1%} of the {} '{}', expected {:.0%}: {}; try --backend reference".format(
                        self._deployed.backend_id, share, what, name, GOLDEN_SHARE, meaning
                    )
                )
