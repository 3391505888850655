"""FrontHalf: runs the exported front half and trains it, although the engine's graph is frozen.

::

    image --front.onnx--> codes                                   deployed: batch norm on running statistics
    image --front_train.onnx--> codes, feature, saved activations
    saved, gradient at the cut --front_grad.onnx--> d loss / d weight --optimizer--> weights --> the graphs
    feature, labels --local.onnx--> the local loss and its gradients, where the server trains with one
"""

import contextlib
from typing import Type

import numpy as np

from edgekit.bundle import GRAPHS, LOCAL, Bundle
from edgekit.codecs.base import Arrays
from edgekit.errors import BundleError, Diverged, UsageError
from edgekit.folding import fold
from edgekit.providers import AUTO, CPU
from edgekit.runtime.backends.base import Backend
from edgekit.runtime.backends.registry import backend_class, learner_class
from edgekit.runtime.front import Forward, Front, Local
from edgekit.runtime.golden import require_codes
from edgekit.runtime.optim import Optimizer, clip_to_weights
from edgekit.runtime.passes import Passes

#: With the norm policy "frozen", a weight's gradient is clipped to this share of the weight's norm.
LARGEST_STEP = 0.02


class FrontHalf(Front):
    """A device's front half: weights, batch-norm buffers, codec tables, and the engines that run its graphs."""

    def __init__(self, bundle: Bundle, backend_id: str, threads: int, provider: str = AUTO) -> None:
        self.bundle = bundle
        self.digest, self.origin, self.codec, self.classes = bundle.digest, bundle.path, bundle.codec, bundle.classes
        self.mean, self.std = bundle.mean, bundle.std
        static = bundle.graphs["front"].inputs[0].shape[0]
        self.most = static if static > 0 else None
        engine = backend_class(backend_id)
        learner = learner_class(backend_id)

        def load(cls: Type[Backend], key: str) -> Backend:
            return cls(bundle.read(bundle.graphs[key].file), bundle.graphs[key], threads, bundle.device)

        #: The graphs that learn; they say on which engine and provider.
        self.passes = Passes(bundle, learner, threads, provider)
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
            self.passes.set_weights(self.state)
            self._golden = bundle.arrays("golden.safetensors")
            self._check_golden()
            if self.passes.provider.name != CPU:
                self.passes.check(self._golden, [spec.name for spec in self._deployed.graph.outputs])
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
        self.passes.set_weights(self.codec.table_feeds(tables))
        self._deployed_is_stale = True

    @property
    def can_reorder(self) -> bool:
        """Whether the order of channels is an input of the graphs, as codebooks are."""
        return any(spec.name == "codebook_order" for spec in self.bundle.graphs["front_train"].held)

    def encode(self, image: np.ndarray) -> Arrays:
        """Codes of `image` (n,C,H,W) f32, normalised, by the deployed graph."""
        if self._deployed_is_stale:
            self._deploy()
        return self._deployed.run_batch({"image": image})

    def forward(self, image: np.ndarray) -> Forward:
        """Codes of a training batch, and what `backward` needs; updates the running statistics of batch norms."""
        outputs = self.passes.forward(image)
        codes = {spec.name: outputs[spec.name].array() for spec in self.bundle.graphs["front"].outputs}
        for norm in self._norms:
            count = image.shape[0] * norm["positions"]
            mean, variance = (outputs[norm[key]].array() for key in ("batch_mean", "batch_var"))
            self._move(norm["running_mean"], norm["momentum"], mean)
            # PyTorch keeps the unbiased variance, the graph computes the biased one.
            self._move(norm["running_var"], norm["momentum"], variance * np.float32(count / (count - 1)))
        self._deployed_is_stale |= bool(self._norms)
        return Forward(image, codes, outputs[self._feature].array(), outputs)

    def backward(self, forward: Forward, gradient: np.ndarray) -> Arrays:
        """d loss / d weight by weight name, from `gradient` (n,C,h,w) f32 at the cut, channels in coded order."""
        return self.passes.backward(forward.kept, gradient)

    def open_local(self) -> None:
        if LOCAL not in self.bundle.graphs:
            super().open_local()
        if set(self.bundle.head) <= set(self.learned):
            return
        self.passes.open_local()
        self.state.update(self.bundle.head_weights())
        self.learned += self.bundle.head
        self.passes.set_weights(dict(self.state, **self.codec.table_feeds(self.tables)))
        if self.passes.provider.name != CPU:
            self.passes.check_local(self._golden)

    def local(self, forward: Forward, labels: np.ndarray) -> Local:
        computed = self.passes.local(forward.kept, labels)
        gradients = {name: computed["gradient." + name] for name in self.bundle.head}
        return Local(float(computed["loss"][0]), computed["gradient"], gradients)

    def learn(self, gradients: Arrays, optimizer: Optimizer, learning_rate: float) -> None:
        """Makes one optimizer step. The learning engines get the new weights now, the deployed one at its next use."""
        if self.bundle.norm == "frozen":
            gradients = clip_to_weights(gradients, self.state, LARGEST_STEP)
        optimizer.step(self.state, gradients, learning_rate)
        for name in gradients:
            if not np.isfinite(self.state[name]).all():
                raise Diverged("weight '{}' is not finite any more: training diverged, lower --lr".format(name))
        self.passes.set_weights(self.state)
        self._deployed_is_stale = True

    def set_state(self, arrays: Arrays) -> None:
        for name, array in arrays.items():
            self.state[name][...] = array
        self.passes.set_weights(self.state)
        self._deployed_is_stale = True

    def close(self) -> None:
        for engine in (self._deployed, self.passes, self._twin):
            if engine is not None:
                engine.close()

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
                backend.set_weights(self._weights(backend))
        self._deployed_is_stale = False
        if self._twin is not None:
            self._compare(
                self._twin.run_batch({"image": self._golden["image"]}),
                "codes that {} computes with the new weights".format(self._twin.backend_id),
                "they did not reach the engine whole",
            )

    def _weights(self, backend: Backend) -> Arrays:
        """The present weights and tables of a deployed graph, batch norms folded."""
        values = dict(self.state, **fold(self.state, self.bundle.folds))
        values.update(self.codec.table_feeds(self.tables))
        graph = backend.graph
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
        held = [spec.name for key in GRAPHS for spec in graphs[key].held + graphs[key].constants]
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
        self._deployed.set_weights(self._weights(self._deployed))
        self._deployed_is_stale = False
        self._compare(
            {spec.name: self._golden["deployed." + spec.name] for spec in outputs},
            "golden codes",
            "this engine computes something else than the one the bundle was exported with, or its files do not belong "
            "together",
        )

    def _compare(self, expected: Arrays, what: str, meaning: str) -> None:
        """BackendError unless the deployed engine gives `expected` for the golden images."""
        codes = self._deployed.run_batch({"image": self._golden["image"]})
        require_codes(self._deployed.backend_id, codes, expected, what, meaning + "; try --backend reference")
